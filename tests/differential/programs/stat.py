# ruff: noqa
from common import fails, os

import stat

open("f", "w").write("x" * 5000)
os.chmod("f", 2537)
s = os.stat("f")
print(
    oct(s.st_mode), s.st_size, s.st_nlink, s.st_blksize, s.st_blocks, stat.filemode(s.st_mode), s.st_uid == os.getuid()
)
os.utime("f", ns=(1000000001, 2000000002))
s = os.stat("f")
print(s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns > s.st_mtime_ns)
for path in ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"):
    s = os.stat(path)
    print(path, stat.S_ISCHR(s.st_mode), oct(s.st_mode), os.major(s.st_rdev), os.minor(s.st_rdev))
print(
    fails(os.stat, "none"),
    fails(os.stat, "f/x"),
    fails(os.stat, ""),
    fails(os.stat, "n" * 256),
    fails(os.stat, "a/" * 2100),
)
print(
    os.access("f", os.R_OK),
    os.access("f", os.F_OK),
    os.access("none", os.F_OK),
    fails(os.chmod, "none", 0),
    stat.S_ISDIR(os.stat(".").st_mode),
)
