# ruff: noqa
from common import fails, os

e = os.eventfd(3, os.EFD_NONBLOCK)
print(os.eventfd_read(e), fails(os.eventfd_read, e), os.eventfd_write(e, 5), os.eventfd_read(e))
m = os.memfd_create("m")
print(
    os.write(m, b"abc"),
    os.pread(m, 9, 1),
    os.fstat(m).st_size,
    os.fstat(m).st_nlink,
    os.ftruncate(m, 1),
    os.fstat(m).st_size,
)
