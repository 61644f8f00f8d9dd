# ruff: noqa
import ctypes


class S(ctypes.Structure):
    _fields_ = [("a", ctypes.c_byte), ("b", ctypes.c_double), ("c", ctypes.c_int * 3)]


libc = ctypes.CDLL(None)
libc.qsort.restype = None
a = (ctypes.c_int * 5)(3, 1, 4, 1, 5)
c = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))(lambda x, y: x[0] - y[0])
libc.qsort(a, 5, 4, c)
print(ctypes.sizeof(S), list(a), libc.strlen(b"hello"), libc.abs(-5), ctypes.sizeof(ctypes.c_long))
