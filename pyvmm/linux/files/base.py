"""An open file ("struct file"): position and flags, shared by all descriptors that were duplicated from one another.

The base class has every operation with the errno that Linux gives where a kind of file has none; the docstrings name
the missing member of ``struct file_operations`` that each imitates. What a call may do by its open mode (EBADF) is
checked by the system call, before it asks the file.
"""

from collections.abc import Iterator
from errno import EACCES, EBADF, EINVAL, ENODEV, ENOTDIR, ENOTTY, ESPIPE
from typing import TYPE_CHECKING, Any, ClassVar

from pyvmm.linux.abi.fcntl import (
    O_ACCMODE,
    O_CLOEXEC,
    O_CREAT,
    O_EXCL,
    O_NOCTTY,
    O_PATH,
    O_RDONLY,
    O_RDWR,
    O_TRUNC,
    O_WRONLY,
)
from pyvmm.linux.abi.inotify import IN_CLOSE_NOWRITE, IN_CLOSE_WRITE
from pyvmm.linux.abi.mman import MAP_PRIVATE, MAP_TYPE, PROT_WRITE
from pyvmm.linux.abi.poll import POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from pyvmm.linux.errors import GuestError
from pyvmm.linux.wait import WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.files.epoll import Entry
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode

#: ``DEFAULT_POLLMASK``: a file without ``poll`` is always ready.
ALWAYS_READY = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM
_ONLY_WHILE_OPENING = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC


class OpenFile:
    """The base of all kinds of open files."""

    __slots__ = ("flags", "inode", "owner", "position", "readable", "references", "watchers", "writable")

    #: What a saved state calls it; kinds without a name cannot be saved.
    kind: ClassVar[str] = ""
    #: Opened with O_PATH: a place in the file system, not its contents.
    is_path: ClassVar[bool] = False
    #: Can be read and written at an offset (FMODE_PREAD, FMODE_PWRITE); what cannot is ESPIPE.
    positioned: ClassVar[bool] = False
    #: A long transfer may be served in several steps, none of which can block.
    in_steps: ClassVar[bool] = False

    def __init__(self, inode: "Inode", flags: int) -> None:
        self.inode = inode
        self.flags = flags & ~_ONLY_WHILE_OPENING
        mode = flags & O_ACCMODE
        self.readable = mode in (O_RDONLY, O_RDWR) and not flags & O_PATH
        self.writable = mode in (O_WRONLY, O_RDWR) and not flags & O_PATH
        self.position = 0
        self.references = 0
        #: F_SETOWN.
        self.owner = 0
        #: Entries of epoll sets that watch it; they go with it.
        self.watchers: dict[Entry, None] | None = None
        inode.hold()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} flags={self.flags:#o} position={self.position} {self.inode!r}>"

    @property
    def path(self) -> bytes:
        """Its path, as ``/proc/self/fd`` shows it."""
        return self.inode.path()

    # ------------------------------------------------------------------------------------------------ life

    def acquire(self) -> "OpenFile":
        """One more descriptor refers to the file."""
        self.references += 1
        return self

    def release(self, task: "Task | None" = None) -> None:
        """One descriptor less; the last one closes the file."""
        self.references -= 1
        if self.references <= 0:
            if self.watchers:
                for entry in tuple(self.watchers):
                    entry.forget()
            if self.inode.locks is not None:
                self.inode.locks.release(self)
            self.closed()
            if not self.is_path:
                self.inode.tell(IN_CLOSE_WRITE if self.writable else IN_CLOSE_NOWRITE)
            self.inode.drop()

    def closed(self) -> None:
        """``release``: the last descriptor is gone."""

    def save(self) -> dict[str, Any]:
        """Plain data, from which :mod:`.restore` makes the file again.

        :raises ValueError: this kind of file cannot be part of a snapshot.
        """
        if not self.kind:
            raise ValueError(f"an open file cannot be saved: {self!r}")
        return {"kind": self.kind, "flags": self.flags, "position": self.position, "owner": self.owner}

    # ------------------------------------------------------------------------------------------- transferring

    def read(self, task: "Task", count: int) -> bytes:
        """Up to ``count`` bytes from the position on; none at the end. NULL ``read``: EINVAL."""
        raise GuestError(EINVAL)

    def unread(self, data: bytes) -> None:
        """The last ``data`` of what :meth:`read` gave could not be delivered: keep it for the next reader, where that
        makes sense.
        """

    def write(self, task: "Task", data: bytes) -> int:
        """Write at the position; how much was. NULL ``write``: EINVAL."""
        raise GuestError(EINVAL)

    def pread(self, task: "Task", offset: int, count: int) -> bytes:
        """Read at ``offset``, the position stays. Without FMODE_PREAD: ESPIPE."""
        raise GuestError(ESPIPE)

    def pwrite(self, task: "Task", offset: int, data: bytes) -> int:
        """Write at ``offset``, the position stays. Without FMODE_PWRITE: ESPIPE."""
        raise GuestError(ESPIPE)

    def seek(self, offset: int, whence: int) -> int:
        """Move the position. NULL ``llseek``: ESPIPE."""
        raise GuestError(ESPIPE)

    def entries(self) -> Iterator[tuple[int, bytes, int, int]]:
        """A directory's entries after the position, as :meth:`.Inode.iterate`. NULL ``iterate_shared``: ENOTDIR."""
        raise GuestError(ENOTDIR)

    # ---------------------------------------------------------------------------------------------- the rest

    def poll(self, task: "Task") -> int:
        """POLL* that hold now. NULL ``poll``: always ready."""
        return ALWAYS_READY

    def queues(self) -> tuple[WaitQueue, ...]:
        """What is woken when :meth:`poll` may give something else. Without ``poll``: none."""
        return ()

    def ioctl(self, task: "Task", request: int, argument: int) -> int:
        """What only this kind of file understands. NULL ``unlocked_ioctl``: ENOTTY."""
        raise GuestError(ENOTTY)

    def sync(self) -> None:
        """NULL ``fsync``: EINVAL."""
        raise GuestError(EINVAL)

    def truncate(self, task: "Task", size: int) -> None:
        """``ftruncate`` of what is no regular file: EINVAL."""
        raise GuestError(EINVAL)

    def allocate(self, task: "Task", mode: int, offset: int, count: int) -> None:
        """``fallocate`` of what is no regular file: ENODEV. (Pipes say ESPIPE.)"""
        raise GuestError(ENODEV)

    def pipe_size(self, wanted: int | None) -> int:
        """F_GETPIPE_SZ, or F_SETPIPE_SZ if ``wanted`` is given: EBADF, it is no pipe."""
        raise GuestError(EBADF)

    def mapping(self, prot: int, flags: int) -> "Inode | None":
        """The inode whose pages ``mmap`` shows; ``None``: zeros, as anonymous memory. NULL ``mmap``: ENODEV.

        :raises GuestError: EACCES, the file is not open for what is asked; EPERM, a seal forbids it.
        """
        self.check_mapping(prot, flags)
        raise GuestError(ENODEV)

    def check_mapping(self, prot: int, flags: int) -> None:
        """What ``do_mmap()`` asks of the open mode: reading always, writing for what is shared and writable."""
        shared = flags & MAP_TYPE != MAP_PRIVATE
        if not self.readable or (shared and prot & PROT_WRITE and not self.writable):
            raise GuestError(EACCES)


def can_poll(file: OpenFile) -> bool:
    """``file_can_poll()``: whether its kind has a ``poll`` of its own."""
    return type(file).poll is not OpenFile.poll
