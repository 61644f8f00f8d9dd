"""epoll(7): a set of open files, and which of them have news (``fs/eventpoll.c``).

Every entry waits in the queues of its file for ever. When one of them is woken, the entry goes to the end of the list
of those that may be ready; who asks takes from the front of it what is ready indeed. A level-triggered entry that was
told goes to the end again, so that all have their turn; an edge-triggered one comes back with the next news; a
one-shot one when it is armed again. An entry does not keep its file open, and goes with it.
"""

from collections import OrderedDict
from collections.abc import Callable
from errno import EINVAL, ELOOP
from typing import TYPE_CHECKING, Any

from pyvmm.linux.abi.epoll import (
    EP_MAX_NESTS,
    EP_PRIVATE_BITS,
    EPOLLERR,
    EPOLLET,
    EPOLLEXCLUSIVE,
    EPOLLHUP,
    EPOLLONESHOT,
)
from pyvmm.linux.abi.fcntl import O_RDWR
from pyvmm.linux.abi.poll import POLLIN, POLLOUT, POLLRDNORM
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.wait import ANYTHING, WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode
    from pyvmm.linux.vfs.quota import Quota

#: What an entry costs: it is the monitor's memory, so it counts as a file's contents do (ENOSPC).
_ENTRY_COST = 1024
#: ``path_limits``: how many ways a file may have to sets that lie so deep in one another. A wake-up goes all of them.
_PATH_LIMITS = (0, 500, 100, 50, 10)
#: ``EPOLLINOUT_BITS``.
_DIRECTIONS = POLLIN | POLLOUT

#: An event that was taken: POLL*, the entry, and what that was armed for.
Taken = tuple[int, "Entry", int]
#: What an entry is found by: one descriptor of one file.
Key = tuple[int, OpenFile]


class Entry:
    """One watched file (``struct epitem``)."""

    __slots__ = ("data", "epoll", "events", "fd", "file", "queues")

    def __init__(self, epoll: "EpollFile", fd: int, file: OpenFile, events: int, data: int) -> None:
        self.epoll = epoll
        self.fd = fd
        self.file = file
        self.events = events | EPOLLERR | EPOLLHUP
        self.data = data
        #: Where it waits: where the file is waited for by the process that has added it.
        self.queues = file.queues()

    def notify(self, events: int = ANYTHING, /) -> None:
        """``ep_poll_callback()``: the file may be ready, unless the news is not what the entry is for."""
        if self.events & ~EP_PRIVATE_BITS & events:
            self.epoll.may_be_ready(self)

    def claim(self, events: int, /) -> bool:
        """The same, for an entry with EPOLLEXCLUSIVE: it is enough if somebody waits for this set, and for such news.

        As in Linux, news both to read and to write are for all: there may be one who reads, and one who writes.
        """
        if not self.events & ~EP_PRIVATE_BITS & events:
            return False
        sees_to_it = self.epoll.has_sleepers
        self.epoll.may_be_ready(self)
        direction = events & _DIRECTIONS
        return sees_to_it and (not direction or (direction != _DIRECTIONS and bool(self.events & direction)))

    def enter_queues(self) -> None:
        """Wait from now on."""
        for queue in self.queues:
            if self.events & EPOLLEXCLUSIVE:
                queue.add_exclusive(self)
            else:
                queue.add(self)

    def leave_queues(self) -> None:
        """Wait no longer."""
        for queue in self.queues:
            if self.events & EPOLLEXCLUSIVE:
                queue.remove_exclusive(self)
            else:
                queue.remove(self)

    def forget(self) -> None:
        """The file is closed."""
        self.epoll.remove(self)


