"""Directories: reading them, and which one is the working directory."""

from errno import EINVAL, ENOENT, ENOTDIR, ERANGE
from typing import TYPE_CHECKING

from pyvmm.linux.abi.dirent import DIRENT, DIRENT64
from pyvmm.linux.abi.fcntl import AT_FDCWD
from pyvmm.linux.errors import GuestError
from pyvmm.linux.table import Fd, Path, Pointer, Size, UInt, syscall
from pyvmm.linux.vfs.namei import lookup, read_path

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: What one call fills at most, however large the program's buffer is.
_MAX_BYTES = 1 << 18


@syscall
def getdents64(task: "Task", fd: Fd, buffer: Pointer, count: UInt) -> int:
    """getdents64(2): the next entries of a directory."""
    return _read_entries(task, fd, buffer, count, wide=True)


@syscall
def getdents(task: "Task", fd: Fd, buffer: Pointer, count: UInt) -> int:
    """getdents(2): the same in the older format."""
    return _read_entries(task, fd, buffer, count, wide=False)


def _read_entries(task: "Task", fd: int, buffer: int, count: int, *, wide: bool) -> int:
    file = task.files.get(fd)
    entries = file.entries()
    if not file.inode.is_directory:
        raise GuestError(ENOTDIR)
    if file.inode.nlink == 0:
        raise GuestError(ENOENT)
    count = min(count, _MAX_BYTES)
    records: list[bytes] = []
    size, reached = 0, file.position
    for cookie, name, ino, mode in entries:
        kind = mode >> 12 & 15
        if wide:
            length = (DIRENT64.size + len(name) + 8) & ~7
            record = DIRENT64.pack(ino, cookie, length, kind) + name
        else:
            length = (DIRENT.size + len(name) + 9) & ~7
            record = DIRENT.pack(ino, cookie, length) + name
        size += length
        if size > count:
            if not records:
                raise GuestError(EINVAL)
            break
        record = record.ljust(length, b"\0")
        records.append(record if wide else record[:-1] + bytes((kind,)))
        reached = cookie
    data = b"".join(records)
    task.mem.write(buffer, data)
    file.position = reached
    return len(data)


@syscall
def getcwd(task: "Task", buffer: Pointer, size: Size) -> int:
    """getcwd(2): the path of the working directory; the answer is its length with the closing NUL."""
    cwd = task.fs.cwd
    if not cwd.is_reachable:
        raise GuestError(ENOENT)
    path = cwd.path() + b"\0"
    if len(path) > size:
        raise GuestError(ERANGE)
    task.mem.write(buffer, path)
    return len(path)


@syscall
def chdir(task: "Task", path: Path) -> int:
    """chdir(2): another working directory."""
    task.fs.enter(task, lookup(task, AT_FDCWD, read_path(task, path)))
    return 0


@syscall
def fchdir(task: "Task", fd: Fd) -> int:
    """fchdir(2): the same, to an open directory."""
    task.fs.enter(task, task.files.get_raw(fd).inode)
    return 0
