"""Timers of a process: interval timers (setitimer(2), alarm(2)) and POSIX timers (timer_create(2)).

Those that count real time are events of the scheduler's. Those that count processor time are looked at whenever the
running program is interrupted, which is arranged to happen when the first of them is due.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from errno import EAGAIN, EINVAL
from typing import TYPE_CHECKING

from pyvmm.linux.abi.signal import SI_KERNEL, SI_TIMER, SIGALRM, SIGPROF, SIGVTALRM
from pyvmm.linux.errors import GuestError
from pyvmm.linux.signalling import send_to_process, send_to_thread
from pyvmm.linux.signals import SignalInfo
from pyvmm.linux.wait import State

if TYPE_CHECKING:
    from pyvmm.linux.process import Process
    from pyvmm.linux.task import Task
    from pyvmm.linux.timerqueue import Event

ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF = range(3)
SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD, SIGEV_THREAD_ID = 0, 1, 2, 4

_ITIMER_SIGNALS = (SIGALRM, SIGVTALRM, SIGPROF)
#: A timer whose interval is shorter would do nothing but ring.
_MIN_INTERVAL_NS = 1_000


class IntervalTimer:
    """Rings once or again and again, by real time or by the processor time of a process.

    :param ring: is called with how often it has rung since the last time.
    """

    def __init__(self, process: "Process", ring: Callable[[int], None], *, by_cpu: bool) -> None:
        self._process = process
        self._ring = ring
        self.by_cpu = by_cpu
        self.interval = 0
        #: When it rings next, by its own clock in nanoseconds; None: not at all.
        self.when: int | None = None
        self._event: Event | None = None

    def now(self) -> int:
        """Its clock."""
        kernel = self._process.kernel
        return kernel.process_cpu_ns(self._process) if self.by_cpu else kernel.clock.monotonic_ns()

    def left(self) -> int:
        """Nanoseconds until it rings (at least one), 0 if it does not."""
        return max(self.when - self.now(), 1) if self.when is not None else 0

    def set(self, when: int | None, interval: int) -> None:
        """Ring at ``when`` and then every ``interval`` (0: only once)."""
        if self._event is not None:
            self._event.cancel()
            self._event = None
        self.when = when
        self.interval = max(interval, _MIN_INTERVAL_NS) if interval else 0
        scheduler = self._process.kernel.scheduler
        scheduler.attention = True
        if when is not None and not self.by_cpu:
            self._event = scheduler.timers.add(when, self.expire)

    def expire(self) -> None:
        """Ring if it is time."""
        now = self.now()
        if self.when is None or now < self.when:
            return
        rung, when = 1, None
        if self.interval:
            rung = (now - self.when) // self.interval + 1
            when = self.when + rung * self.interval
        self.set(when, self.interval)
        self._ring(rung)


@dataclass(slots=True)
class PosixTimer:
    """What timer_create(2) makes."""

    timer: IntervalTimer
    #: Offset of its clock to the one of ``timer``, for absolute times.
    clock: int
    notify: int
    signo: int
    value: int
    thread: "Task | None"
    #: How often it rang while its last signal was pending.
    overrun: int = 0


@dataclass(eq=False)
class ProcessTimers:
    """All timers of one process."""

    process: "Process"
    intervals: dict[int, IntervalTimer] = field(default_factory=dict)
    posix: dict[int, PosixTimer] = field(default_factory=dict)
    _next: int = 0

    def interval_timer(self, which: int) -> IntervalTimer:
        """ITIMER_*; EINVAL."""
        if not ITIMER_REAL <= which <= ITIMER_PROF:
            raise GuestError(EINVAL)
        found = self.intervals.get(which)
        if found is None:
            signo = _ITIMER_SIGNALS[which]

            def ring(count: int) -> None:
                send_to_process(self.process, SignalInfo(signo, SI_KERNEL))

            found = self.intervals[which] = IntervalTimer(self.process, ring, by_cpu=which != ITIMER_REAL)
        return found

    def create(
        self, clock: int, notify: int, signo: int, value: int | None, thread: "Task | None", *, by_cpu: bool
    ) -> int:
        """A new POSIX timer; its number."""
        if not self.process.signals.budget.take():
            raise GuestError(EAGAIN)
        number = self._next
        self._next += 1
        made = PosixTimer(
            IntervalTimer(self.process, lambda count: self._ring(number, count), by_cpu=by_cpu),
            clock,
            notify,
            signo,
            number if value is None else value,
            thread,
        )
        self.posix[number] = made
        return number

    def _ring(self, number: int, count: int) -> None:
        posix = self.posix.get(number)
        if posix is None or posix.notify == SIGEV_NONE:
            return
        thread = posix.thread
        bit = 1 << posix.signo - 1
        pending = self.process.signals.pending if thread is None else thread.signals.pending
        if pending.mask & bit:
            posix.overrun += count
            return
        posix.overrun = count - 1
        info = SignalInfo(posix.signo, SI_TIMER, pid=number, uid=posix.overrun, value=posix.value)
        if thread is None:
            send_to_process(self.process, info)
        elif thread.state is not State.DEAD:
            send_to_thread(thread, info)

    def cpu_timers(self) -> list[IntervalTimer]:
        """Those that count processor time and are set."""
        every = [*self.intervals.values(), *(posix.timer for posix in self.posix.values())]
        return [timer for timer in every if timer.by_cpu and timer.when is not None]

    def delete(self, number: int) -> None:
        """A POSIX timer is gone."""
        self.posix.pop(number).timer.set(None, 0)
        self.process.signals.budget.left += 1

    def forget_posix(self) -> None:
        """execve(2): POSIX timers are gone, interval timers go on."""
        for number in list(self.posix):
            self.delete(number)

    def close(self) -> None:
        """The process has ended."""
        self.forget_posix()
        for timer in self.intervals.values():
            timer.set(None, 0)


def timers_of(process: "Process") -> ProcessTimers:
    """The timers of a process, made at their first use."""
    if process.timers is None:
        process.timers = ProcessTimers(process)
    return process.timers
