"""Changing what a file is: mode, owner, times, and the mask for new files."""

import struct
from errno import EINVAL, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW
from pyvmm.linux.abi.stat import S_IALLUGO, S_ISGID, S_ISUID, S_IXGRP
from pyvmm.linux.errors import GuestError
from pyvmm.linux.table import Fd, Flags, Mode, Path, Pointer, UInt, syscall
from pyvmm.linux.vfs.inode import MAY_WRITE, Inode
from pyvmm.linux.vfs.namei import lookup_at

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_SECOND = 1_000_000_000
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
_UNCHANGED = 0xFFFF_FFFF


@syscall
def umask(task: "Task", mask: Mode) -> int:
    """umask(2): permissions that new files do not get; the answer is the mask before."""
    before, task.fs.umask = task.fs.umask, mask & 0o777
    return before


# ---------------------------------------------------------------------------------------------------------------- mode


@syscall
def chmod(task: "Task", path: Path, mode: Mode) -> int:
    """chmod(2): change permissions."""
    return _chmod(task, lookup_at(task, AT_FDCWD, path, 0), mode)


@syscall
def fchmod(task: "Task", fd: Fd, mode: Mode) -> int:
    """fchmod(2): the same, of an open file."""
    return _chmod(task, task.files.get(fd).inode, mode)


@syscall
def fchmodat(task: "Task", dirfd: Fd, path: Path, mode: Mode) -> int:
    """fchmodat(2): the same, relative to a directory; the call itself has no flags."""
    return _chmod(task, lookup_at(task, dirfd, path, 0), mode)


@syscall
def fchmodat2(task: "Task", dirfd: Fd, path: Path, mode: Mode, flags: Flags) -> int:
    """fchmodat2(2): the same, with flags."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise GuestError(EINVAL)
    return _chmod(task, lookup_at(task, dirfd, path, flags), mode)


def _chmod(task: "Task", inode: Inode, mode: int) -> int:
    creds = task.creds
    if inode.is_symlink:
        raise GuestError(EOPNOTSUPP)
    if not inode.is_owned_by(creds):
        raise GuestError(EPERM)
    mode &= S_IALLUGO
    if creds.fsuid != 0 and inode.gid != creds.fsgid and inode.gid not in creds.groups:
        mode &= ~S_ISGID
    inode.set_mode(mode, task.kernel.clock.realtime_ns())
    return 0


# --------------------------------------------------------------------------------------------------------------- owner


@syscall
def chown(task: "Task", path: Path, uid: UInt, gid: UInt) -> int:
    """chown(2): change owner and group."""
    return _chown(task, lookup_at(task, AT_FDCWD, path, 0), uid, gid)


@syscall
def lchown(task: "Task", path: Path, uid: UInt, gid: UInt) -> int:
    """lchown(2): the same, of a symbolic link itself."""
    return _chown(task, lookup_at(task, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), uid, gid)


@syscall
def fchown(task: "Task", fd: Fd, uid: UInt, gid: UInt) -> int:
    """fchown(2): the same, of an open file."""
    return _chown(task, task.files.get(fd).inode, uid, gid)


@syscall
def fchownat(task: "Task", dirfd: Fd, path: Path, uid: UInt, gid: UInt, flags: Flags) -> int:
    """fchownat(2): the same, relative to a directory."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise GuestError(EINVAL)
    return _chown(task, lookup_at(task, dirfd, path, flags), uid, gid)


def _chown(task: "Task", inode: Inode, uid: int, gid: int) -> int:
    creds = task.creds
    privileged = creds.fsuid == 0
    owned = creds.fsuid == inode.uid
    if uid != _UNCHANGED and not privileged and not (owned and uid == inode.uid):
        raise GuestError(EPERM)
    in_group = gid in (inode.gid, creds.fsgid) or gid in creds.groups
    if gid != _UNCHANGED and not privileged and not (owned and in_group):
        raise GuestError(EPERM)
    now = task.kernel.clock.realtime_ns()
    new_uid = inode.uid if uid == _UNCHANGED else uid
    new_gid = inode.gid if gid == _UNCHANGED else gid
    inode.set_owner(new_uid, new_gid, now)
    if not inode.is_directory and inode.mode & (S_ISUID | S_ISGID):
        mode = inode.mode & S_IALLUGO & ~S_ISUID
        inode.set_mode(mode & ~S_ISGID if mode & S_IXGRP else mode, now)
    return 0


# --------------------------------------------------------------------------------------------------------------- times


@syscall
def utimensat(task: "Task", dirfd: Fd, path: Path, times: Pointer, flags: Flags) -> int:
    """utimensat(2): set the times of access and modification; without a path, of the open file ``dirfd``."""
    pairs = None
    if times:
        values = struct.unpack("<4q", task.mem.read(times, 32))
        pairs = ((values[0], values[1]), (values[2], values[3]))
        if all(nanoseconds == _UTIME_OMIT for _, nanoseconds in pairs):
            return 0
    if not path and dirfd != AT_FDCWD:
        if flags:
            raise GuestError(EINVAL)
        return _set_times(task, task.files.get(dirfd).inode, pairs)
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise GuestError(EINVAL)
    return _set_times(task, lookup_at(task, dirfd, path, flags), pairs)


@syscall
def utimes(task: "Task", path: Path, times: Pointer) -> int:
    """utimes(2): the same, with microseconds."""
    return futimesat(task, AT_FDCWD, path, times)


@syscall
def futimesat(task: "Task", dirfd: Fd, path: Path, times: Pointer) -> int:
    """futimesat(2): the same, relative to a directory."""
    pairs = None
    if times:
        values = struct.unpack("<4q", task.mem.read(times, 32))
        if not all(0 <= microseconds < 1_000_000 for microseconds in values[1::2]):
            raise GuestError(EINVAL)
        pairs = ((values[0], values[1] * 1000), (values[2], values[3] * 1000))
    if not path and dirfd != AT_FDCWD:
        return _set_times(task, task.files.get(dirfd).inode, pairs)
    return _set_times(task, lookup_at(task, dirfd, path, 0), pairs)


@syscall
def utime(task: "Task", path: Path, times: Pointer) -> int:
    """utime(2): the same, with seconds."""
    pairs = None
    if times:
        access, modification = struct.unpack("<2q", task.mem.read(times, 16))
        pairs = ((access, 0), (modification, 0))
    return _set_times(task, lookup_at(task, AT_FDCWD, path, 0), pairs)


def _set_times(task: "Task", inode: Inode, pairs: tuple[tuple[int, int], tuple[int, int]] | None) -> int:
    """Set both times (``None``: to now); a pair is (seconds, nanoseconds or UTIME_*)."""
    for _, nanoseconds in pairs or ():
        if nanoseconds not in (_UTIME_NOW, _UTIME_OMIT) and not 0 <= nanoseconds < _SECOND:
            raise GuestError(EINVAL)
    now = task.kernel.clock.realtime_ns()
    to_now = pairs is None or all(nanoseconds == _UTIME_NOW for _, nanoseconds in pairs)
    if not inode.is_owned_by(task.creds):
        if not to_now:
            raise GuestError(EPERM)
        inode.check(task.creds, MAY_WRITE)
    values: list[int | None] = [now, now]
    for index, (seconds, nanoseconds) in enumerate(pairs or ()):
        if nanoseconds == _UTIME_OMIT:
            values[index] = None
        elif nanoseconds != _UTIME_NOW:
            values[index] = seconds * _SECOND + nanoseconds
    inode.set_times(values[0], values[1], now)
    return 0
