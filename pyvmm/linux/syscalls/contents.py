"""The contents of files as a whole: their size, the room they take, when they are on disk (which is at once: there is
none).
"""

from errno import EBADF, EFBIG, EINVAL, EISDIR, EOPNOTSUPP, ESPIPE
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import (
    AT_FDCWD,
    FALLOC_FL_COLLAPSE_RANGE,
    FALLOC_FL_INSERT_RANGE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_UNSHARE_RANGE,
    FALLOC_FL_ZERO_RANGE,
    MAX_FILE_SIZE,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.files.regular import resize
from pyvmm.linux.table import Fd, Flags, Int, Long, Path, Size, syscall
from pyvmm.linux.vfs.inode import MAY_WRITE
from pyvmm.linux.vfs.namei import lookup_at
from pyvmm.linux.vfs.nodes import RegularInode

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_FALLOC_KNOWN = (
    FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_ZERO_RANGE
    | FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE
)  # fmt: skip
_FADVISE_LAST = 5


@syscall
def truncate(task: "Task", path: Path, length: Long) -> int:
    """truncate(2): change a file's size."""
    if length < 0:
        raise GuestError(EINVAL)
    inode = lookup_at(task, AT_FDCWD, path, 0)
    if inode.is_directory:
        raise GuestError(EISDIR)
    if not inode.is_regular:
        raise GuestError(EINVAL)
    inode.check(task.creds, MAY_WRITE)
    if isinstance(inode, RegularInode):
        resize(task, inode, length)
    return 0


@syscall
def ftruncate(task: "Task", fd: Fd, length: Long) -> int:
    """ftruncate(2): the same, of an open file."""
    if length < 0:
        raise GuestError(EINVAL)
    file = task.files.get(fd)
    if not file.inode.is_regular or not file.writable:
        raise GuestError(EINVAL)
    file.truncate(task, length)
    return 0


@syscall
def fallocate(task: "Task", fd: Fd, mode: Flags, offset: Long, length: Long) -> int:
    """fallocate(2): take room, or make a hole.

    FALLOC_FL_COLLAPSE_RANGE, INSERT_RANGE and UNSHARE_RANGE are refused (EOPNOTSUPP).
    """
    file = task.files.get(fd)
    if offset < 0 or length <= 0:
        raise GuestError(EINVAL)
    _check_mode(mode)
    if not file.writable:
        raise GuestError(EBADF)
    if file.inode.is_directory:
        raise GuestError(EISDIR)
    if file.inode.is_regular and offset + length > MAX_FILE_SIZE:
        raise GuestError(EFBIG)
    file.allocate(task, mode, offset, length)
    return 0


def _check_mode(mode: int) -> None:
    """Which combinations ``vfs_fallocate()`` takes, and which we do."""
    kind = mode & ~FALLOC_FL_KEEP_SIZE
    if mode & ~_FALLOC_KNOWN or kind & (kind - 1):
        raise GuestError(EOPNOTSUPP)
    if kind == FALLOC_FL_PUNCH_HOLE and not mode & FALLOC_FL_KEEP_SIZE:
        raise GuestError(EOPNOTSUPP)
    if kind & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE):
        raise GuestError(EOPNOTSUPP)


@syscall
def fsync(task: "Task", fd: Fd) -> int:
    """fsync(2): wait until a file is on disk."""
    task.files.get(fd).sync()
    return 0


@syscall
def fdatasync(task: "Task", fd: Fd) -> int:
    """fdatasync(2): the same, without attributes."""
    task.files.get(fd).sync()
    return 0


@syscall
def sync(task: "Task") -> int:
    """sync(2): the same, for everything."""
    return 0


@syscall
def syncfs(task: "Task", fd: Fd) -> int:
    """syncfs(2): the same, for one file system."""
    task.files.get(fd)
    return 0


@syscall
def sync_file_range(task: "Task", fd: Fd, offset: Long, length: Long, flags: Flags) -> int:
    """sync_file_range(2): the same, for a part of a file."""
    file = task.files.get(fd)
    if flags & ~7 or offset < 0 or length < 0:
        raise GuestError(EINVAL)
    _check_cached(file)
    return 0


def _check_cached(file: OpenFile) -> None:
    """ESPIPE for what has no pages."""
    if not file.inode.is_regular and not file.inode.is_directory:
        raise GuestError(ESPIPE)


@syscall
def fadvise64(task: "Task", fd: Fd, offset: Long, length: Size, advice: Int) -> int:
    """posix_fadvise(2): advice, which changes nothing here."""
    file = task.files.get(fd)
    if not file.positioned:
        raise GuestError(ESPIPE)
    if length >> 63 or not 0 <= advice <= _FADVISE_LAST:
        raise GuestError(EINVAL)
    return 0


@syscall
def readahead(task: "Task", fd: Fd, offset: Long, count: Size) -> int:
    """readahead(2): advice, which changes nothing here."""
    file = task.files.get(fd)
    if not file.readable:
        raise GuestError(EBADF)
    if not file.inode.is_regular:
        raise GuestError(EINVAL)
    return 0
