# ruff: noqa
from common import fails, os

open("a", "wb").write(b"0123456789")
a = os.open("a", 0)
b = os.open("b", os.O_RDWR | os.O_CREAT)
print(os.sendfile(b, a, 2, 5), os.copy_file_range(a, b, 3, 0), os.pread(b, 20, 0))
print(fails(os.posix_fallocate, b, 0, 100), os.fstat(b).st_size, fails(os.sendfile, a, b, 0, 1))
