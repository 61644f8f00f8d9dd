# ruff: noqa
from common import errno

print("x")
raise OSError(errno.ENOSPC, "full")
