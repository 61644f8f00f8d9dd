"""Advisory locks: of byte ranges (fcntl(2)) and of whole files (flock(2)); ``fs/locks.c``.

A POSIX lock belongs to a process, by its table of descriptors, and goes when the process closes any descriptor of the
file. An open-file-description lock belongs to the open file, and so does one of flock(2), which knows nothing of the
others.
"""

from errno import EAGAIN, EDEADLK, ENOLCK
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pyvmm.linux.abi.fcntl import F_UNLCK, F_WRLCK
from pyvmm.linux.errors import GuestError
from pyvmm.linux.wait import State, WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.files.table import FdTable
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode
    from pyvmm.linux.vfs.quota import Quota

#: Whose a lock is.
Owner: TypeAlias = "FdTable | OpenFile"
#: The last byte that a lock can be of.
OFFSET_MAX = (1 << 63) - 1
#: Locks on one file, and what each costs of the sandbox's memory: ENOLCK beyond.
_LOCKS_MAX = 8192
_LOCK_COST = 512
#: ``MAX_DEADLK_ITERATIONS``.
_DEADLOCK_STEPS = 10


class Lock(NamedTuple):
    """A lock of the bytes ``start`` to ``last``."""

    owner: Owner
    kind: int
    start: int
    last: int
    #: Of the process that has it; -1 for one that belongs to an open file.
    pid: int

    def overlaps(self, other: "Lock") -> bool:
        """Whether there is a byte that both are of."""
        return self.start <= other.last and other.start <= self.last

    def conflicts(self, other: "Lock") -> bool:
        """Whether both cannot be there (``posix_locks_conflict()``)."""
        return self.owner is not other.owner and self.overlaps(other) and F_WRLCK in (self.kind, other.kind)


#: Who waits for which lock to go, and for whom.
Waits = dict["Task", tuple[Owner, Lock]]


class FileLocks:
    """All locks of one file."""

    __slots__ = ("_quota", "changed", "ranges", "wholes")

    def __init__(self, quota: "Quota") -> None:
        self._quota = quota
        self.ranges: list[Lock] = []
        #: Of flock(2): F_RDLCK or F_WRLCK by open file.
        self.wholes: dict[OpenFile, int] = {}
        #: Woken when a lock goes.
        self.changed = WaitQueue()

    def release(self, owner: Owner) -> None:
        """All locks of ``owner`` go."""
        kept = [lock for lock in self.ranges if lock.owner is not owner]
        gone = len(self.ranges) - len(kept)
        self.ranges = kept
        if owner in self.wholes:
            del self.wholes[owner]
            gone += 1
        if gone:
            self._quota.take(-gone * _LOCK_COST)
            self.changed.wake()

    # ---------------------------------------------------------------------------------------------------- byte ranges

    def conflict(self, wanted: Lock) -> Lock | None:
        """The first lock that is in the way of ``wanted``."""
        return next((lock for lock in self.ranges if lock.conflicts(wanted)), None)

    def change(self, wanted: Lock) -> None:
        """Give ``wanted`` to its owner, instead of what it had there (``posix_lock_inode()``); ENOLCK."""
        kept, freed = [], wanted.kind == F_UNLCK
        start, last = wanted.start, wanted.last
        for lock in self.ranges:
            if lock.owner is not wanted.owner:
                kept.append(lock)
            elif lock.kind == wanted.kind and lock.start <= last + 1 and start <= lock.last + 1:
                start, last = min(start, lock.start), max(last, lock.last)
            elif not lock.overlaps(wanted):
                kept.append(lock)
            else:
                freed |= lock.kind == F_WRLCK
                if lock.start < wanted.start:
                    kept.append(lock._replace(last=wanted.start - 1))
                if lock.last > wanted.last:
                    kept.append(lock._replace(start=wanted.last + 1))
        if wanted.kind != F_UNLCK:
            kept.append(wanted._replace(start=start, last=last))
        self._charge(len(kept) - len(self.ranges))
        kept.sort(key=lambda lock: lock.start)
        self.ranges = kept
        if freed:
            self.changed.wake()

    def _charge(self, more: int) -> None:
        if more > 0 and len(self.ranges) + len(self.wholes) + more > _LOCKS_MAX:
            raise GuestError(ENOLCK)
        try:
            self._quota.take(more * _LOCK_COST)
        except GuestError:
            raise GuestError(ENOLCK) from None

    # ---------------------------------------------------------------------------------------------------- whole files

    def change_whole(self, file: "OpenFile", kind: int) -> bool:
        """flock(2): let ``file`` have a lock of ``kind`` instead of what it has; False if another is in the way. What
        it had is gone also then.
        """
        if self.wholes.get(file, F_UNLCK) == kind:
            return True
        if self.wholes.pop(file, None) is not None:
            self._quota.take(-_LOCK_COST)
            self.changed.wake()
        if kind == F_UNLCK:
            return True
        if any(F_WRLCK in (kind, other) for other in self.wholes.values()):
            return False
        self._charge(1)
        self.wholes[file] = kind
        return True


def locks_of(inode: "Inode", quota: "Quota") -> FileLocks:
    """The locks of a file, made at their first use."""
    if inode.locks is None:
        inode.locks = FileLocks(quota)
    return inode.locks


def lock_range(task: "Task", locks: FileLocks, wanted: Lock, *, wait: bool) -> None:
    """Give ``wanted`` to its owner, as soon as nothing is in the way: EAGAIN, EDEADLK, ENOLCK."""
    waits = task.kernel.vfs.lock_waits
    waits.pop(task, None)
    blocker = locks.conflict(wanted) if wanted.kind != F_UNLCK else None
    if blocker is None:
        locks.change(wanted)
        return
    if not wait:
        raise GuestError(EAGAIN)
    if wanted.pid > 0 and _would_deadlock(waits, wanted.owner, blocker):
        raise GuestError(EDEADLK)
    for other in [other for other in waits if other.state is State.DEAD]:
        del waits[other]
    try:
        waits[task] = (wanted.owner, blocker)
        task.wait(locks.changed)
    except GuestError:
        del waits[task]
        raise


def _would_deadlock(waits: Waits, owner: Owner, blocker: Lock) -> bool:
    """Whether the owner of ``blocker`` waits, if only by way of others, for ``owner`` (``posix_locks_deadlock()``)."""
    for _ in range(_DEADLOCK_STEPS):
        following = None
        for task, (waiting, its_blocker) in waits.items():
            if waiting is blocker.owner and task.state is State.BLOCKED:
                following = its_blocker
                break
        if following is None:
            return False
        if following.owner is owner:
            return True
        blocker = following
    return False
