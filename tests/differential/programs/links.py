# ruff: noqa
from common import fails, os

open("t", "w").write("T")
os.symlink("t", "s")
os.symlink("nowhere", "d")
os.link("t", "h")
print(
    os.readlink("s"),
    open("s").read(),
    os.path.islink("d"),
    os.path.exists("d"),
    os.stat("t").st_nlink,
    os.lstat("s").st_size,
)
print(
    fails(open, "d"),
    fails(os.readlink, "t"),
    fails(os.symlink, "x", "s"),
    fails(os.link, "none", "z"),
    os.path.realpath("s").endswith("/t"),
)
os.unlink("t")
print(open("h").read(), os.stat("h").st_nlink, fails(open, "s"))
os.symlink("loop", "loop")
print(fails(open, "loop"), fails(os.stat, "loop/x"), fails(os.open, "s", os.O_NOFOLLOW))
