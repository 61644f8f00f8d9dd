# ruff: noqa
from common import fails, os

print(
    open("/dev/null").read(),
    open("/dev/null", "wb").write(b"x"),
    open("/dev/zero", "rb").read(3),
    len(open("/dev/urandom", "rb").read(9)),
)
print(
    fails(os.write, os.open("/dev/full", os.O_WRONLY), b"x"),
    os.isatty(1),
    os.isatty(0),
    fails(os.lseek, os.open("/dev/null", 0), 5, 0),
)
