# ruff: noqa
from common import os

print(oct(os.umask(23)))
open("f", "w").close()
os.mkdir("d")
print(oct(os.stat("f").st_mode), oct(os.stat("d").st_mode), oct(os.umask(0)))
