"""Inodes without a place in the tree: pipes, standard streams, sockets, eventfds (``pipefs``, ``sockfs``,
``anon_inodefs``).
"""

from errno import ENXIO
from typing import TYPE_CHECKING

from pyvmm.linux.abi.stat import ANON_INODE_FS_MAGIC, PIPEFS_MAGIC, S_IFIFO, S_IFSOCK, SOCKFS_MAGIC
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.pipe import DEFAULT_CAPACITY, Pipe, PipeFile
from pyvmm.linux.files.stdio import StandardError, StandardInput, StandardOutput
from pyvmm.linux.vfs.inode import FileSystem, Inode

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.task import Task

PIPEFS = FileSystem(dev=0x0D, kind=b"pipefs", magic=PIPEFS_MAGIC)
ANON_INODE_FS = FileSystem(dev=0x0E, kind=b"anon_inodefs", magic=ANON_INODE_FS_MAGIC)
SOCKFS = FileSystem(dev=0x08, kind=b"sockfs", magic=SOCKFS_MAGIC)


class AnonymousInode(Inode):
    """The base: as ``d_path`` shows it, without parents. Its attributes can be changed, and nobody sees it."""

    __slots__ = ()

    def set_mode(self, mode: int, now: int) -> None:
        """``fchmod``."""
        self.mode = self.mode & ~0o7777 | mode
        self.ctime = now

    def set_owner(self, uid: int, gid: int, now: int) -> None:
        """``fchown``."""
        self.uid, self.gid, self.ctime = uid, gid, now

    def set_times(self, atime: int | None, mtime: int | None, now: int) -> None:
        """``futimens``."""
        self.atime = self.atime if atime is None else atime
        self.mtime = self.mtime if mtime is None else mtime
        self.ctime = now


class PipeInode(AnonymousInode):
    """A pipe that pipe(2) made."""

    __slots__ = ("pipe",)

    def __init__(self, ino: int, uid: int, gid: int, now: int) -> None:
        super().__init__(PIPEFS, ino, S_IFIFO | 0o600, uid, gid, now)
        self.pipe: Pipe | None = None
        self.name = b"pipe:[%d]" % ino

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """By way of ``/proc/self/fd``: another end."""
        assert self.pipe is not None
        return PipeFile(self, flags, self.pipe)


class StdioInode(AnonymousInode):
    """A standard stream: a pipe whose other end the host has."""

    __slots__ = ("capacity", "consumed", "number")

    def __init__(self, number: int, uid: int, gid: int, now: int) -> None:
        super().__init__(PIPEFS, number + 1, S_IFIFO | 0o600, uid, gid, now)
        self.number = number
        self.capacity = DEFAULT_CAPACITY
        #: How much of standard input has been read.
        self.consumed = 0
        self.name = b"pipe:[%d]" % self.ino

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """By way of ``/dev/stdout`` or ``/proc/self/fd``."""
        if self.number == 0:
            return StandardInput(self, flags)
        return StandardOutput(self, flags) if self.number == 1 else StandardError(self, flags)


class SocketInode(AnonymousInode):
    """What a socket stands on. It cannot be opened by a path (ENXIO)."""

    __slots__ = ()

    def __init__(self, ino: int, uid: int, gid: int, now: int) -> None:
        super().__init__(SOCKFS, ino, S_IFSOCK | 0o777, uid, gid, now)
        self.name = b"socket:[%d]" % ino


class EventInode(AnonymousInode):
    """What an eventfd stands on."""

    __slots__ = ()

    def __init__(self, ino: int, name: bytes, now: int) -> None:
        super().__init__(ANON_INODE_FS, ino, 0o600, 0, 0, now)
        self.name = b"anon_inode:" + name

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """It cannot be opened by a path."""
        raise GuestError(ENXIO)
