"""Waiting: what a system call does that cannot go on yet.

A call that would block looks first, and if there is nothing for it calls :meth:`.Task.wait`, naming the queues of the
objects that it waits for. That raises :class:`Blocked`: the call is abandoned, the thread sleeps, and when one of the
queues is woken, the time has come or a signal is there, the very same call is made again from its beginning, with the
arguments that it had. So a thread that sleeps is plain data (its registers, and what the call noted in
:attr:`.Task.scratch`), no Python stack, and can be part of a snapshot.

A call that was made again must not do again what it did before: what has been transferred already is counted in
:attr:`.Task.progress`, and a time-out that counts from the first try is asked for by :meth:`.Task.deadline_after`.
"""

from collections.abc import Iterator
from enum import Enum
from errno import EINTR
from typing import Protocol

from pyvmm.linux.errors import GuestError

#: How a call that a signal interrupts goes on after the signal (``ERESTARTSYS`` and its kin, ``linux/errno.h``): begin
#: again if the handler was installed with SA_RESTART; always EINTR once a handler has run.
RESTART, NO_RESTART = True, False


#: What a wake-up is about when nobody says more: any of POLL*.
ANYTHING = -1


#: What it takes of the monitor's memory that a thread waits in a queue, and in how many it may without being charged.
_PLACE_COST, _FREE_PLACES = 256, 32


def waiting_cost(places: int) -> int:
    """Bytes of the sandbox's quota that a thread takes while it waits in so many queues (``poll_table_page``)."""
    return max(places - _FREE_PLACES, 0) * _PLACE_COST


class State(Enum):
    """What the scheduler knows of a thread."""

    #: On the processor, or waiting for it.
    RUNNABLE = "R"
    #: In a system call that cannot go on yet.
    BLOCKED = "S"
    #: Its process is stopped.
    STOPPED = "T"
    #: It has ended.
    DEAD = "X"


class Waiter(Protocol):
    """Who can wait in a queue: a thread, or something that passes the news on (epoll)."""

    def notify(self, events: int = ANYTHING, /) -> None:
        """What was waited for may have happened; ``events`` says what has (POLL*)."""


class ExclusiveWaiter(Protocol):
    """One of several of which it is enough that one is told (``WQ_FLAG_EXCLUSIVE``)."""

    def claim(self, events: int, /) -> bool:
        """As :meth:`Waiter.notify`; True: it sees to it, and no other exclusive waiter has to be told."""


class WaitQueue:
    """Who wants to know when an object has changed. Its order is the order of arrival, exclusive waiters last."""

    __slots__ = ("_exclusive", "_waiters")

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}
        self._exclusive: dict[ExclusiveWaiter, None] | None = None

    def __len__(self) -> int:
        return len(self._waiters) + len(self._exclusive or ())

    def __iter__(self) -> Iterator[Waiter]:
        """Those that are told in any case."""
        return iter(self._waiters)

    def add(self, waiter: Waiter) -> None:
        """Tell ``waiter`` from now on."""
        self._waiters[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """Do not tell ``waiter`` any more; fine if it was not there."""
        self._waiters.pop(waiter, None)

    def add_exclusive(self, waiter: ExclusiveWaiter) -> None:
        """Tell ``waiter`` from now on, unless another exclusive one sees to it."""
        if self._exclusive is None:
            self._exclusive = {}
        self._exclusive[waiter] = None

    def remove_exclusive(self, waiter: ExclusiveWaiter) -> None:
        """Do not tell ``waiter`` any more."""
        if self._exclusive is not None:
            self._exclusive.pop(waiter, None)

    def wake(self, events: int = ANYTHING) -> None:
        """Tell everybody that the object has changed; of exclusive waiters, as many as it takes.

        :param events: what is new (POLL*): edge-triggered waiters are only told of news that they wait for. Threads
            look again whatever it is.
        """
        if self._waiters:
            for waiter in tuple(self._waiters):
                waiter.notify(events)
        if self._exclusive:
            for exclusive in tuple(self._exclusive):
                if exclusive.claim(events):
                    break


class Blocked(BaseException):
    """A system call cannot go on yet. Not an Exception: what a call does about its errors must not catch it."""

    def __init__(self, queues: tuple[WaitQueue, ...], until: int | None, progress: int = 0) -> None:
        self.queues = queues
        #: CLOCK_MONOTONIC of the guest, in nanoseconds; None: for ever.
        self.until = until
        #: Bytes that the call has transferred since it was made (again).
        self.progress = progress


class Interrupted(GuestError):
    """A signal is to be delivered while a call waits: EINTR, or the call is made again after the handler."""

    __slots__ = ("restart",)

    def __init__(self, restart: bool) -> None:
        super().__init__(EINTR)
        self.restart = restart
