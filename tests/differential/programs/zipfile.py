# ruff: noqa
from common import os

import zipfile, io

b = io.BytesIO()
with zipfile.ZipFile(b, "w", zipfile.ZIP_DEFLATED) as z:
    z.writestr("a/b.txt", "hello" * 100)
    z.writestr("c", b"")
open("z.zip", "wb").write(b.getvalue())
with zipfile.ZipFile("z.zip") as z:
    print(z.namelist(), z.read("a/b.txt")[:5], z.testzip(), z.getinfo("a/b.txt").file_size)
    z.extractall("out")
print(sorted(os.listdir("out")), open("out/a/b.txt").read(5))
