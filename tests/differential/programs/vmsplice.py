# ruff: noqa
import ctypes
import mmap
import signal
import struct

from common import errno, os, sys

VMSPLICE, NONBLOCK, F_SETPIPE_SZ = 278, 2, 1031
libc = ctypes.CDLL(None, use_errno=True)
memory = mmap.mmap(-1, 1 << 17)
memory.write(b"0123456789" * 8192)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
signal.signal(signal.SIGPIPE, lambda number, frame: print("SIGPIPE"))


def splice(fd, *pieces, flags=0, count=None):
    vector = b"".join(struct.pack("<QQ", base, length) for base, length in pieces)
    kept = ctypes.create_string_buffer(vector, max(len(vector), 1))
    number = len(pieces) if count is None else count
    result = libc.syscall(VMSPLICE, fd, ctypes.c_void_p(ctypes.addressof(kept)), ctypes.c_long(number), flags)
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]


r, w = os.pipe()
print(splice(w, (address, 10), (address + 5, 3)), os.read(r, 100))
print(splice(w), splice(w, (address, 0)), splice(w, (0, 10)), splice(w, (8, 10)), splice(w, (1 << 63, 10)))
print(
    splice(w, (address, 10), (8, 10)),
    os.read(r, 100),
    splice(w, (address, (1 << 64) - 1)),
    splice(w, (address, 4), count=1025),
)
print(splice(99, (address, 10)), splice(w, (address, 10), flags=16), splice(99, (address, 1), flags=16), splice(99))
print(splice(1 << 31, (address, 10)))
print(splice(r, (address, 10), flags=NONBLOCK))
os.write(w, b"abcdefghij" * 10)
print(splice(r, (address, 15), (address + 100, 5)), memory[:20], memory[100:105])
print(splice(r, (8, 10)), splice(r, (address, 10), (8, 10)), os.read(r, 10))
print(splice(r, (address, 1000)), splice(r, (address, 0)))
libc.fcntl(w, F_SETPIPE_SZ, 4096)
print(splice(w, (address, 4000)), splice(w, (address, 4000), flags=NONBLOCK), len(os.read(r, 10000)))
print(
    splice(w, (address + 4096, 50000)),
    splice(w, (address, 1), flags=NONBLOCK),
    len(os.read(r, 100000)),
)
file = os.memfd_create("x")
print(splice(file, (address, 10)), splice(file, (address, 0)), splice(os.open("/", os.O_RDONLY), (address, 10)))
print(splice(os.open("/", os.O_PATH), (address, 10)))
os.close(w)
print(splice(r, (address, 10)), splice(r, (address, 10), flags=NONBLOCK))
r, w = os.pipe()
os.close(r)
print(splice(w, (address, 10)))
sys.stdout.flush()
