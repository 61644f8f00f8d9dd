# ruff: noqa
from common import os, sys

open("mod.py", "w").write('x = 41\nif __name__ != "__main__": x += 1')
os.makedirs("pkg")
open("pkg/__init__.py", "w").write("from . import sub")
open("pkg/sub.py", "w").write("y = __name__")
import mod, pkg, importlib

print(mod.x, pkg.sub.y, importlib.reload(mod).x, mod.__cached__ is not None, sys.modules["mod"] is mod)
try:
    import none_such
except ModuleNotFoundError as e:
    print(e, e.name)
