# ruff: noqa
from common import fails, os

import select

r, w = os.pipe()
p = select.poll()
p.register(r, select.POLLIN)
p.register(w, select.POLLOUT)
p.register(200, 1)
print(sorted(((fd == r, fd == w, e) for fd, e in p.poll(0))))
p.unregister(200)
os.write(w, b"x")
print(len(p.poll(0)))
print([len(x) for x in select.select([r], [w], [r], 0)], [len(x) for x in select.select([], [], [], 0.01)])
os.close(w)
print(p.poll(0)[0][1] if p.poll(0)[0][0] == r else p.poll(0)[1][1], fails(select.select, [w], [], [], 0))
