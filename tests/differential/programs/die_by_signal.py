# ruff: noqa
from common import os

os.kill(os.getpid(), 15)
