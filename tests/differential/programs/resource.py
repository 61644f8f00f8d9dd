# ruff: noqa
from common import fails, os

import resource as r

print(
    fails(lambda: r.getrlimit(r.RLIMIT_CORE)[0] <= 2**63),
    r.getrlimit(r.RLIMIT_STACK)[0],
    fails(r.setrlimit, r.RLIMIT_NOFILE, (32, 64)),
    r.getrlimit(r.RLIMIT_NOFILE),
)
fds = []
print(fails(lambda: [fds.append(os.open("/dev/null", 0)) for _ in range(99)]))
print(fds[-1])
[os.close(f) for f in fds]
