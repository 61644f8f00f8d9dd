"""Clocks and sleeping."""

import struct
from errno import EINVAL, ENOTSUP, EPERM
from typing import TYPE_CHECKING

from pyvmm.linux.errors import GuestError
from pyvmm.linux.table import Flags, Int, Pointer, syscall
from pyvmm.linux.vdso import CALIBRATE_OFFSET
from pyvmm.linux.wait import NO_RESTART

if TYPE_CHECKING:
    from pyvmm.linux.clock import Clock
    from pyvmm.linux.task import Task

CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID = 0, 1, 2, 3
CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME = 4, 5, 6, 7
CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM, CLOCK_TAI = 8, 9, 11

_REAL = frozenset({CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_REALTIME_ALARM, CLOCK_TAI})
_MONOTONIC = frozenset(
    {CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM}
)
_CPU = frozenset({CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID})
_COARSE = frozenset({CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE})
TIMER_ABSTIME = 1

_SECOND = 1_000_000_000
#: The longest wait that is told apart from for ever: more nanoseconds do not fit a signed 64-bit count.
_FOR_EVER = 1 << 62


def read_timespec(task: "Task", address: int) -> int:
    """A ``struct timespec`` that says how long, in nanoseconds; EINVAL as the kernel's ``timespec64_valid`` has it."""
    seconds, nanoseconds = struct.unpack("<qq", task.mem.read(address, 16))
    if seconds < 0 or not 0 <= nanoseconds < _SECOND:
        raise GuestError(EINVAL)
    return int(min(seconds * _SECOND + nanoseconds, _FOR_EVER))


def _now(task: "Task", clock: int) -> int:
    kernel_clock: Clock = task.kernel.clock
    if clock in _REAL:
        return kernel_clock.realtime_ns()
    if clock in _MONOTONIC:
        return kernel_clock.monotonic_ns()
    if clock == CLOCK_PROCESS_CPUTIME_ID:
        return task.kernel.process_cpu_ns(task.process)
    if clock == CLOCK_THREAD_CPUTIME_ID:
        return task.kernel.task_cpu_ns(task)
    return _cpu_clock(task, clock)


def _cpu_clock(task: "Task", clock: int) -> int:
    """The processor time that a negative id means (clock_getcpuclockid(3)): of a process, or (bit 2) of a thread."""
    number = ~(clock >> 3)
    if clock >= 0 or clock & 3 == 3 or number < 0:
        raise GuestError(EINVAL)
    kernel = task.kernel
    if clock & 4:
        thread = kernel.tasks.get(number) if number else task
        if thread is None or thread.process is not task.process:
            raise GuestError(EINVAL)
        return kernel.task_cpu_ns(thread)
    process = kernel.processes.get(number) if number else task.process
    if process is None:
        raise GuestError(EINVAL)
    return kernel.process_cpu_ns(process)


@syscall
def clock_gettime(task: "Task", clock: Int, time: Pointer) -> int:
    """clock_gettime(2)."""
    mm = task.mm
    if mm.vvar and task.cpu.rip == mm.vdso + CALIBRATE_OFFSET:
        task.kernel.clock.calibrate(task.kernel.memory.view, mm.vvar, task.kernel.tsc_at_call())
    task.mem.write(time, struct.pack("<qq", *divmod(_now(task, clock), _SECOND)))
    return 0


@syscall
def clock_getres(task: "Task", clock: Int, resolution: Pointer) -> int:
    """clock_getres(2)."""
    _now(task, clock)
    if resolution:
        task.mem.write(resolution, struct.pack("<qq", 0, 4_000_000 if clock in _COARSE else 1))
    return 0


@syscall
def clock_settime(task: "Task", clock: Int, time: Pointer) -> int:
    """clock_settime(2): nobody in a sandbox may."""
    read_timespec(task, time)
    raise GuestError(EPERM if clock in _REAL else EINVAL)


@syscall
def gettimeofday(task: "Task", time: Pointer, zone: Pointer) -> int:
    """gettimeofday(2)."""
    if time:
        seconds, nanoseconds = divmod(task.kernel.clock.realtime_ns(), _SECOND)
        task.mem.write(time, struct.pack("<qq", seconds, nanoseconds // 1000))
    if zone:
        task.mem.write(zone, bytes(8))
    return 0


@syscall
def settimeofday(task: "Task", time: Pointer, zone: Pointer) -> int:
    """settimeofday(2)."""
    raise GuestError(EPERM)


@syscall
def time(task: "Task", result: Pointer) -> int:
    """time(2)."""
    seconds = task.kernel.clock.realtime_ns() // _SECOND
    if result:
        task.mem.write_u64(result, seconds)
    return seconds


@syscall
def times(task: "Task", buffer: Pointer) -> int:
    """times(2)."""
    if buffer:
        tick = _SECOND // 100
        user = task.kernel.process_cpu_ns(task.process) // tick
        task.mem.write(buffer, struct.pack("<4q", user, 0, task.process.children_cpu_ns // tick, 0))
    return task.kernel.clock.monotonic_ns() // (_SECOND // 100)


@syscall
def nanosleep(task: "Task", duration: Pointer, remaining: Pointer) -> int:
    """nanosleep(2)."""
    return _sleep(task, task.deadline_after(read_timespec(task, duration)), remaining)


@syscall
def clock_nanosleep(task: "Task", clock: Int, flags: Flags, duration: Pointer, remaining: Pointer) -> int:
    """clock_nanosleep(2).

    A processor-time clock cannot be slept on.
    """
    if clock == CLOCK_THREAD_CPUTIME_ID:
        raise GuestError(EINVAL)
    now = _now(task, clock)
    if clock in _CPU or clock < 0 or clock in _COARSE or clock == CLOCK_MONOTONIC_RAW:
        raise GuestError(ENOTSUP)
    length = read_timespec(task, duration)
    if flags & TIMER_ABSTIME:
        return _sleep(task, task.kernel.clock.monotonic_ns() + length - now, 0)
    return _sleep(task, task.deadline_after(length), remaining)


def _sleep(task: "Task", until: int, remaining: int) -> int:
    left = until - task.kernel.clock.monotonic_ns()
    if left <= 0:
        return 0
    try:
        task.wait(until=until, restart=NO_RESTART)
    except GuestError:
        if remaining:
            task.mem.write(remaining, struct.pack("<qq", *divmod(left, _SECOND)))
        raise


@syscall
def adjtimex(task: "Task", buffer: Pointer) -> int:
    """adjtimex(2).

    The clock cannot be adjusted nor its discipline read.
    """
    raise GuestError(EPERM)
