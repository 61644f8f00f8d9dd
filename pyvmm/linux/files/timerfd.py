"""timerfd_create(2): a timer that is read (``fs/timerfd.c``)."""

import struct
from errno import EAGAIN, EINVAL
from typing import TYPE_CHECKING, Any

from pyvmm.linux.abi.fcntl import O_NONBLOCK, O_RDWR
from pyvmm.linux.abi.poll import POLLIN
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.wait import WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.kernel import Kernel
    from pyvmm.linux.task import Task
    from pyvmm.linux.timerqueue import Event
    from pyvmm.linux.vfs.inode import Inode

_U64 = struct.Struct("<Q")


class TimerFile(OpenFile):
    """A timer. One that has rung waits to be read before it counts on: it never rings for nobody.

    :param is_real: its clock is CLOCK_REALTIME; else one that counts as CLOCK_MONOTONIC does.
    """

    __slots__ = ("_event", "_has_rung", "_kernel", "changed", "interval", "is_real", "ticks", "when")

    kind = "timerfd"

    def __init__(self, inode: "Inode", flags: int, kernel: "Kernel", is_real: bool) -> None:
        super().__init__(inode, O_RDWR | flags & O_NONBLOCK)
        self._kernel = kernel
        self.is_real = is_real
        #: When it rings or has rung (the guest's CLOCK_MONOTONIC, ns); None: it was never set, or is set to nothing.
        self.when: int | None = None
        self.interval = 0
        #: How often it has rung since it was read.
        self.ticks = 0
        self._has_rung = False
        self._event: Event | None = None
        self.changed = WaitQueue()

    # -------------------------------------------------------------------------------------------------- the timer

    def set(self, when: int | None, interval: int) -> None:
        """Ring at ``when``, and then every ``interval`` nanoseconds (0: only once)."""
        self.interval, self.ticks = interval, 0
        self._start(when)

    def _start(self, when: int | None) -> None:
        if self._event is not None:
            self._event.cancel()
            self._event = None
        self.when, self._has_rung = when, False
        if when is not None:
            scheduler = self._kernel.scheduler
            self._event = scheduler.timers.add(when, self._ring)
            scheduler.attention = True

    def _ring(self) -> None:
        self._event = None
        self._has_rung = True
        self.ticks += 1
        self.changed.wake(POLLIN)

    def _look(self) -> None:
        """Ring if it is time, though the scheduler has not found time for it yet."""
        if self._event is not None and self.when is not None and self._kernel.clock.monotonic_ns() >= self.when:
            self._event.cancel()
            self._ring()

    def go_on(self) -> int:
        """If it has rung and is to ring again, set it to the next time that is to come; how many have passed besides
        the one that it has rung for (``hrtimer_forward_now()``).
        """
        self._look()
        if not self._has_rung or not self.interval or self.when is None:
            return 0
        passed = (self._kernel.clock.monotonic_ns() - self.when) // self.interval
        self._start(self.when + (passed + 1) * self.interval)
        return passed

    def left(self) -> int:
        """Nanoseconds until it rings; 0 if it does not."""
        return max(self.when - self._kernel.clock.monotonic_ns(), 0) if self.when is not None else 0

    # ----------------------------------------------------------------------------------------------------- the file

    def read(self, task: "Task", count: int) -> bytes:
        """``timerfd_read_iter``: how often it has rung."""
        if count < 8:
            raise GuestError(EINVAL)
        self._look()
        if not self.ticks:
            if self.flags & O_NONBLOCK:
                raise GuestError(EAGAIN)
            task.wait(self.changed)
        ticks = self.ticks + self.go_on()
        self.ticks, self._has_rung = 0, False
        return _U64.pack(ticks)

    def poll(self, task: "Task") -> int:
        """``timerfd_poll``."""
        self._look()
        return POLLIN if self.ticks else 0

    def queues(self) -> tuple[WaitQueue, ...]:
        """See :meth:`OpenFile.queues`."""
        return (self.changed,)

    def seek(self, offset: int, whence: int) -> int:
        """``noop_llseek``."""
        return self.position

    def closed(self) -> None:
        """See :meth:`OpenFile.closed`."""
        self._start(None)

    def save(self) -> dict[str, Any]:
        """See :meth:`OpenFile.save`. CLOCK_MONOTONIC goes on in a fork; what was set by the other clock is told by
        that one.
        """
        clock, when = self._kernel.clock, self.when
        if when is not None and self.is_real:
            when += clock.realtime_ns() - clock.monotonic_ns()
        return super().save() | {
            "is_real": self.is_real,
            "when": when,
            "interval": self.interval,
            "ticks": self.ticks,
            "has_rung": self._has_rung,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """As :meth:`save` told."""
        clock, when = self._kernel.clock, state["when"]
        if when is not None and self.is_real:
            when -= clock.realtime_ns() - clock.monotonic_ns()
        self.interval = state["interval"]
        if not state["has_rung"]:
            self._start(when)
        self.when, self.ticks, self._has_rung = when, state["ticks"], state["has_rung"]
