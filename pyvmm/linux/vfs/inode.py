"""What every inode has, and what it answers when its kind has no such operation.

An inode is found by name in a directory (:mod:`.namei`), opened into an :class:`~pyvmm.linux.files.base.OpenFile`, and
lives as long as a name, an open file or a mapping needs it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from errno import EACCES, EINVAL, ENOTDIR, ENXIO, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING, Protocol

from pyvmm.linux.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, STATFS
from pyvmm.linux.errors import GuestError

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.files.locks import FileLocks
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.quota import Quota
    from pyvmm.linux.vfs.watches import Owner, Watch

MAY_EXEC, MAY_WRITE, MAY_READ = 1, 2, 4


class Credentials(Protocol):
    """Whose rights count for files."""

    fsuid: int
    fsgid: int
    groups: tuple[int, ...]


@dataclass(slots=True, eq=False)
class FileSystem:
    """``struct super_block``: what the inodes of one file system have in common."""

    #: ``st_dev``, also the minor number that ``/proc/self/mountinfo`` shows.
    dev: int
    #: Its type, as in ``/proc/filesystems``.
    kind: bytes
    magic: int
    #: Where it is mounted; empty for those that are nowhere (pipes).
    mountpoint: bytes = b""
    options: bytes = b"rw,nosuid,nodev,relatime"
    flags: int = 0
    quota: "Quota | None" = None

    def statfs(self) -> bytes:
        """``struct statfs``."""
        blocks = free = files = free_files = 0
        if self.quota is not None:
            quota = self.quota
            blocks, free = quota.max_bytes >> 12, quota.bytes_free >> 12
            files, free_files = quota.max_inodes, quota.max_inodes - quota.inodes_used
        return STATFS.pack(self.magic, 4096, blocks, free, free, files, free_files, self.dev, 0, 255, 4096, self.flags)


class Inode:
    """The base class: attributes, and Linux's answer to each operation that a kind of file does not have."""

    __slots__ = (
        "atime", "btime", "ctime", "fs", "gid", "holds", "ino", "locks", "mode", "mtime", "name", "nlink", "parent",
        "rdev", "uid", "watches",
    )  # fmt: skip

    #: Following this symbolic link jumps to an inode instead of reading a path (``/proc/self/fd/0``).
    is_magic = False

    def __init__(self, fs: FileSystem, ino: int, mode: int, uid: int = 0, gid: int = 0, now: int = 0) -> None:
        self.fs = fs
        self.ino = ino
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.nlink = 1
        self.rdev = 0
        self.atime = self.mtime = self.ctime = self.btime = now
        #: Open files and mappings that need this inode even when it has no name.
        self.holds = 0
        #: Advisory locks, once there have been any.
        self.locks: FileLocks | None = None
        #: Who wants to know what happens to it.
        self.watches: dict[Owner, Watch] | None = None
        #: The directory and the name under which it was last found; how paths are told (getcwd, ``/proc/self/fd``).
        self.parent: Inode | None = None
        self.name = b""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.fs.kind.decode()}:{self.ino} mode={self.mode:o} nlink={self.nlink}>"

    @property
    def size(self) -> int:
        """``st_size``."""
        return 0

    @property
    def blocks(self) -> int:
        """``st_blocks``: units of 512 bytes."""
        return 0

    @property
    def is_directory(self) -> bool:
        """Whether names can be looked up in it."""
        return self.mode & S_IFMT == S_IFDIR

    @property
    def is_symlink(self) -> bool:
        """Whether path resolution goes on elsewhere."""
        return self.mode & S_IFMT == S_IFLNK

    @property
    def is_regular(self) -> bool:
        """Whether it has contents and a size that can be changed."""
        return self.mode & S_IFMT == S_IFREG

    # -------------------------------------------------------------------------------------------------- name

    @property
    def is_linked(self) -> bool:
        """Whether its directory still has it under the name by which it was last found."""
        if self.parent is None:
            return True
        found = self.parent.lookup(self.name)
        return found is not None and found.ino == self.ino and found.fs is self.fs

    @property
    def is_reachable(self) -> bool:
        """Whether every name on the way to it from the root is still there."""
        inode = self
        while inode.parent is not None:
            if not inode.is_linked:
                return False
            inode = inode.parent
        return True

    def path(self) -> bytes:
        """Its path as ``/proc/self/fd`` shows it; `` (deleted)`` follows when it has that name no longer."""
        if self.parent is None:
            return self.name or b"/"
        names = []
        inode: Inode = self
        while inode.parent is not None:
            names.append(inode.name)
            inode = inode.parent
        return b"/" + b"/".join(reversed(names)) + (b"" if self.is_reachable else b" (deleted)")

    # ------------------------------------------------------------------------------------------- permission

    def permits(self, creds: Credentials, mask: int) -> bool:
        """``inode_permission()``: whether ``creds`` allow ``mask`` (MAY_*)."""
        mode = self.mode
        uid = creds.fsuid
        if uid == self.uid:
            mode >>= 6
        elif self.gid == creds.fsgid or self.gid in creds.groups:
            mode >>= 3
        if mode & mask == mask:
            return True
        # CAP_DAC_OVERRIDE: everything but running what nobody may run.
        return uid == 0 and bool(not mask & MAY_EXEC or self.mode & 0o111 or self.is_directory)

    def check(self, creds: Credentials, mask: int) -> None:
        """EACCES unless ``creds`` allow ``mask``."""
        if not self.permits(creds, mask):
            raise GuestError(EACCES)

    def is_owned_by(self, creds: Credentials) -> bool:
        """``inode_owner_or_capable()``."""
        return creds.fsuid in (self.uid, 0)

    # ------------------------------------------------------------------------------------ life and attributes

    def hold(self) -> None:
        """An open file or a mapping needs the inode from now on."""
        self.holds += 1

    def drop(self) -> None:
        """One that needed the inode does no longer."""
        self.holds -= 1

    def tell(self, mask: int) -> None:
        """IN_* has happened to it. What is in no store is not watched."""

    def set_mode(self, mode: int, now: int) -> None:
        """Change the permission bits (EPERM where they are fixed)."""
        raise GuestError(EPERM)

    def set_owner(self, uid: int, gid: int, now: int) -> None:
        """Change owner and group (EPERM where they are fixed)."""
        raise GuestError(EPERM)

    def set_times(self, atime: int | None, mtime: int | None, now: int) -> None:
        """Change the times that are not ``None`` (EPERM where they are fixed)."""
        raise GuestError(EPERM)

    # ------------------------------------------------------------------------------------------------ contents

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """Open it; permission has been checked. Without an ``open`` that is ENXIO (``no_open``)."""
        raise GuestError(ENXIO)

    def read_at(self, offset: int, count: int) -> bytes:
        """Contents, for mappings and ELF files: EACCES, it has none (``execve`` of a directory)."""
        raise GuestError(EACCES)

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Contents, written behind every open file."""
        raise GuestError(EACCES)

    def shared_frame(self, index: int) -> int | None:
        """The guest frame that all shared mappings of page ``index`` use."""
        return None

    def truncate(self, size: int, now: int) -> None:
        """Change the size: EINVAL for what is no regular file."""
        raise GuestError(EINVAL)

    # -------------------------------------------------------------------------------------------- symbolic link

    def readlink(self, task: "Task") -> bytes:
        """The target: EINVAL, it is no symbolic link."""
        raise GuestError(EINVAL)

    def jump(self, task: "Task") -> "Inode":
        """Where a magic link leads."""
        raise GuestError(EINVAL)

    # ------------------------------------------------------------------------------------------------ directory

    def lookup(self, name: bytes) -> "Inode | None":
        """The child ``name``."""
        raise GuestError(ENOTDIR)

    def iterate(self, cookie: int) -> Iterator[tuple[int, bytes, int, int]]:
        """Entries after ``cookie``: (their own cookie, name, inode number, type as in ``mode``); without ``.`` and
        ``..``.
        """
        raise GuestError(ENOTDIR)

    def create(self, name: bytes, mode: int, creds: Credentials, now: int, rdev: int = 0) -> "Inode":
        """A new file, FIFO or device in this directory: EACCES without a ``create`` (or EPERM, without a ``mknod``)."""
        raise GuestError(EACCES if mode & S_IFMT == S_IFREG else EPERM)

    def make_directory(self, name: bytes, mode: int, creds: Credentials, now: int) -> "Inode":
        """A new directory in this one: EPERM without a ``mkdir``."""
        raise GuestError(EPERM)

    def make_symlink(self, name: bytes, target: bytes, creds: Credentials, now: int) -> "Inode":
        """A new symbolic link: EPERM without a ``symlink``."""
        raise GuestError(EPERM)

    def make_nameless(self, mode: int, creds: Credentials, now: int) -> "Inode":
        """A new regular file without a name (O_TMPFILE): EOPNOTSUPP without a ``tmpfile``."""
        raise GuestError(EOPNOTSUPP)

    def link(self, name: bytes, inode: "Inode", now: int) -> None:
        """Another name for ``inode``: EPERM without a ``link``."""
        raise GuestError(EPERM)

    def unlink(self, name: bytes, now: int) -> None:
        """Remove the name of a file: EPERM without an ``unlink``."""
        raise GuestError(EPERM)

    def remove_directory(self, name: bytes, now: int) -> None:
        """Remove an empty directory: EPERM without an ``rmdir``."""
        raise GuestError(EPERM)
