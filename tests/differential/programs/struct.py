# ruff: noqa
from common import sys

import struct, array

print(
    struct.pack("<bHIq?fd5s", -1, 2, 3, -4, True, 1.5, 2.5, b"abc").hex(),
    struct.calcsize("@bqP"),
    struct.unpack(">hH", b"\xff\xfe\xff\xfe"),
    array.array("i", [1, -2]).tobytes().hex(),
    sys.byteorder,
)
