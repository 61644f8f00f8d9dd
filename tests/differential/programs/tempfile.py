# ruff: noqa
from common import os

import tempfile

with tempfile.TemporaryDirectory() as d:
    open(d + "/f", "w").close()
    print(os.listdir(d), oct(os.stat(d).st_mode))
print(os.path.exists(d))
with tempfile.NamedTemporaryFile("w+") as f:
    f.write("x")
    f.seek(0)
    print(f.read(), os.path.exists(f.name), oct(os.stat(f.name).st_mode))
print(os.path.exists(f.name))
with tempfile.TemporaryFile() as f:
    f.write(b"abc")
    f.seek(1)
    print(f.read(), os.fstat(f.fileno()).st_nlink)
with tempfile.SpooledTemporaryFile(max_size=2) as f:
    f.write(b"abcd")
    f.seek(0)
    print(f.read())
