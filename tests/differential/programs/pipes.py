# ruff: noqa
from common import fails, os

r, w = os.pipe()
print(
    os.write(w, b"abc"),
    os.read(r, 2),
    os.read(r, 9),
    fails(os.lseek, r, 0, 0),
    fails(os.write, r, b"x"),
    fails(os.read, w, 1),
)
os.set_blocking(r, False)
print(fails(os.read, r, 1))
os.set_blocking(w, False)
n = 0
while (k := fails(os.write, w, b"x" * 4096)) != "EAGAIN":
    n += k
print(n)
os.close(w)
print(sum((len(os.read(r, 65536)) for _ in range(3))), os.read(r, 1))
os.close(r)
r, w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
os.close(r)
print(fails(os.write, w, b"x"), os.get_inheritable(w), os.get_blocking(w))
