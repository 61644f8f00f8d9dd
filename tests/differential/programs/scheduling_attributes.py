# ruff: noqa
import ctypes
import struct

from common import errno, os, sys

SET, GET = 314, 315
RESET_ON_FORK, KEEP_POLICY, KEEP_PARAMS, CLAMP = 1, 8, 16, 32
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(8192)
address = ctypes.addressof(buffer)


def call(*arguments):
    result = libc.syscall(*[ctypes.c_long(argument) for argument in arguments])
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]


def change(policy, flags=0, nice=0, priority=0, size=56, pid=0, rest=b""):
    buffer[: 56 + len(rest)] = struct.pack("<IIQiIQQQII", size, policy, flags, nice, priority, 0, 0, 0, 0, 0) + rest
    result = call(SET, pid, address, 0)
    return result, struct.unpack_from("<I", buffer)[0]


def shown(size=48, pid=0):
    buffer[:100] = b"\xff" * 100
    result = call(GET, pid, address, size, 0)
    # The run time of one that is not SCHED_DEADLINE is the time slice since Linux 6.12.
    return (
        result,
        struct.unpack_from("<IIQiI", buffer) if not result else None,
        buffer.raw[32:60].hex() if not result else "",
    )


print(
    shown(), shown(56), shown(52)[0], shown(47), shown(0), shown(4096)[0], shown(4097), shown(48, -1), shown(48, 999999)
)
print(call(GET, 0, 0, 48, 0), call(GET, 0, address, 48, 1), call(GET, 0, 8, 48, 0))
print(call(SET, 0, 0, 0), call(SET, 0, address, 1), call(SET, -1, address, 0), call(SET, 0, 8, 0))
print(change(3, nice=1), shown(), os.nice(0))
print(change(0, nice=3), shown(), os.nice(0), change(0, KEEP_PARAMS), shown(), change(0, KEEP_POLICY, nice=4), shown())
print(
    change(0, nice=100), shown(), change(0, nice=19, size=0), change(0, nice=19, size=48), change(0, nice=19, size=47)
)
print(
    change(0, nice=19, size=64),
    change(0, nice=19, size=64, rest=b"\0" * 8),
    change(0, nice=19, size=64, rest=b"\1" * 8),
)
print(change(0, nice=19, size=4097), change(0, nice=19, size=4096))
for policy in (4, 100, 1 << 31, (1 << 32) - 1):
    print(policy, change(policy, nice=19), change(policy, KEEP_POLICY, nice=19))
for policy, priority in ((0, 1), (3, 5), (1, 0), (2, 0), (1, 100), (0, 1 << 31)):
    print(policy, priority, change(policy, nice=19, priority=priority))
print(
    change(0, 1 << 20, nice=19),
    change(0, 1 << 63, nice=19),
    change(0, nice=19, pid=999999),
    change(0, CLAMP, nice=19, size=48),
)
print(change(0, RESET_ON_FORK, nice=19), shown(), os.sched_getscheduler(0) == os.SCHED_OTHER | os.SCHED_RESET_ON_FORK)
sys.stdout.flush()
pid = os.fork()
if not pid:
    print(shown()[1][1:3], flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(change(5, RESET_ON_FORK), shown(), change(5, RESET_ON_FORK | KEEP_PARAMS), shown())
sys.stdout.flush()
