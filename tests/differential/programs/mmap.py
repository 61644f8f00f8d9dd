# ruff: noqa
from common import fails, os

import mmap

m = mmap.mmap(-1, 8192)
m[0:3] = b"abc"
print(m[:4], m.find(b"c"), m.size(), len(m))
m.resize(16384)
print(len(m), m[0:3], m[16383])
open("f", "wb").write(b"z" * 5000)
f = open("f", "r+b")
s = mmap.mmap(f.fileno(), 0)
s[1:4] = b"ABC"
s.flush()
print(open("f", "rb").read(6), len(s))
c = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
c[0:1] = b"!"
print(c[:3], open("f", "rb").read(3))
c.close()
s.close()
print(fails(mmap.mmap, f.fileno(), 1, offset=4096, flags=0), open("f", "rb").read(5))
r = mmap.mmap(os.open("f", 0), 0, access=mmap.ACCESS_READ)
print(r[:2], r.madvise(mmap.MADV_DONTNEED), r[:2])
