# ruff: noqa
from common import errno

import ctypes

libc = ctypes.CDLL(None, use_errno=True)


def call(*a):
    r = libc.syscall(*[ctypes.c_long(x) for x in a])
    return r if r >= 0 else errno.errorcode[ctypes.get_errno()]


print(
    call(0, 99, 0, 1),
    call(1, 1, 1, 5),
    call(3, -1),
    call(8, 1, 0, 9),
    call(9, 0, 0, 3, 34, -1, 0),
    call(9, 1, 4096, 3, 50, -1, 0),
    call(9, 0, 4096, 3, 2, 99, 0),
)
print(
    call(10, 1, 4096, 1),
    call(11, 1, 4096),
    call(11, 4096, 0),
    call(28, 4096, 4096, 4),
    call(28, 4096, 4096, 999),
    call(25, 4096, 4096, 8192, 1),
    call(26, 4096, 4096, 99),
)
print(
    call(13, 9, 8, 0, 8),
    call(13, 65, 0, 0, 8),
    call(13, 10, 0, 0, 7),
    call(14, 9, 8, 0, 8),
    call(14, 0, 1, 0, 8),
    call(35, 1, 0),
    call(230, 99, 0, 0, 0),
)
print(
    call(62, 0, 65),
    call(62, 999999, 0),
    call(200, -1, 1),
    call(228, 99, 0),
    call(228, 0, 1),
    call(229, 1, 0),
    call(96, 1, 0),
)
print(
    call(79, 1, 100),
    call(79, 0, 0),
    call(80, 0),
    call(80, 1),
    call(318, 1, 8, 0),
    call(318, 0, 0, 99),
    call(157, 999, 0, 0, 0, 0),
    call(157, 38, 2, 0, 0, 0),
)
print(
    call(97, 99, 0),
    call(97, 7, 1),
    call(302, 0, 99, 0, 0),
    call(98, 5, 0),
    call(98, 0, 1),
    call(115, -1, 0),
    call(109, -1, 0),
    call(121, -1),
    call(124, -1),
)
print(
    call(202, 1, 0, 0, 0, 0, 0),
    call(202, 0, 77, 0, 0, 0, 0),
    call(204, 0, 1, 0),
    call(146, 99),
    call(146, 0),
    call(147, 1),
    call(140, 9, 0),
    call(7, 1, 1, 0),
    call(7, 0, -1, 0),
)
print(
    call(32, 99),
    call(33, 1, -1),
    call(33, 99, 5),
    call(292, 1, 1, 0),
    call(292, 1, 5, 99),
    call(293, 1, 0),
    call(72, 99, 1),
    call(72, 1, 99),
    call(16, 1, 21505, 0),
    call(16, 99, 0, 0),
)
