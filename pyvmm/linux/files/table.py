"""The table of descriptors of a process ("struct files_struct")."""

from collections.abc import Callable
from errno import EBADF, EMFILE, ENFILE, ENOMEM
from typing import TYPE_CHECKING, Any, Self

from pyvmm.linux.abi.fcntl import O_RDONLY, O_WRONLY
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile, can_poll
from pyvmm.linux.files.epoll import EpollFile
from pyvmm.linux.files.restore import restore_file

if TYPE_CHECKING:
    from pyvmm.linux.vfs import Vfs
    from pyvmm.linux.vfs.quota import Quota

#: Bytes that an open file takes of the monitor's memory, about; the first descriptors of a table, which every program
#: has, are not counted.
_DESCRIPTOR_COST = 1024
_FREE_OF_CHARGE = 16


class FdTable:
    """Descriptors and what they refer to.

    :param limit: RLIMIT_NOFILE (soft): numbers from here on are not given out (EMFILE).
    :param quota: what the sandbox may keep in the monitor's memory: descriptors count (ENFILE when it is full).
    """

    __slots__ = ("_asleep", "_charged", "_cloexec", "_files", "_free", "_quota", "_wake_places", "limit", "users")

    def __init__(self, limit: int, quota: "Quota") -> None:
        self.limit: int = limit
        self._quota = quota
        #: Descriptors that are counted against the quota.
        self._charged = 0
        #: Threads that share the table (CLONE_FILES).
        self.users = 1
        self._files: dict[int, OpenFile] = {}
        #: Descriptors that came with a snapshot and that nobody has asked for yet -> which of its files each is.
        self._asleep: dict[int, int] = {}
        self._wake_places: Callable[[int], dict[int, OpenFile]] = _none_asleep
        self._cloexec: set[int] = set()
        #: No number below this one is free.
        self._free = 0

    def __repr__(self) -> str:
        return f"<FdTable {sorted(self._all())}>"

    def __len__(self) -> int:
        return len(self._all())

    def __contains__(self, fd: int) -> bool:
        return fd in self._all()

    def numbers(self) -> list[int]:
        """All descriptors in use, in order."""
        return sorted(self._all())

    def get(self, fd: int) -> OpenFile:
        """The file behind ``fd``, for calls that use its contents (EBADF for O_PATH files too)."""
        file = self._files.get(fd) or self._wake(fd)
        if file is None or file.is_path:
            raise GuestError(EBADF)
        return file

    def get_raw(self, fd: int) -> OpenFile:
        """The file behind ``fd``, for calls that only need to know which it is (EBADF)."""
        file = self._files.get(fd) or self._wake(fd)
        if file is None:
            raise GuestError(EBADF)
        return file

    def install(self, file: OpenFile, cloexec: bool = False, lowest: int = 0) -> int:
        """Let the lowest free number from ``lowest`` on refer to ``file``; EMFILE (``file`` is then closed if nothing
        else refers to it).
        """
        try:
            fd = self.lowest_free(lowest)
            self._charge(len(self._all()) + 1, ENFILE)
        except GuestError:
            if not file.references:
                file.acquire().release()
            raise
        if lowest <= self._free:
            self._free = fd + 1
        self._all()[fd] = file
        file.references += 1
        if cloexec:
            self._cloexec.add(fd)
        return fd

    def install_standard(self, vfs: "Vfs") -> None:
        """Let 0, 1 and 2 refer to standard input, output and error."""
        for number, kind in enumerate(("stdin", "stdout", "stderr")):
            state = {"kind": kind, "flags": O_WRONLY if number else O_RDONLY, "position": 0, "owner": 0}
            self.install_at(number, restore_file(vfs, state))

    def lowest_free(self, lowest: int = 0) -> int:
        """The lowest free number from ``lowest`` on (EMFILE): asked before a call has any effect."""
        files = self._all()
        fd = max(self._free, lowest)
        while fd in files:
            fd += 1
        if fd >= self.limit:
            raise GuestError(EMFILE)
        return fd

    def install_at(self, fd: int, file: OpenFile, cloexec: bool = False) -> None:
        """Let ``fd`` refer to ``file``, closing what it referred to (dup2)."""
        old = self._all().get(fd)
        if old is None:
            self._charge(len(self._files) + 1, ENFILE)
        file.references += 1
        self._files[fd] = file
        self.set_cloexec(fd, cloexec)
        if old is not None:
            self._let_go(old)

    def close(self, fd: int) -> None:
        """close(2)."""
        self._wake(fd)
        file = self._files.pop(fd, None)
        if file is None:
            raise GuestError(EBADF)
        self._cloexec.discard(fd)
        if fd < self._free:
            self._free = fd
        self._charge(len(self._files) + len(self._asleep), ENFILE)
        self._let_go(file)

    def _charge(self, count: int, errno: int) -> None:
        """Count ``count`` descriptors against the quota, but for the first few; ``errno`` if it is full."""
        more = max(count - _FREE_OF_CHARGE, 0) - self._charged
        if more:
            try:
                self._quota.take(more * _DESCRIPTOR_COST)
            except GuestError:
                raise GuestError(errno) from None
            self._charged += more

    def _let_go(self, file: OpenFile) -> None:
        """A descriptor of ``file`` is closed: POSIX locks of this process on it go, though others may be open."""
        if file.inode.locks is not None:
            file.inode.locks.release(self)
        file.release()

    def close_range(self, first: int, last: int) -> None:
        """Close every descriptor from ``first`` to ``last``."""
        for fd in [fd for fd in self._all() if first <= fd <= last]:
            self.close(fd)

    def close_all(self) -> None:
        """Nobody uses the table any more."""
        self.close_range(0, 1 << 32)

    def leave(self) -> None:
        """A thread that uses the table ends."""
        self.users -= 1
        if not self.users:
            self.close_all()

    def is_cloexec(self, fd: int) -> bool:
        """FD_CLOEXEC."""
        return fd in self._cloexec

    def set_cloexec(self, fd: int, value: bool) -> None:
        """FD_CLOEXEC on or off."""
        if value:
            self._cloexec.add(fd)
        else:
            self._cloexec.discard(fd)

    def set_cloexec_range(self, first: int, last: int) -> None:
        """FD_CLOEXEC on, for every descriptor from ``first`` to ``last``."""
        self._cloexec.update(fd for fd in self._all() if first <= fd <= last)

    def executed(self) -> None:
        """execve(2) has happened: close what is marked so."""
        for fd in sorted(self._cloexec):
            self.close(fd)

    def copy(self) -> Self:
        """A table of its own with the same files (fork(2), CLONE_FILES not given).

        :raises GuestError: ENOMEM, the quota is full.
        """
        other = type(self)(self.limit, self._quota)
        other._charge(len(self._all()), ENOMEM)
        other._files = dict(self._all())
        other._cloexec = set(self._cloexec)
        other._free = self._free
        for file in other._files.values():
            file.references += 1
        return other

    # ------------------------------------------------------------------------------------------------- state

    def save(self) -> dict[str, Any]:
        """Plain data.

        :raises ValueError: a file is open that cannot be part of a snapshot (a file of ``/proc``), or that is locked.
        """
        places: dict[OpenFile, int] = {}
        files: list[dict[str, Any]] = []
        for file in self._all().values():
            if file not in places:
                if file.inode.locks is not None and (file.inode.locks.ranges or file.inode.locks.wholes):
                    raise ValueError(f"a lock is held on an open file: {file!r}")
                places[file] = len(files)
                files.append(file.save())
        epolls = [file for file in places if isinstance(file, EpollFile)]
        for epoll in epolls:
            if not all(file in places for file in epoll.watched()):
                raise ValueError(f"{epoll!r} watches a file that this process has not open")
            files[places[epoll]] |= epoll.save_entries(places.__getitem__)
        return {
            "limit": self.limit,
            "files": files,
            "numbers": {fd: places[file] for fd, file in self._all().items()},
            "cloexec": sorted(self._cloexec),
            # An epoll set must not miss any news: what it might be told of wakes together with it.
            "together": [place for file, place in places.items() if epolls and can_poll(file)],
        }

    @classmethod
    def restore(cls, state: dict[str, Any], vfs: "Vfs") -> Self:
        """A table as :meth:`save` told; descriptors that shared a file share one again.

        A file is made again when it is first asked for: most forks never look at most of them.
        """
        table = cls(state["limit"], vfs.store.quota)
        table._asleep = dict(state["numbers"])
        table._charged = max(len(table._asleep) - _FREE_OF_CHARGE, 0)  # the saved quota has them already
        table._cloexec.update(state["cloexec"])
        files, together = state["files"], state["together"]

        def wake(place: int) -> dict[int, OpenFile]:
            awake = {each: restore_file(vfs, files[each]) for each in (together if place in together else (place,))}
            for each, file in awake.items():
                if isinstance(file, EpollFile):
                    file.restore_entries(files[each], awake.__getitem__)
            return awake

        table._wake_places = wake
        return table

    def _wake(self, fd: int) -> OpenFile | None:
        """The file of a descriptor that is asleep. All descriptors of the file wake with it, and other files may."""
        place = self._asleep.get(fd)
        if place is None:
            return None
        awake = self._wake_places(place)
        for number, its_place in tuple(self._asleep.items()):
            file = awake.get(its_place)
            if file is not None:
                self._files[number] = file.acquire()
                del self._asleep[number]
        return self._files[fd]

    def _all(self) -> dict[int, OpenFile]:
        """All files, awake."""
        for fd in tuple(self._asleep):
            self._wake(fd)
        return self._files


def _none_asleep(place: int) -> dict[int, OpenFile]:
    raise ValueError(f"no file {place} came with a snapshot")
