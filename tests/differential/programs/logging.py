# ruff: noqa
from common import sys

import logging

logging.basicConfig(stream=sys.stdout, format="%(levelname)s:%(name)s:%(funcName)s:%(lineno)d:%(message)s", level=10)


def f():
    logging.getLogger("a.b").info("x %s", 1)


f()
logging.error("e")
