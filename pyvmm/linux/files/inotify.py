"""inotify(7): what happens to files and directories, as a file that is read (``fs/notify/inotify``)."""

from collections import deque
from errno import EAGAIN, EEXIST, EINVAL, ENOTTY
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import O_NONBLOCK, O_RDONLY
from pyvmm.linux.abi.inotify import (
    IN_ALL_EVENTS,
    IN_EXCL_UNLINK,
    IN_IGNORED,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_ONESHOT,
    IN_Q_OVERFLOW,
    INOTIFY_EVENT,
)
from pyvmm.linux.abi.ioctls import FIONREAD
from pyvmm.linux.abi.poll import POLLIN, POLLRDNORM
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.vfs.watches import Watch
from pyvmm.linux.wait import WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode
    from pyvmm.linux.vfs.store import InodeStore

#: ``max_queued_events``; and what events and watches cost of the sandbox's memory.
_EVENTS_MAX = 16384
_EVENT_COST = 256
_WATCH_COST = 1024


class InotifyFile(OpenFile):
    """A set of watches and the events that nobody has read yet."""

    __slots__ = ("_events", "_next", "_store", "_watches", "changed")

    def __init__(self, inode: "Inode", flags: int, store: "InodeStore") -> None:
        super().__init__(inode, O_RDONLY | flags & O_NONBLOCK)
        self._store = store
        self._watches: dict[int, Watch] = {}
        self._next = 1
        self._events: deque[bytes] = deque()
        self.changed = WaitQueue()

    # ---------------------------------------------------------------------------------------------------- watches

    def add(self, inode: "Inode", mask: int) -> int:
        """Watch ``inode``, or change what is wanted of it; the watch's number: EEXIST, ENOSPC."""
        kept = mask & (IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT)
        watch = inode.watches.get(self) if inode.watches else None
        if watch is not None:
            if mask & IN_MASK_CREATE:
                raise GuestError(EEXIST)
            watch.mask = watch.mask | kept if mask & IN_MASK_ADD else kept
            return watch.number
        self._store.quota.take(_WATCH_COST)
        watch = Watch(self, self._next, inode, kept)
        self._next += 1
        self._watches[watch.number] = watch
        if inode.watches is None:
            inode.watches = {}
        inode.watches[self] = watch
        self._store.watched += 1
        return watch.number

    def remove(self, number: int) -> None:
        """inotify_rm_watch(2): EINVAL."""
        watch = self._watches.get(number)
        if watch is None:
            raise GuestError(EINVAL)
        self.forget(watch)

    def forget(self, watch: Watch) -> None:
        """The watch is over."""
        self._drop(watch)
        self._put(watch.number, IN_IGNORED, b"", 0)

    def _drop(self, watch: Watch) -> None:
        if self._watches.pop(watch.number, None) is None:
            return
        if watch.inode.watches is not None:
            watch.inode.watches.pop(self, None)
        self._store.watched -= 1
        self._store.quota.take(-_WATCH_COST)

    def closed(self) -> None:
        """See :meth:`OpenFile.closed`."""
        for watch in list(self._watches.values()):
            self._drop(watch)
        self._store.quota.take(-_EVENT_COST * len(self._events))
        self._events.clear()

    # ----------------------------------------------------------------------------------------------------- events

    def happened(self, watch: Watch, mask: int, name: bytes, cookie: int) -> None:
        """See :class:`.Owner`."""
        self._put(watch.number, mask, name, cookie)

    def _put(self, number: int, mask: int, name: bytes, cookie: int) -> None:
        """Queue an event, unless it says what the last one says."""
        padded = name.ljust(len(name) + INOTIFY_EVENT.size & -INOTIFY_EVENT.size, b"\0") if name else b""
        event = INOTIFY_EVENT.pack(number, mask, cookie, len(padded)) + padded
        events = self._events
        if events and events[-1] == event:
            return
        overflow = INOTIFY_EVENT.pack(-1, IN_Q_OVERFLOW, 0, 0)
        if len(events) >= _EVENTS_MAX or self._store.quota.bytes_free < 2 * _EVENT_COST:
            if events and events[-1] == overflow:
                return
            event = overflow
        try:
            self._store.quota.take(_EVENT_COST)
        except GuestError:
            return
        events.append(event)
        self.changed.wake(POLLIN | POLLRDNORM)

    def read(self, task: "Task", count: int) -> bytes:
        """``inotify_read``: as many events as fit; EINVAL if the first does not."""
        events = self._events
        if not events:
            if self.flags & O_NONBLOCK:
                raise GuestError(EAGAIN)
            task.wait(self.changed)
        if len(events[0]) > count:
            raise GuestError(EINVAL)
        found: list[bytes] = []
        while events and len(events[0]) <= count:
            found.append(events.popleft())
            count -= len(found[-1])
        self._store.quota.take(-_EVENT_COST * len(found))
        return b"".join(found)

    def poll(self, task: "Task") -> int:
        """``inotify_poll``."""
        return POLLIN | POLLRDNORM if self._events else 0

    def queues(self) -> tuple[WaitQueue, ...]:
        """See :meth:`OpenFile.queues`."""
        return (self.changed,)

    def ioctl(self, task: "Task", request: int, argument: int) -> int:
        """``inotify_ioctl``."""
        if request != FIONREAD:
            raise GuestError(ENOTTY)
        task.mem.write_u32(argument, sum(map(len, self._events)))
        return 0

    def seek(self, offset: int, whence: int) -> int:
        """``noop_llseek``."""
        return self.position
