import ctypes
import mmap
import os
import struct
import threading
import time
from errno import errorcode

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, WAIT_BITSET, WAKE_BITSET, PRIVATE = 0, 1, 3, 4, 5, 9, 10, 128
page = mmap.mmap(-1, 8192, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
base = ctypes.addressof(ctypes.c_char.from_buffer(page))


def futex(offset, operation, value, timeout=None, second=0, third=0):
    spec = struct.pack("<qq", *timeout) if isinstance(timeout, tuple) else None
    keep = ctypes.create_string_buffer(spec) if spec else None
    fourth = ctypes.addressof(keep) if keep else timeout or 0
    words = [ctypes.c_ulong(word) for word in (base + offset, operation, value, fourth, base + second, third)]
    result = libc.syscall(202, *words)
    return result if result >= 0 else errorcode[ctypes.get_errno()]


print(futex(0, WAIT, 1), futex(1, WAIT, 0), futex(0, WAIT_BITSET, 0, None, 0, 0), futex(0, WAKE_BITSET, 1, None, 0, 0))
print(
    futex(0, WAIT, 0, (0, 1000)), futex(0, WAIT, 0, (-1, 0)), futex(0, WAIT, 0, (0, 10**9)), futex(0, WAIT, 0, (0, -1))
)
print(futex(0, WAIT_BITSET, 0, (1, 0), 0, 1), futex(0, WAIT_BITSET | 256, 0, (1, 0), 0, 1))  # absolute, long ago
print(futex(0, WAKE, 5), futex(0, 77, 0), futex(0, WAKE | 256, 1), futex(1 << 40, WAKE, 1), futex(0, WAKE | PRIVATE, 1))
print(futex(0, CMP_REQUEUE, 0, 1, 64, 7), futex(0, REQUEUE, 2**31, 1, 64), futex(0, CMP_REQUEUE, 1, 2**31, 64, 0))

woken = []


def sleeper(name, offset, bitset=0xFFFFFFFF, private=0):
    woken.append((name, futex(offset, WAIT_BITSET | private, 0, None, 0, bitset)))


def start(*arguments):
    thread = threading.Thread(target=sleeper, args=arguments)
    thread.start()
    time.sleep(0.05)
    return thread


threads = [start("one", 128, 1), start("two", 128, 2), start("four", 128, 4)]
print(futex(128, WAKE_BITSET, 10, None, 0, 8), futex(128, WAKE_BITSET, 10, None, 0, 6), futex(128, WAKE, 10))
for thread in threads:
    thread.join()
print(sorted(woken))

woken.clear()
threads = [start(name, 256) for name in "abcd"]
print(futex(256, CMP_REQUEUE, 1, 2, 320, 0), futex(256, WAKE, 9), futex(320, WAKE, 9))
for thread in threads:
    thread.join()
print(sorted(woken))

# FUTEX_WAKE_OP: set the second word to 5, wake both if it was 0.
woken.clear()
threads = [start("first", 384), start("second", 448)]
print(futex(384, WAKE_OP, 1, 1, 448, 0 << 28 | 0 << 24 | 5 << 12 | 0), struct.unpack_from("<I", page, 448))
for thread in threads:
    thread.join()

# A word that is shared with a child is the same word in both; a private wake does not find it.
child = os.fork()
if not child:
    os._exit(0 if futex(512, WAIT, 0) == 0 else 1)
while futex(512, WAKE, 1) == 0:
    time.sleep(0.01)
print(os.waitpid(child, 0)[1])
