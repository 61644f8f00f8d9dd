"""What a file is: stat(2) and its relatives, access(2), readlink(2), statfs(2)."""

from errno import EINVAL, ENOENT
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import (
    AT_EACCESS,
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW,
)
from pyvmm.linux.abi.stat import (
    STAT,
    STATX,
    STATX__RESERVED,
    STATX_ATTR_MOUNT_ROOT,
    STATX_BASIC_STATS,
    STATX_BTIME,
    STATX_MNT_ID,
    major,
    minor,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.table import Fd, Flags, Int, Path, Pointer, UInt, syscall
from pyvmm.linux.vfs.inode import Inode
from pyvmm.linux.vfs.namei import lookup, lookup_at, read_path, start_of

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_SECOND = 1_000_000_000
_BLOCK = 4096


def pack_stat(inode: Inode) -> bytes:
    """``struct stat``."""
    atime, mtime, ctime = inode.atime, inode.mtime, inode.ctime
    return STAT.pack(
        inode.fs.dev,
        inode.ino,
        inode.nlink,
        inode.mode,
        inode.uid,
        inode.gid,
        inode.rdev,
        inode.size,
        _BLOCK,
        inode.blocks,
        atime // _SECOND,
        atime % _SECOND,
        mtime // _SECOND,
        mtime % _SECOND,
        ctime // _SECOND,
        ctime % _SECOND,
    )


@syscall
def stat(task: "Task", path: Path, buffer: Pointer) -> int:
    """stat(2): attributes of what a path names."""
    task.mem.write(buffer, pack_stat(lookup(task, AT_FDCWD, read_path(task, path))))
    return 0


@syscall
def lstat(task: "Task", path: Path, buffer: Pointer) -> int:
    """lstat(2): the same, of a symbolic link itself."""
    task.mem.write(buffer, pack_stat(lookup(task, AT_FDCWD, read_path(task, path), False)))
    return 0


@syscall
def fstat(task: "Task", fd: Fd, buffer: Pointer) -> int:
    """fstat(2): the same, of an open file."""
    task.mem.write(buffer, pack_stat(task.files.get_raw(fd).inode))
    return 0


@syscall
def newfstatat(task: "Task", dirfd: Fd, path: Path, buffer: Pointer, flags: Flags) -> int:
    """fstatat(2): the same, relative to a directory."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH):
        raise GuestError(EINVAL)
    task.mem.write(buffer, pack_stat(lookup_at(task, dirfd, path, flags)))
    return 0


@syscall
def statx(task: "Task", dirfd: Fd, path: Path, flags: Flags, mask: UInt, buffer: Pointer) -> int:
    """statx(2): the same, with the time of birth and more."""
    known = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE
    if flags & ~known or flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE or mask & STATX__RESERVED:
        raise GuestError(EINVAL)
    inode = lookup_at(task, dirfd, path, flags)
    times = []
    for time in (inode.atime, inode.btime, inode.ctime, inode.mtime):
        times += [time // _SECOND, time % _SECOND]
    dev, rdev = inode.fs.dev, inode.rdev
    data = STATX.pack(
        STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID,
        _BLOCK,
        STATX_ATTR_MOUNT_ROOT if _is_mount_root(inode) else 0,
        inode.nlink,
        inode.uid,
        inode.gid,
        inode.mode,
        inode.ino,
        inode.size,
        inode.blocks,
        STATX_ATTR_MOUNT_ROOT,
        *times,
        major(rdev),
        minor(rdev),
        major(dev),
        minor(dev),
        dev,
    )
    task.mem.write(buffer, data)
    return 0


def _is_mount_root(inode: Inode) -> bool:
    return (
        bool(inode.fs.mountpoint) and inode.is_directory and (inode.parent is None or inode.parent.fs is not inode.fs)
    )


# -------------------------------------------------------------------------------------------------------------- access


class _RealIds:
    """Credentials by which access(2) judges: the real ids instead of the effective ones."""

    __slots__ = ("fsgid", "fsuid", "groups")

    def __init__(self, task: "Task") -> None:
        self.fsuid, self.fsgid, self.groups = task.creds.uid, task.creds.gid, task.creds.groups


@syscall
def access(task: "Task", path: Path, mode: UInt) -> int:
    """access(2): whether the real user may read, write or execute a file."""
    return faccessat2(task, AT_FDCWD, path, mode, 0)


@syscall
def faccessat(task: "Task", dirfd: Fd, path: Path, mode: UInt) -> int:
    """faccessat(2): the same, relative to a directory; the call itself has no flags."""
    return faccessat2(task, dirfd, path, mode, 0)


@syscall
def faccessat2(task: "Task", dirfd: Fd, path: Path, mode: UInt, flags: Flags) -> int:
    """faccessat2(2): the same, with flags."""
    if mode & ~7 or flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise GuestError(EINVAL)
    inode = lookup_at(task, dirfd, path, flags)
    if mode:
        inode.check(task.creds if flags & AT_EACCESS else _RealIds(task), mode)
    return 0


# --------------------------------------------------------------------------------------------------------------- links


@syscall
def readlink(task: "Task", path: Path, buffer: Pointer, size: Int) -> int:
    """readlink(2): where a symbolic link leads."""
    return readlinkat(task, AT_FDCWD, path, buffer, size)


@syscall
def readlinkat(task: "Task", dirfd: Fd, path: Path, buffer: Pointer, size: Int) -> int:
    """readlinkat(2): the same, relative to a directory."""
    if size <= 0:
        raise GuestError(EINVAL)
    name = read_path(task, path)
    inode = lookup(task, dirfd, name, False) if name else start_of(task, dirfd, name)
    if not name and not inode.is_symlink:
        raise GuestError(ENOENT)
    target = inode.readlink(task)[:size]
    task.mem.write(buffer, target)
    return len(target)


# -------------------------------------------------------------------------------------------------------- file systems


@syscall
def statfs(task: "Task", path: Path, buffer: Pointer) -> int:
    """statfs(2): about the file system of a path."""
    task.mem.write(buffer, lookup(task, AT_FDCWD, read_path(task, path)).fs.statfs())
    return 0


@syscall
def fstatfs(task: "Task", fd: Fd, buffer: Pointer) -> int:
    """fstatfs(2): about the file system of an open file."""
    task.mem.write(buffer, task.files.get_raw(fd).inode.fs.statfs())
    return 0
