"""Descriptors: open(2), close(2), dup(2), fcntl(2), ioctl(2) and what makes a descriptor out of nothing."""

import struct
from errno import E2BIG, EBADF, EINVAL, ENOTTY, EPERM, ESRCH
from typing import TYPE_CHECKING

from pyvmm.linux.abi import fcntl as abi
from pyvmm.linux.abi.fcntl import AT_FDCWD, O_CLOEXEC, O_CREAT, O_NONBLOCK, O_TRUNC, O_WRONLY
from pyvmm.linux.abi.ioctls import FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, FIOQSIZE
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.files.held import hold_for_others
from pyvmm.linux.syscalls.locks import fcntl_lock
from pyvmm.linux.table import Fd, Flags, Mode, Path, Pointer, Size, UInt, ULong, syscall
from pyvmm.linux.vfs.namei import read_path
from pyvmm.linux.vfs.nodes import RegularInode
from pyvmm.linux.vfs.opening import open_path

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_OPEN_HOW = struct.Struct("<QQQ")
_OPEN_HOW_MAX = 4096
_RESOLVE_KNOWN = 0x3F
#: fcntl commands that an O_PATH file takes.
_PATH_COMMANDS = (abi.F_DUPFD, abi.F_DUPFD_CLOEXEC, abi.F_GETFD, abi.F_SETFD, abi.F_GETFL, abi.F_DUPFD_QUERY)


def _open(task: "Task", dirfd: int, path: bytes, flags: int, mode: int, resolve: int = 0) -> int:
    task.files.lowest_free()
    return task.files.install(open_path(task, dirfd, path, flags, mode, resolve), bool(flags & O_CLOEXEC))


@syscall
def open_(task: "Task", path: Path, flags: Flags, mode: Mode) -> int:
    """open(2): open a file, and create it if that is asked."""
    return _open(task, AT_FDCWD, read_path(task, path), flags, mode)


@syscall
def creat(task: "Task", path: Path, mode: Mode) -> int:
    """creat(2): open with O_CREAT | O_WRONLY | O_TRUNC."""
    return _open(task, AT_FDCWD, read_path(task, path), O_CREAT | O_WRONLY | O_TRUNC, mode)


@syscall
def openat(task: "Task", dirfd: Fd, path: Path, flags: Flags, mode: Mode) -> int:
    """openat(2): open a file relative to a directory."""
    return _open(task, dirfd, read_path(task, path), flags, mode)


@syscall
def openat2(task: "Task", dirfd: Fd, path: Path, how: Pointer, size: Size) -> int:
    """openat2(2): open with restrictions on path resolution.

    A symbolic link at the end of a path that is to be created is not followed when there are restrictions.
    """
    if size < _OPEN_HOW.size:
        raise GuestError(EINVAL)
    if size > _OPEN_HOW_MAX:
        raise GuestError(E2BIG)
    data = task.mem.read(how, size)
    if any(data[_OPEN_HOW.size :]):
        raise GuestError(E2BIG)
    flags, mode, resolve = _OPEN_HOW.unpack_from(data)
    if flags & ~abi.VALID_OPEN_FLAGS or resolve & ~_RESOLVE_KNOWN or mode & ~0o7777:
        raise GuestError(EINVAL)
    if mode and not flags & (O_CREAT | abi.TMPFILE_BIT):
        raise GuestError(EINVAL)
    confined = abi.RESOLVE_BENEATH | abi.RESOLVE_IN_ROOT
    if resolve & confined == confined or (flags & abi.O_PATH and flags & (O_CREAT | O_TRUNC | abi.TMPFILE_BIT)):
        raise GuestError(EINVAL)
    return _open(task, dirfd, read_path(task, path), flags, mode, resolve)


@syscall
def close(task: "Task", fd: Fd) -> int:
    """close(2): a descriptor is free again."""
    hold_for_others(task, fd, fd)
    task.files.close(fd)
    return 0


@syscall
def close_range(task: "Task", first: UInt, last: UInt, flags: Flags) -> int:
    """close_range(2): close many descriptors, or mark them close-on-exec."""
    if flags & ~(abi.CLOSE_RANGE_UNSHARE | abi.CLOSE_RANGE_CLOEXEC) or first > last:
        raise GuestError(EINVAL)
    if flags & abi.CLOSE_RANGE_UNSHARE:
        task.files = task.files.unshared()
    if flags & abi.CLOSE_RANGE_CLOEXEC:
        task.files.set_cloexec_range(first, last)
    else:
        hold_for_others(task, first, last)
        task.files.close_range(first, last)
    return 0


@syscall
def dup(task: "Task", fd: Fd) -> int:
    """dup(2): another descriptor for the same open file."""
    return task.files.install(task.files.get_raw(fd))


@syscall
def dup2(task: "Task", old: Fd, new: Fd) -> int:
    """dup2(2): the same, at a number of one's choice."""
    file = task.files.get_raw(old)
    if old == new:
        return new
    return _dup_to(task, file, new, False)


@syscall
def dup3(task: "Task", old: Fd, new: Fd, flags: Flags) -> int:
    """dup3(2): the same, with O_CLOEXEC."""
    if flags & ~O_CLOEXEC or old == new:
        raise GuestError(EINVAL)
    return _dup_to(task, task.files.get_raw(old), new, bool(flags))


