from common import errno, fails, os

open("f", "w").close()
os.mkdir("d")
os.symlink("f", "link")
os.mkfifo("fifo")
TOO_LONG = "user." + "x" * 251
for path in ("f", "d"):
    print(os.listxattr(path), fails(os.getxattr, path, "user.a"))
    print(os.setxattr(path, "user.a", b"1"), os.setxattr(path, "user.b", b""), os.getxattr(path, b"user.a"))
    print(sorted(os.listxattr(path)))
    print(
        fails(os.setxattr, path, "user.a", b"2", os.XATTR_CREATE),
        fails(os.setxattr, path, "user.c", b"2", os.XATTR_REPLACE),
    )
    print(fails(os.setxattr, path, "user.a", b"22", os.XATTR_REPLACE), os.getxattr(path, "user.a"))
    print(fails(os.removexattr, path, "user.none"), os.removexattr(path, "user.a"), os.listxattr(path))
for name in ("", "user", "user.", "a.b", TOO_LONG, TOO_LONG[:-1]):
    print(
        len(name),
        name[:10],
        fails(os.getxattr, "f", name),
        fails(os.setxattr, "f", name, b"x"),
        fails(os.removexattr, "f", name),
    )
for path in ("link", "fifo"):
    for follow in (True, False):
        print(
            path,
            follow,
            [
                fails(os.setxattr, path, "user.a", b"x", follow_symlinks=follow),
                fails(os.getxattr, path, "user.a", follow_symlinks=follow),
                fails(os.listxattr, path, follow_symlinks=follow),
            ],
        )
fd = os.open("f", os.O_RDONLY)
print(os.setxattr(fd, "user.fd", b"x" * 1000), len(os.getxattr("f", "user.fd")))
print(
    fails(os.setxattr, fd, "user.big", b"x" * 65537),
    fails(os.setxattr, "none", "user.a", b""),
    fails(os.listxattr, "none"),
)
os.rename("f", "g")
print(len(os.getxattr("g", "user.fd")), errno.ENODATA)
