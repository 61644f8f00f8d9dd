# ruff: noqa
import ctypes
import mmap

from common import errno, os, sys

MBIND, SET, GET = 237, 238, 239
STATIC, RELATIVE, BALANCING = 1 << 15, 1 << 14, 1 << 13
libc = ctypes.CDLL(None, use_errno=True)
memory = mmap.mmap(-1, 1 << 20)
page = ctypes.addressof(ctypes.c_char.from_buffer(memory))
nodes = (ctypes.c_ulong * 64)()
told = (ctypes.c_ulong * 64)()
policy = ctypes.c_int()
where, what, mode = ctypes.addressof(nodes), ctypes.addressof(told), ctypes.addressof(policy)


def call(*arguments):
    result = libc.syscall(*[ctypes.c_long(argument) for argument in arguments])
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]


def shown(flags=0, address=0):
    ctypes.memset(what, 255, 64)
    policy.value = 77
    result = call(GET, mode, what, 128, address, flags)
    if not result and told[0] == 2:
        told[0] = 1  # Linux tells what was given with MPOL_F_RELATIVE_NODES
    return result, policy.value, told[0], told[1], told[2] == (1 << 64) - 1


print(shown(), shown(4), shown(5), shown(1), shown(8), shown(0, page), shown(2, 8), shown(3, page))
print([call(GET, mode, what, bits, 0, 4) for bits in (1, 2, 64, 65, 4096, 1 << 20, 1 << 63)])
print(call(GET, 8, 0, 0, 0, 0), call(GET, 0, 8, 64, 0, 0), call(GET, 0, 0, 0, 0, 0))
for flags in (0, STATIC, RELATIVE, STATIC | RELATIVE, BALANCING):
    for kind in (0, 1, 2, 3, 4, 5, 7, -1):
        for mask in (0, 1, 2):
            nodes[0] = mask
            print(
                flags,
                kind,
                mask,
                call(SET, kind | flags, where, 64),
                call(MBIND, page, 4096, kind | flags, where, 64, 0),
            )
            if mask < 2:
                print(shown(), shown(2, page), shown(1))
nodes[0] = 1
print(
    [call(SET, 2, where, bits) for bits in (0, 1, 2, 64, 65, 1025, 32769, 32770)],
    call(SET, 2, 8, 64),
    call(SET, 2, 0, 64),
)
nodes[1] = 1
print(call(SET, 2, where, 64), call(SET, 2, where, 65), call(SET, 2, where, 66), call(SET, 2, where, 1))
nodes[1] = 0
print(shown())
sys.stdout.flush()
pid = os.fork()
if not pid:
    print(shown(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(call(SET, 0, 0, 0), shown())

for flags in (0, 1, 2, 3, 8, 1 << 31):
    print(flags, call(MBIND, page, 8192, 2, where, 64, flags))
print(
    call(MBIND, page + 1, 4096, 2, where, 64, 0),
    call(MBIND, page, 0, 2, where, 64, 0),
    call(MBIND, page, 1, 2, where, 64, 0),
)
print(
    call(MBIND, page, -1, 2, where, 64, 0),
    call(MBIND, page, -4096, 2, where, 64, 0),
    call(MBIND, 0, 4096, 2, where, 64, 0),
)
print(call(MBIND, 0, 4096, 0, 0, 0, 0), call(MBIND, page, 1 << 46, 0, 0, 0, 0))
libc.munmap(ctypes.c_void_p(page + 16384), ctypes.c_size_t(4096))
print(call(MBIND, page + 12288, 4096, 2, where, 64, 0), call(MBIND, page + 12288, 8192, 2, where, 64, 0))
print(call(MBIND, page + 12288, 12288, 2, where, 64, 0), call(MBIND, page + 16384, 8192, 2, where, 64, 0))
print(shown(2, page + 12288), shown(2, page + 16384), shown(2, page + 20480))
sys.stdout.flush()
os._exit(0)