class EpollFile(OpenFile):
    """A set of watched files."""

    __slots__ = ("_entries", "_quota", "_ready", "changed")

    kind = "epoll"

    def __init__(self, inode: "Inode", quota: "Quota") -> None:
        super().__init__(inode, O_RDWR)
        self._entries: dict[Key, Entry] = {}
        #: Those that may be ready, in the order in which they are asked.
        self._ready: OrderedDict[Entry, None] = OrderedDict()
        self._quota = quota
        #: Woken when an entry may have become ready.
        self.changed = WaitQueue()

    # ------------------------------------------------------------------------------------------------ the entries

    def find(self, fd: int, file: OpenFile) -> Entry | None:
        """The entry for this descriptor of this file."""
        return self._entries.get((fd, file))

    def add(self, task: "Task", fd: int, file: OpenFile, events: int, data: int) -> None:
        """``ep_insert()``: ELOOP, EINVAL (too many ways), ENOSPC."""
        entry = Entry(self, fd, file, events, data)
        self._quota.take(_ENTRY_COST)
        self._enter(entry)
        try:
            _check_nesting(self, file)
        except GuestError:
            self.remove(entry)
            raise
        if file.poll(task) & entry.events:
            self.may_be_ready(entry)

    def _enter(self, entry: Entry) -> None:
        file = entry.file
        self._entries[entry.fd, file] = entry
        if file.watchers is None:
            file.watchers = {}
        file.watchers[entry] = None
        entry.enter_queues()

    def modify(self, task: "Task", entry: Entry, events: int, data: int) -> None:
        """``ep_modify()``: armed again, and told of what is there already."""
        entry.events, entry.data = events | EPOLLERR | EPOLLHUP, data
        if entry.file.poll(task) & entry.events & ~EP_PRIVATE_BITS:
            self.may_be_ready(entry)

    def remove(self, entry: Entry) -> None:
        """``ep_remove()``."""
        file = entry.file
        if self._entries.pop((entry.fd, file), None) is None:
            return
        self._ready.pop(entry, None)
        entry.leave_queues()
        if file.watchers is not None:
            file.watchers.pop(entry, None)
        self._quota.take(-_ENTRY_COST)

    def closed(self) -> None:
        """See :meth:`OpenFile.closed`."""
        for entry in list(self._entries.values()):
            self.remove(entry)

    # -------------------------------------------------------------------------------------------------- readiness

    @property
    def has_sleepers(self) -> bool:
        """Whether a thread waits for the set, not only sets that it is in."""
        return any(not isinstance(waiter, Entry) for waiter in self.changed)

    def may_be_ready(self, entry: Entry) -> None:
        """Ask the file of ``entry`` the next time."""
        self._ready.setdefault(entry)
        self.changed.wake(POLLIN | POLLRDNORM)

    def take_ready(self, task: "Task", count: int) -> list[Taken]:
        """``ep_send_events()``: up to ``count`` events that hold now."""
        found: list[Taken] = []
        again: list[Entry] = []
        ready = self._ready
        while ready and len(found) < count:
            entry, _ = ready.popitem(last=False)
            events = entry.file.poll(task) & entry.events & ~EP_PRIVATE_BITS
            if not events:
                continue
            found.append((events, entry, entry.events))
            if entry.events & EPOLLONESHOT:
                entry.events &= EP_PRIVATE_BITS
            elif not entry.events & EPOLLET:
                again.append(entry)
        for entry in again:
            ready.setdefault(entry)
        return found

    def put_back(self, events: list[Taken]) -> None:
        """They could not be told: they come first the next time."""
        for _, entry, armed in reversed(events):
            entry.events = armed
            self._ready[entry] = None
            self._ready.move_to_end(entry, last=False)

    def poll(self, task: "Task") -> int:
        """``ep_eventpoll()``: whether an entry is ready."""
        ready = self._ready
        while ready:
            entry = next(iter(ready))
            if entry.file.poll(task) & entry.events & ~EP_PRIVATE_BITS:
                return POLLIN | POLLRDNORM
            del ready[entry]
        return 0

    def queues(self) -> tuple[WaitQueue, ...]:
        """See :meth:`OpenFile.queues`."""
        return (self.changed,)

    def seek(self, offset: int, whence: int) -> int:
        """``noop_llseek``."""
        return self.position

    def watched(self) -> list[OpenFile]:
        """The files of all entries."""
        return [entry.file for entry in self._entries.values()]

    # ----------------------------------------------------------------------------------------------------- state

    def save_entries(self, place_of: Callable[[OpenFile], int]) -> dict[str, Any]:
        """The entries as plain data; ``place_of`` numbers files."""
        rows = []
        order = {entry: index for index, entry in enumerate(self._ready)}
        for entry in self._entries.values():
            rows.append((entry.fd, place_of(entry.file), entry.events, entry.data, order.get(entry, -1)))
        return {"entries": rows}

    def restore_entries(self, state: dict[str, Any], file_at: Callable[[int], OpenFile]) -> None:
        """As :meth:`save_entries` told. (They are counted already.)"""
        ready = []
        for fd, place, events, data, order in state["entries"]:
            entry = Entry(self, fd, file_at(place), events, data)
            self._enter(entry)
            if order >= 0:
                ready.append((order, entry))
        self._ready = OrderedDict((entry, None) for _, entry in sorted(ready, key=lambda pair: pair[0]))


# ----------------------------------------------------------------------------------------------------------- nesting


def _check_nesting(epoll: EpollFile, file: OpenFile) -> None:
    """``epoll`` has just been told to watch ``file``: neither round in a circle, nor too deep, nor by too many ways."""
    if isinstance(file, EpollFile):
        below = _depth_below(file, epoll, 0)
        if below > EP_MAX_NESTS or below + 1 + _depth_above(epoll, 0) > EP_MAX_NESTS:
            raise GuestError(ELOOP)
    elif not epoll.watchers:
        return  # A file may be in any number of sets that are in none.
    counts = [0] * len(_PATH_LIMITS)
    for leaf in _files_below(file):
        _count_ways(leaf, 0, counts)


def _depth_below(file: OpenFile, forbidden: EpollFile, depth: int) -> int:
    """How deep the sets in ``file`` lie (``ep_loop_check_proc()``); too deep if ``forbidden`` is among them."""
    if file is forbidden or depth > EP_MAX_NESTS:
        return EP_MAX_NESTS + 1
    inner = {inner for inner in file.watched() if isinstance(inner, EpollFile)} if isinstance(file, EpollFile) else ()
    return max((1 + _depth_below(each, forbidden, depth + 1) for each in inner), default=0)


def _depth_above(epoll: EpollFile, depth: int) -> int:
    """How deep ``epoll`` itself lies in others."""
    if depth > EP_MAX_NESTS:
        return depth
    outer = {entry.epoll for entry in epoll.watchers or ()}
    return max((1 + _depth_above(each, depth + 1) for each in outer), default=0)


def _files_below(file: OpenFile) -> set[OpenFile]:
    """The files that are no sets themselves, in ``file`` and all sets in it."""
    found: set[OpenFile] = set()
    todo, seen = [file], {file}
    while todo:
        each = todo.pop()
        if not isinstance(each, EpollFile):
            found.add(each)
            continue
        todo += [inner for inner in set(each.watched()) if inner not in seen]
        seen.update(todo)
    return found


def _count_ways(file: OpenFile, depth: int, counts: list[int]) -> None:
    """``reverse_path_check_proc()``: EINVAL if a file has more ways up than a wake-up may have to go."""
    if depth > EP_MAX_NESTS:
        raise GuestError(EINVAL)
    for entry in file.watchers or ():
        if entry.epoll.watchers:
            _count_ways(entry.epoll, depth + 1, counts)
        elif depth:
            counts[depth] += 1
            if counts[depth] > _PATH_LIMITS[depth]:
                raise GuestError(EINVAL)
