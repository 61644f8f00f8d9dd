# ruff: noqa
from common import sys

import signal

signal.signal(signal.SIGTERM, lambda *a: sys.exit(11))
signal.raise_signal(signal.SIGTERM)
