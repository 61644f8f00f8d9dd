# ruff: noqa
from common import fails, os

fd = os.open("f", os.O_RDWR | os.O_CREAT | os.O_EXCL, 416)
print(
    os.write(fd, b"0123456789"),
    os.lseek(fd, 4, 0),
    os.read(fd, 3),
    os.lseek(fd, 0, 1),
    os.pread(fd, 2, 8),
    os.pwrite(fd, b"X", 20),
)
print(os.fstat(fd).st_size, oct(os.fstat(fd).st_mode), os.lseek(fd, -1, 2), os.read(fd, 5), os.read(fd, 5))
print(
    fails(os.lseek, fd, -1, 0),
    fails(os.lseek, fd, 0, 99),
    fails(os.read, 99, 1),
    fails(os.open, "f", os.O_CREAT | os.O_EXCL),
)
a = os.dup(fd)
print(os.lseek(a, 3, 0), os.lseek(fd, 0, 1), os.get_inheritable(a), os.dup2(a, 50), os.lseek(50, 0, 1))
os.close(a)
print(fails(os.close, a), fails(os.fsync, fd), fails(os.fdatasync, fd), os.readv(fd, [bytearray(2), bytearray(3)]))
print(os.writev(fd, [b"ab", b"", b"c"]), fails(os.ftruncate, fd, -1), fails(os.truncate, "f", 3), os.stat("f").st_size)