def _dup_to(task: "Task", file: OpenFile, new: int, cloexec: bool) -> int:
    if not 0 <= new < task.files.limit:
        raise GuestError(EBADF)
    hold_for_others(task, new, new)
    task.files.install_at(new, file, cloexec)
    return new


# --------------------------------------------------------------------------------------------------------------- fcntl


@syscall
def fcntl(task: "Task", fd: Fd, command: UInt, argument: ULong) -> int:
    """fcntl(2): flags, duplicates, locks and seals.

    Leases and directory notifications are refused. The owner of a file (F_SETOWN) is a process or a group, no thread;
    SIGURG is sent to it, SIGIO (O_ASYNC) is not.
    """
    files = task.files
    file = files.get_raw(fd)
    if file.is_path and command not in _PATH_COMMANDS:
        raise GuestError(EBADF)
    if command == abi.F_GETFL:
        return file.flags
    if command == abi.F_GETFD:
        return int(files.is_cloexec(fd))
    if command == abi.F_SETFD:
        files.set_cloexec(fd, bool(argument & abi.FD_CLOEXEC))
        return 0
    if command == abi.F_SETFL:
        file.flags = file.flags & ~abi.SETFL_MASK | argument & abi.SETFL_MASK
        return 0
    if command in (abi.F_DUPFD, abi.F_DUPFD_CLOEXEC):
        if argument >= files.limit:
            raise GuestError(EINVAL)
        return files.install(file, command == abi.F_DUPFD_CLOEXEC, argument)
    return _fcntl_rare(task, file, command, argument)


def _fcntl_rare(task: "Task", file: OpenFile, command: int, argument: int) -> int:
    if command in (abi.F_GETLK, abi.F_SETLK, abi.F_SETLKW, abi.F_OFD_GETLK, abi.F_OFD_SETLK, abi.F_OFD_SETLKW):
        return fcntl_lock(task, file, command, argument)
    if command == abi.F_DUPFD_QUERY:
        return int(task.files.get_raw(argument & 0x7FFF_FFFF) is file)
    if command == abi.F_GETOWN:
        return file.owner
    if command == abi.F_SETOWN:
        _set_owner(task, file, (argument & 0xFFFF_FFFF ^ 1 << 31) - (1 << 31))
        return 0
    if command == abi.F_GETOWN_EX:
        kind = abi.F_OWNER_PGRP if file.owner < 0 else abi.F_OWNER_PID if file.owner else abi.F_OWNER_TID
        task.mem.write(argument, abi.F_OWNER_EX.pack(kind, abs(file.owner)))
        return 0
    if command == abi.F_SETOWN_EX:
        kind, pid = abi.F_OWNER_EX.unpack(task.mem.read(argument, abi.F_OWNER_EX.size))
        if kind not in (abi.F_OWNER_PID, abi.F_OWNER_PGRP):
            raise GuestError(EINVAL)
        if pid < 0:
            raise GuestError(ESRCH)
        _set_owner(task, file, -pid if kind == abi.F_OWNER_PGRP else pid)
        return 0
    if command in (abi.F_SETSIG, abi.F_GETSIG):
        return 0
    if command in (abi.F_GETPIPE_SZ, abi.F_SETPIPE_SZ):
        return file.pipe_size(argument if command == abi.F_SETPIPE_SZ else None)
    if command in (abi.F_GET_SEALS, abi.F_ADD_SEALS):
        return _seals(file, command, argument)
    if command == abi.F_GETLEASE:
        return abi.F_UNLCK
    if command == abi.F_NOTIFY and not argument & 0x7FFF_FFFF:
        return 0  # No notifications are wanted any more, as there never were.
    raise GuestError(EINVAL)


def _set_owner(task: "Task", file: OpenFile, who: int) -> None:
    """``f_setown()``: a process, or if negative a group: EINVAL, ESRCH."""
    if who == -(1 << 31):
        raise GuestError(EINVAL)
    processes = task.kernel.processes.values()
    if who and not any(who in (process.pid, -process.group) for process in processes):
        raise GuestError(ESRCH)
    file.owner = who


def _seals(file: OpenFile, command: int, seals: int) -> int:
    inode = file.inode
    if not isinstance(inode, RegularInode) or inode.seals is None:
        raise GuestError(EINVAL)
    if command == abi.F_GET_SEALS:
        return inode.seals
    if not file.writable or inode.seals & abi.F_SEAL_SEAL:
        raise GuestError(EPERM)
    if seals & ~0x3F:
        raise GuestError(EINVAL)
    inode.seals |= seals
    inode.dirty = True
    return 0


@syscall
def ioctl(task: "Task", fd: Fd, request: Flags, argument: Pointer) -> int:
    """ioctl(2): what concerns every descriptor, then what its kind of file knows (ENOTTY)."""
    file = task.files.get(fd)
    if request in (FIOCLEX, FIONCLEX):
        task.files.set_cloexec(fd, request == FIOCLEX)
        return 0
    if request in (FIONBIO, FIOASYNC):
        if task.mem.read_u32(argument):
            file.flags |= O_NONBLOCK if request == FIONBIO else abi.FASYNC
        else:
            file.flags &= ~(O_NONBLOCK if request == FIONBIO else abi.FASYNC)
        return 0
    if request == FIOQSIZE:
        if not file.inode.is_regular and not file.inode.is_directory:
            raise GuestError(ENOTTY)
        task.mem.write_u64(argument, file.inode.size)
        return 0
    return file.ioctl(task, request, argument)
