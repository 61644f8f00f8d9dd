# ruff: noqa
from common import fails, os

with open("a", "w") as f:
    print(f.write("one\ntwo\nthree"), f.tell())
with open("a") as f:
    print(f.readline(), f.readlines(), f.read(), f.seek(2), f.read(3))
with open("a", "ab") as f:
    print(f.tell(), f.write(b"!"), f.tell())
with open("a", "r+b") as f:
    f.seek(-3, 2)
    print(f.read(), f.truncate(4), f.seek(0), f.read(), os.fstat(f.fileno()).st_size)
with open("a", "xb") if not os.path.exists("a") else open("b", "x") as f:
    print(f.name, f.mode)
print(fails(open, "a", "x"), sorted(os.listdir()))
