"""Randomness, scheduling with one processor, and futexes of a single thread."""

import struct
from errno import EACCES, EAGAIN, EFAULT, EINVAL, ENOSYS, EPERM, ESRCH, ETIMEDOUT
from typing import TYPE_CHECKING

from pyvmm.linux.errors import GuestError
from pyvmm.linux.syscalls.time import read_timespec
from pyvmm.linux.table import Flags, Int, Pointer, Size, UInt, syscall

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

GRND_NONBLOCK, GRND_RANDOM, GRND_INSECURE = 1, 2, 4
_RANDOM_MAX = 0x1FF_FFFF
_CHUNK = 1 << 16

FUTEX_WAIT, FUTEX_WAKE, FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET = 0, 1, 9, 10
FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME = 128, 256


@syscall
def getrandom(task: "Task", buffer: Pointer, size: Size, flags: Flags) -> int:
    """getrandom(2)."""
    if flags & ~(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE) or flags & 6 == 6:
        raise GuestError(EINVAL)
    size = min(size, _RANDOM_MAX)
    done = 0
    while done < size:
        task.kernel.check()
        count = task.mem.writable(buffer + done, min(size - done, _CHUNK))
        if not count:
            break
        task.mem.write(buffer + done, task.kernel.random(count))
        done += count
    if size and not done:
        raise GuestError(EFAULT)
    return done


@syscall
def sched_yield(task: "Task") -> int:
    """sched_yield(2)."""
    return 0


def _own(task: "Task", pid: int) -> None:
    if pid not in (0, task.pid, task.tid):
        raise GuestError(EINVAL if pid < 0 else ESRCH)


@syscall
def sched_getaffinity(task: "Task", pid: Int, size: UInt, mask: Pointer) -> int:
    """sched_getaffinity(2): processor 0; the answer is the size of the kernel's mask."""
    if size < 8 or size & 7:
        raise GuestError(EINVAL)
    _own(task, pid)
    task.mem.write(mask, (1).to_bytes(8, "little"))
    return 8


@syscall
def sched_setaffinity(task: "Task", pid: Int, size: UInt, mask: Pointer) -> int:
    """sched_setaffinity(2)."""
    wanted = task.mem.read(mask, min(size, 8))
    _own(task, pid)
    if not wanted or not wanted[0] & 1:
        raise GuestError(EINVAL)
    return 0


@syscall
def sched_getscheduler(task: "Task", pid: Int) -> int:
    """sched_getscheduler(2): SCHED_OTHER."""
    _own(task, pid)
    return 0


@syscall
def sched_getparam(task: "Task", pid: Int, param: Pointer) -> int:
    """sched_getparam(2)."""
    _own(task, pid)
    task.mem.write_u32(param, 0)
    return 0


@syscall
def sched_setscheduler(task: "Task", pid: Int, policy: Int, param: Pointer) -> int:
    """sched_setscheduler(2)."""
    _own(task, pid)
    priority = task.mem.read_u32(param)
    if policy & ~0x4000_0000 not in (0, 3, 5):
        raise GuestError(EPERM if policy in (1, 2) else EINVAL)
    if priority:
        raise GuestError(EINVAL)
    return 0


@syscall
def sched_get_priority_max(task: "Task", policy: Int) -> int:
    """sched_get_priority_max(2)."""
    if policy not in (0, 1, 2, 3, 5, 6):
        raise GuestError(EINVAL)
    return 99 if policy in (1, 2) else 0


@syscall
def sched_get_priority_min(task: "Task", policy: Int) -> int:
    """sched_get_priority_min(2)."""
    if policy not in (0, 1, 2, 3, 5, 6):
        raise GuestError(EINVAL)
    return 1 if policy in (1, 2) else 0


@syscall
def getpriority(task: "Task", which: Int, who: Int) -> int:
    """getpriority(2): nice 0, which the call itself shows as 20."""
    if not 0 <= which <= 2:
        raise GuestError(EINVAL)
    return 20


@syscall
def setpriority(task: "Task", which: Int, who: Int, nice: Int) -> int:
    """setpriority(2): being nicer changes nothing here, being less nice is not allowed."""
    if not 0 <= which <= 2:
        raise GuestError(EINVAL)
    if nice < 0:
        raise GuestError(EACCES)
    return 0


@syscall
def getcpu(task: "Task", cpu: Pointer, node: Pointer) -> int:
    """getcpu(2)."""
    for pointer in (cpu, node):
        if pointer:
            task.mem.write_u32(pointer, 0)
    return 0


@syscall
def futex(
    task: "Task", address: Pointer, operation: Int, value: UInt, timeout: Pointer, address2: Pointer, value3: UInt
) -> int:
    """futex(2).

    With a single thread nobody else can wake a waiter: waiting ends by its timeout or lasts until the sandbox's
    time limit.
    """
    command = operation & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
    if command not in (FUTEX_WAIT, FUTEX_WAKE, FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET):
        raise GuestError(ENOSYS)
    if address & 3:
        raise GuestError(EINVAL)
    if command in (FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET) and not value3:
        raise GuestError(EINVAL)
    if command in (FUTEX_WAKE, FUTEX_WAKE_BITSET):
        if not task.mm.find(address):
            raise GuestError(EFAULT)
        return 0
    clock = task.kernel.clock
    deadline = None
    if timeout:
        length = read_timespec(task, timeout)
        if command == FUTEX_WAIT_BITSET:
            length -= clock.realtime_ns() if operation & FUTEX_CLOCK_REALTIME else clock.monotonic_ns()
        deadline = clock.monotonic_ns() + length
    if struct.unpack("<I", task.mem.read(address, 4))[0] != value:
        raise GuestError(EAGAIN)
    while deadline is None or clock.monotonic_ns() < deadline:
        task.kernel.sleep_until(deadline)
    raise GuestError(ETIMEDOUT)
