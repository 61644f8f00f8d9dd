"""futex(2)."""

import struct
from errno import EAGAIN, EINVAL, ENOSYS
from typing import TYPE_CHECKING

from pyvmm.linux.errors import GuestError
from pyvmm.linux.futex import FUTEX_BITSET_ANY, futex_key, futex_wait, futex_wake
from pyvmm.linux.syscalls.time import read_timespec
from pyvmm.linux.table import Flags, Pointer, UInt, syscall

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

FUTEX_WAIT, FUTEX_WAKE, FUTEX_REQUEUE, FUTEX_CMP_REQUEUE, FUTEX_WAKE_OP = 0, 1, 3, 4, 5
FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET = 9, 10
FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME = 128, 256

_MASK32 = 0xFFFF_FFFF
#: FUTEX_OP_SET, ADD, OR, ANDN, XOR.
_OPERATIONS = (
    lambda old, argument: argument,
    lambda old, argument: old + argument,
    lambda old, argument: old | argument,
    lambda old, argument: old & ~argument,
    lambda old, argument: old ^ argument,
)
#: FUTEX_OP_CMP_EQ, NE, LT, LE, GT, GE, of signed numbers.
_COMPARISONS = (
    lambda old, argument: old == argument,
    lambda old, argument: old != argument,
    lambda old, argument: old < argument,
    lambda old, argument: old <= argument,
    lambda old, argument: old > argument,
    lambda old, argument: old >= argument,
)
_OP_OPARG_SHIFT = 8


@syscall
def futex(
    task: "Task", address: Pointer, operation: Flags, value: UInt, timeout: Pointer, address2: Pointer, value3: UInt
) -> int:
    """futex(2).

    Priority-inheriting operations are refused with ENOSYS.
    """
    private = bool(operation & FUTEX_PRIVATE_FLAG)
    command = operation & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
    if command in (FUTEX_WAIT, FUTEX_WAIT_BITSET):
        bitset = value3 if command == FUTEX_WAIT_BITSET else FUTEX_BITSET_ANY
        if not bitset:
            raise GuestError(EINVAL)
        until = _until(task, timeout, command, operation) if timeout else None
        return futex_wait(task, address, value, until, bitset, private=private)
    if operation & FUTEX_CLOCK_REALTIME:
        raise GuestError(ENOSYS)
    count = _signed(value)
    if command in (FUTEX_WAKE, FUTEX_WAKE_BITSET):
        bitset = value3 if command == FUTEX_WAKE_BITSET else FUTEX_BITSET_ANY
        if not bitset:
            raise GuestError(EINVAL)
        # "Wake at most none" wakes one: an old slip that Linux keeps.
        return futex_wake(task, address, max(count, 1), bitset, private=private)
    if command in (FUTEX_REQUEUE, FUTEX_CMP_REQUEUE):
        # The time-out's register holds a number here.
        return _requeue(
            task, address, address2, count, _signed(timeout & _MASK32),
            value3 if command == FUTEX_CMP_REQUEUE else None, private=private,
        )  # fmt: skip
    if command == FUTEX_WAKE_OP:
        return _wake_op(task, address, address2, count, _signed(timeout & _MASK32), value3, private=private)
    raise GuestError(ENOSYS)


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def _until(task: "Task", timeout: int, command: int, operation: int) -> int:
    """The end of a wait by the guest's CLOCK_MONOTONIC: relative for FUTEX_WAIT, absolute for FUTEX_WAIT_BITSET."""
    length = read_timespec(task, timeout)
    clock = task.kernel.clock
    if command == FUTEX_WAIT:
        return task.deadline_after(length)
    if operation & FUTEX_CLOCK_REALTIME:
        return clock.monotonic_ns() + length - clock.realtime_ns()
    return length


def _requeue(
    task: "Task", address: int, address2: int, wake: int, move: int, expected: int | None, *, private: bool
) -> int:
    if wake < 0 or move < 0:
        raise GuestError(EINVAL)
    first, second = futex_key(task, address, private=private), futex_key(task, address2, private=private)
    if expected is not None and task.mem.read_u32(address) != expected:
        raise GuestError(EAGAIN)
    table = task.kernel.futexes
    woken = table.wake(first, wake, FUTEX_BITSET_ANY)
    moved = table.requeue(first, second, move) if first != second else 0
    return woken + moved


def _wake_op(task: "Task", address: int, address2: int, wake: int, wake2: int, encoded: int, *, private: bool) -> int:
    """Change the second word, wake at the first, and if the old value compares so, at the second."""
    futex_key(task, address, private=private)
    futex_key(task, address2, private=private)
    operation, comparison = encoded >> 28, encoded >> 24 & 15
    argument, compared = (_sign12(encoded >> 12 & 0xFFF), _sign12(encoded & 0xFFF))
    if operation & _OP_OPARG_SHIFT:
        argument = 1 << (argument & 31)
        operation &= ~_OP_OPARG_SHIFT
    if operation >= len(_OPERATIONS) or comparison >= len(_COMPARISONS):
        raise GuestError(ENOSYS)
    (old,) = struct.unpack("<i", task.mem.read(address2, 4))
    task.mem.write_u32(address2, _OPERATIONS[operation](old, argument) & _MASK32)
    woken = futex_wake(task, address, max(wake, 1), FUTEX_BITSET_ANY, private=private)
    if _COMPARISONS[comparison](old, compared):
        woken += futex_wake(task, address2, max(wake2, 1), FUTEX_BITSET_ANY, private=private)
    return woken


def _sign12(value: int) -> int:
    return value - (1 << 12) if value >> 11 else value
