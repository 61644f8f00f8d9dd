"""Timers of a process: alarm(2), setitimer(2), timer_create(2) and what belongs to them."""

import struct
from errno import EINVAL
from typing import TYPE_CHECKING

from pyvmm.linux.abi.signal import NSIG, SIGALRM
from pyvmm.linux.errors import GuestError
from pyvmm.linux.syscalls.time import (
    CLOCK_BOOTTIME,
    CLOCK_MONOTONIC,
    CLOCK_PROCESS_CPUTIME_ID,
    CLOCK_REALTIME,
    CLOCK_TAI,
    CLOCK_THREAD_CPUTIME_ID,
    TIMER_ABSTIME,
)
from pyvmm.linux.table import Int, Pointer, UInt, syscall
from pyvmm.linux.timers import (
    ITIMER_REAL,
    SIGEV_NONE,
    SIGEV_SIGNAL,
    SIGEV_THREAD,
    SIGEV_THREAD_ID,
    PosixTimer,
    timers_of,
)

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.timers import IntervalTimer

_SECOND = 1_000_000_000
_FOR_EVER = 1 << 62
_TIMER_CLOCKS = frozenset(
    {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID}
)
_CPU_CLOCKS = frozenset({CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID})
#: ``struct sigevent``: value, signal, kind, thread.
_SIGEVENT = struct.Struct("<Qiii")


@syscall
def alarm(task: "Task", seconds: UInt) -> int:
    """alarm(2)."""
    timer = timers_of(task.process).interval_timer(ITIMER_REAL)
    left = timer.left()
    timer.set(timer.now() + seconds * _SECOND if seconds else None, 0)
    # A second that has begun counts, but half of one does not when there are more (``alarm_setitimer()``).
    whole, rest = divmod(left, _SECOND)
    return whole + 1 if rest >= _SECOND // 2 or (not whole and rest) else whole


def _itimerval(timer: "IntervalTimer") -> bytes:
    pair = [divmod(value, _SECOND) for value in (timer.interval, timer.left())]
    return struct.pack("<4q", *(word for seconds, rest in pair for word in (seconds, rest // 1000)))


@syscall
def getitimer(task: "Task", which: Int, value: Pointer) -> int:
    """getitimer(2)."""
    task.mem.write(value, _itimerval(timers_of(task.process).interval_timer(which)))
    return 0


@syscall
def setitimer(task: "Task", which: Int, new: Pointer, old: Pointer) -> int:
    """setitimer(2)."""
    fields = struct.unpack("<4q", task.mem.read(new, 32)) if new else (0, 0, 0, 0)
    if any(seconds < 0 or not 0 <= micro < 1_000_000 for seconds, micro in (fields[:2], fields[2:])):
        raise GuestError(EINVAL)
    interval, value = (min(seconds * _SECOND + micro * 1000, _FOR_EVER) for seconds, micro in (fields[:2], fields[2:]))
    timer = timers_of(task.process).interval_timer(which)
    before = _itimerval(timer)
    timer.set(timer.now() + value if value else None, interval if value else 0)
    if old:
        task.mem.write(old, before)
    return 0


# --------------------------------------------------------------------------------------------------------------- POSIX


@syscall
def timer_create(task: "Task", clock: Int, event: Pointer, number: Pointer) -> int:
    """timer_create(2).

    The clocks of single threads count the whole process's time.
    """
    if clock not in _TIMER_CLOCKS:
        raise GuestError(EINVAL)
    value: int | None = None
    signo, notify, thread = SIGALRM, SIGEV_SIGNAL, None
    if event:
        value, signo, notify, tid = _SIGEVENT.unpack(task.mem.read(event, _SIGEVENT.size))
        if notify not in (SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_THREAD_ID):
            raise GuestError(EINVAL)
        if notify != SIGEV_NONE and not 1 <= signo <= NSIG:
            raise GuestError(EINVAL)
        if notify == SIGEV_THREAD_ID:
            thread = task.process.threads.get(tid)
            if thread is None:
                raise GuestError(EINVAL)
    made = timers_of(task.process).create(clock, notify, signo, value, thread, by_cpu=clock in _CPU_CLOCKS)
    try:
        task.mem.write_u32(number, made)
    except GuestError:
        timers_of(task.process).delete(made)
        raise
    return 0


def _timer(task: "Task", number: int) -> PosixTimer:
    timers = task.process.timers
    found = timers.posix.get(number) if timers is not None else None
    if found is None:
        raise GuestError(EINVAL)
    return found


def _itimerspec(timer: "IntervalTimer") -> bytes:
    return struct.pack("<4q", *divmod(timer.interval, _SECOND), *divmod(timer.left(), _SECOND))


def read_itimerspec(task: "Task", address: int) -> tuple[int, int]:
    """Interval and value of a ``struct itimerspec``, in nanoseconds; EINVAL."""
    fields = struct.unpack("<4q", task.mem.read(address, 32))
    if any(seconds < 0 or not 0 <= rest < _SECOND for seconds, rest in (fields[:2], fields[2:])):
        raise GuestError(EINVAL)
    interval, value = (min(seconds * _SECOND + rest, _FOR_EVER) for seconds, rest in (fields[:2], fields[2:]))
    return interval, value


@syscall
def timer_settime(task: "Task", number: Int, flags: Int, new: Pointer, old: Pointer) -> int:
    """timer_settime(2)."""
    if not new:
        raise GuestError(EINVAL)
    interval, value = read_itimerspec(task, new)
    posix = _timer(task, number)
    timer = posix.timer
    before = _itimerspec(timer)
    when = None
    if value:
        when = timer.now() + value
        if flags & TIMER_ABSTIME:
            clock = task.kernel.clock
            is_real = posix.clock in (CLOCK_REALTIME, CLOCK_TAI)
            when = clock.monotonic_ns() + value - clock.realtime_ns() if is_real else value
    posix.overrun = 0
    timer.set(when, interval if value else 0)
    if old:
        task.mem.write(old, before)
    return 0


@syscall
def timer_gettime(task: "Task", number: Int, value: Pointer) -> int:
    """timer_gettime(2)."""
    task.mem.write(value, _itimerspec(_timer(task, number).timer))
    return 0


@syscall
def timer_getoverrun(task: "Task", number: Int) -> int:
    """timer_getoverrun(2)."""
    return min(_timer(task, number).overrun, 0x7FFF_FFFF)


@syscall
def timer_delete(task: "Task", number: Int) -> int:
    """timer_delete(2)."""
    _timer(task, number)
    timers_of(task.process).delete(number)
    return 0
