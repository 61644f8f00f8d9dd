# ruff: noqa
from common import os, sys

print(
    os.getpid() == os.getpid() > 1,
    os.getppid() >= 0,
    os.getpgid(0) > 0,
    os.getuid() == os.geteuid(),
    os.uname().sysname,
    os.uname().machine,
    sys.platform,
    os.name,
)
