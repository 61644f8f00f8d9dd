# ruff: noqa
from common import sys

print("x")
sys.exit(42)
