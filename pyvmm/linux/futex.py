"""Futexes: sleeping until a word in memory is said to have changed (futex(2), ``kernel/futex``).

A waiter is found by the word that it waits for: by address space and address if it is private, by the page frame that
it lies in or the file's page if it may be shared with another process.
"""

from collections import deque
from errno import EAGAIN, EFAULT, EINVAL, ETIMEDOUT
from typing import TYPE_CHECKING

from pyvmm.linux.errors import GuestError
from pyvmm.linux.layout import TASK_SIZE
from pyvmm.linux.wait import NO_RESTART, RESTART

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

FUTEX_WAITERS, FUTEX_OWNER_DIED, FUTEX_TID_MASK = 0x8000_0000, 0x4000_0000, 0x3FFF_FFFF
FUTEX_BITSET_ANY = 0xFFFF_FFFF

#: What a word is found by.
Key = tuple[int, int, int]


class Waiter:
    """A thread that waits for a word. It stays in its queue until it is woken or gives up itself."""

    __slots__ = ("bitset", "key", "task", "woken")

    def __init__(self, task: "Task", key: Key, bitset: int) -> None:
        self.task = task
        self.key = key
        self.bitset = bitset
        self.woken = False


class FutexTable:
    """All waiters of a sandbox."""

    def __init__(self) -> None:
        self._queues: dict[Key, deque[Waiter]] = {}

    def add(self, waiter: Waiter) -> None:
        """Wait at the end of the queue."""
        self._queues.setdefault(waiter.key, deque()).append(waiter)

    def remove(self, waiter: Waiter) -> None:
        """Wait no more."""
        queue = self._queues.get(waiter.key)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            if not queue:
                del self._queues[waiter.key]

    def wake(self, key: Key, count: int, bitset: int) -> int:
        """Wake up to ``count`` waiters, the first first, whose bitset has one of these bits; how many."""
        queue = self._queues.get(key)
        woken = 0
        if queue is None or count <= 0:
            return 0
        for waiter in list(queue):
            if waiter.bitset & bitset:
                queue.remove(waiter)
                waiter.woken = True
                waiter.task.notify()
                woken += 1
                if woken == count:
                    break
        if not queue:
            del self._queues[key]
        return woken

    def requeue(self, key: Key, target: Key, count: int) -> int:
        """Let up to ``count`` waiters wait for another word from now on; how many."""
        queue = self._queues.get(key)
        moved = 0
        while queue and moved < count:
            waiter = queue.popleft()
            waiter.key = target
            self.add(waiter)
            moved += 1
        if queue is not None and not queue and self._queues.get(key) is queue:
            del self._queues[key]
        return moved


def futex_key(task: "Task", address: int, *, private: bool) -> Key:
    """What the word at ``address`` is found by.

    :raises GuestError: EINVAL, it is not aligned; EFAULT, nothing is mapped there.
    """
    if address & 3:
        raise GuestError(EINVAL)
    if address >= TASK_SIZE:
        raise GuestError(EFAULT)
    if not private:
        vma = task.mm.find(address)
        if vma is None:
            raise GuestError(EFAULT)
        if vma.is_shared:
            return 1, vma.ino, vma.offset + address - vma.start
    return 0, id(task.mm), address


def futex_wait(task: "Task", address: int, value: int, until: int | None, bitset: int, *, private: bool) -> int:
    """FUTEX_WAIT: sleep while the word is ``value``, until the guest's CLOCK_MONOTONIC reaches ``until``."""
    table = task.kernel.futexes
    waiter: Waiter | None = task.scratch
    if waiter is None:
        key = futex_key(task, address, private=private)
        if task.mem.read_u32(address) != value:
            raise GuestError(EAGAIN)
        waiter = task.scratch = Waiter(task, key, bitset)
        table.add(waiter)
    if waiter.woken:
        return 0
    if until is not None and task.kernel.clock.monotonic_ns() >= until:
        table.remove(waiter)
        raise GuestError(ETIMEDOUT)
    try:
        # With a time-out Linux goes on waiting for the rest of it, but not after a handler (ERESTART_RESTARTBLOCK).
        task.wait(until=until, restart=RESTART if until is None else NO_RESTART)
    except GuestError:
        table.remove(waiter)
        task.scratch = None
        raise


def futex_wake(task: "Task", address: int, count: int, bitset: int, *, private: bool) -> int:
    """FUTEX_WAKE; how many were woken."""
    return task.kernel.futexes.wake(futex_key(task, address, private=private), count, bitset)
