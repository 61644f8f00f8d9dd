"""Time and signals as files: timerfd_create(2), signalfd(2)."""

import struct
from errno import EINVAL, EPERM
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import O_CLOEXEC, O_NONBLOCK
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.signalfd import SignalFile
from pyvmm.linux.files.timerfd import TimerFile
from pyvmm.linux.signals import UNBLOCKABLE
from pyvmm.linux.syscalls.time import (
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM,
)
from pyvmm.linux.syscalls.timers import read_itimerspec
from pyvmm.linux.table import Fd, Flags, Int, Pointer, Size, syscall
from pyvmm.linux.vfs.anonymous import EventInode

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

TFD_TIMER_ABSTIME, TFD_TIMER_CANCEL_ON_SET = 1, 2
_SECOND = 1_000_000_000


@syscall
def timerfd_create(task: "Task", clock: Int, flags: Flags) -> int:
    """timerfd_create(2): a timer that is read.

    Clocks that wake the machine from its sleep are refused with EPERM.
    """
    clocks = (CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM)
    if flags & ~(O_CLOEXEC | O_NONBLOCK) or clock not in clocks:
        raise GuestError(EINVAL)
    if clock in (CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM):
        raise GuestError(EPERM)
    kernel = task.kernel
    inode = EventInode(kernel.vfs.next_anonymous(), b"[timerfd]", kernel.clock.realtime_ns())
    return task.files.install(TimerFile(inode, flags, kernel, clock == CLOCK_REALTIME), bool(flags & O_CLOEXEC))


def _timer(task: "Task", fd: int) -> TimerFile:
    file = task.files.get(fd)
    if not isinstance(file, TimerFile):
        raise GuestError(EINVAL)
    return file


def _itimerspec(timer: TimerFile) -> bytes:
    return struct.pack("<4q", *divmod(timer.interval, _SECOND), *divmod(timer.left(), _SECOND))


@syscall
def timerfd_settime(task: "Task", fd: Fd, flags: Int, new: Pointer, old: Pointer) -> int:
    """timerfd_settime(2): set a timer.

    TFD_TIMER_CANCEL_ON_SET has no effect, since nobody sets the clock.
    """
    interval, value = read_itimerspec(task, new)
    if flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET):
        raise GuestError(EINVAL)
    timer = _timer(task, fd)
    timer.go_on()
    before = _itimerspec(timer)
    when = None
    if value:
        clock = task.kernel.clock
        when = clock.monotonic_ns() + value
        if flags & TFD_TIMER_ABSTIME:
            when = when - clock.realtime_ns() if timer.is_real else value
    timer.set(when, interval)
    if old:
        task.mem.write(old, before)
    return 0


@syscall
def timerfd_gettime(task: "Task", fd: Fd, value: Pointer) -> int:
    """timerfd_gettime(2): how long until a timer rings."""
    timer = _timer(task, fd)
    timer.ticks += timer.go_on()
    task.mem.write(value, _itimerspec(timer))
    return 0


@syscall
def signalfd(task: "Task", fd: Fd, mask: Pointer, size: Size) -> int:
    """signalfd(2): signals that are read."""
    return signalfd4(task, fd, mask, size, 0)


@syscall
def signalfd4(task: "Task", fd: Fd, mask: Pointer, size: Size, flags: Flags) -> int:
    """signalfd(2): the same, with flags."""
    if size != 8:
        raise GuestError(EINVAL)
    wanted = task.mem.read_u64(mask) & ~UNBLOCKABLE
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise GuestError(EINVAL)
    if fd != -1:
        file = task.files.get(fd)
        if not isinstance(file, SignalFile):
            raise GuestError(EINVAL)
        file.mask = wanted
        task.process.signals.arrived.wake()
        return fd
    kernel = task.kernel
    inode = EventInode(kernel.vfs.next_anonymous(), b"[signalfd]", kernel.clock.realtime_ns())
    return task.files.install(SignalFile(inode, flags, kernel, wanted), bool(flags & O_CLOEXEC))
