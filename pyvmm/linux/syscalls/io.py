"""Reading and writing: read(2), write(2), their vectored and positioned forms, lseek(2), sendfile(2),
copy_file_range(2).
"""

from errno import EBADF, EINVAL, EISDIR, EOPNOTSUPP, ESPIPE, EXDEV
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import (
    MAX_FILE_SIZE,
    MAX_RW_COUNT,
    O_APPEND,
    RWF_APPEND,
    RWF_DSYNC,
    RWF_HIPRI,
    RWF_NOAPPEND,
    RWF_NOWAIT,
    RWF_SYNC,
    SEEK_HOLE,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.files.transfer import (
    STEP,
    Vector,
    buffer_at,
    copy_between,
    load,
    read_into,
    read_vector,
    store,
    write_from,
)
from pyvmm.linux.layout import TASK_SIZE
from pyvmm.linux.table import Fd, Flags, Int, Long, Pointer, Size, UInt, ULong, syscall

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_RWF_SUPPORTED = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND | RWF_NOAPPEND


def _for_reading(task: "Task", fd: int) -> OpenFile:
    file = task.files.get(fd)
    if not file.readable:
        raise GuestError(EBADF)
    return file


def _for_writing(task: "Task", fd: int) -> OpenFile:
    file = task.files.get(fd)
    if not file.writable:
        raise GuestError(EBADF)
    return file


def _at_offset(task: "Task", fd: int, offset: int) -> OpenFile:
    """The file for a positioned transfer: EINVAL, EBADF, ESPIPE."""
    if offset < 0:
        raise GuestError(EINVAL)
    file = task.files.get(fd)
    if not file.positioned:
        raise GuestError(ESPIPE)
    return file


@syscall
def read(task: "Task", fd: Fd, buffer: Pointer, count: Size) -> int:
    """read(2): up to ``count`` bytes from a file's position."""
    file = task.files.get(fd)
    if not file.readable:
        raise GuestError(EBADF)
    if count > STEP or buffer + count > TASK_SIZE:
        return read_into(task, file, buffer_at(buffer, count))
    data = file.read(task, count)
    try:
        task.mem.write(buffer, data)
    except GuestError:
        delivered = store(task, buffer, data)
        file.unread(data[delivered:])
        if not delivered:
            raise
        return delivered
    return len(data)


@syscall
def write(task: "Task", fd: Fd, buffer: Pointer, count: Size) -> int:
    """write(2): ``count`` bytes at a file's position."""
    file = task.files.get(fd)
    if not file.writable:
        raise GuestError(EBADF)
    if count > STEP or buffer + count > TASK_SIZE or task.progress:
        return write_from(task, file, buffer_at(buffer, count))
    try:
        data = task.mem.read(buffer, count)
    except GuestError:
        data = load(task, buffer, count)
        if not data:
            raise
    return file.write(task, data)


@syscall
def pread64(task: "Task", fd: Fd, buffer: Pointer, count: Size, offset: Long) -> int:
    """pread(2): read at an offset."""
    file = _at_offset(task, fd, offset)
    if not file.readable:
        raise GuestError(EBADF)
    return read_into(task, file, buffer_at(buffer, count), offset)


@syscall
def pwrite64(task: "Task", fd: Fd, buffer: Pointer, count: Size, offset: Long) -> int:
    """pwrite(2): write at an offset."""
    file = _at_offset(task, fd, offset)
    if not file.writable:
        raise GuestError(EBADF)
    return write_from(task, file, buffer_at(buffer, count), offset)


@syscall
def readv(task: "Task", fd: Fd, vector: Pointer, count: Int) -> int:
    """readv(2): read into several buffers."""
    return read_into(task, _for_reading(task, fd), read_vector(task, vector, count))


@syscall
def writev(task: "Task", fd: Fd, vector: Pointer, count: Int) -> int:
    """writev(2): write from several buffers."""
    file = _for_writing(task, fd)
    pieces = read_vector(task, vector, count)
    return write_from(task, file, pieces) if any(length for _, length in pieces) else 0


@syscall
def preadv(task: "Task", fd: Fd, vector: Pointer, count: Int, offset: Long, high: ULong) -> int:
    """preadv(2): read at an offset into several buffers."""
    _at_offset(task, fd, offset)
    return preadv2(task, fd, vector, count, offset, high, 0)


@syscall
def pwritev(task: "Task", fd: Fd, vector: Pointer, count: Int, offset: Long, high: ULong) -> int:
    """pwritev(2): write at an offset from several buffers."""
    _at_offset(task, fd, offset)
    return pwritev2(task, fd, vector, count, offset, high, 0)


@syscall
def preadv2(task: "Task", fd: Fd, vector: Pointer, count: Int, offset: Long, high: ULong, flags: Flags) -> int:
    """preadv2(2): as preadv, offset -1 being the position.

    The flags are accepted: contents lie in memory, so nothing waits for a disk.
    """
    return _positioned(task, fd, vector, count, offset, flags, writing=False)


@syscall
def pwritev2(task: "Task", fd: Fd, vector: Pointer, count: Int, offset: Long, high: ULong, flags: Flags) -> int:
    """pwritev2(2): as pwritev, offset -1 being the position.

    RWF_APPEND is honoured, RWF_NOAPPEND is refused; the other flags are accepted, since contents lie in memory.
    """
    if flags & RWF_NOAPPEND:
        raise GuestError(EOPNOTSUPP)
    return _positioned(task, fd, vector, count, offset, flags, writing=True)


def _positioned(task: "Task", fd: int, vector: int, count: int, offset: int, flags: int, *, writing: bool) -> int:
    at_position = offset == -1
    file = task.files.get(fd) if at_position else _at_offset(task, fd, offset)
    if not (file.writable if writing else file.readable):
        raise GuestError(EBADF)
    pieces: Vector = read_vector(task, vector, count)
    if flags & ~_RWF_SUPPORTED:
        raise GuestError(EOPNOTSUPP)
    if not any(length for _, length in pieces):
        return 0
    where = None if at_position else offset
    if not writing:
        return read_into(task, file, pieces, where)
    if flags & RWF_APPEND:
        where = file.inode.size if file.positioned else None
    return write_from(task, file, pieces, where)


@syscall
def lseek(task: "Task", fd: Fd, offset: Long, whence: UInt) -> int:
    """lseek(2): move a file's position."""
    file = task.files.get(fd)
    if whence > SEEK_HOLE:
        raise GuestError(EINVAL)
    return file.seek(offset, whence)


@syscall
def sendfile(task: "Task", out: Fd, source: Fd, offset: Pointer, count: Size) -> int:
    """sendfile(2): copy from a file that can be read at an offset to any other."""
    position = int.from_bytes(task.mem.read(offset, 8), "little", signed=True) if offset else None
    file = _for_reading(task, source)
    if position is not None and not file.positioned:
        raise GuestError(ESPIPE)
    target = _for_writing(task, out)
    if not file.positioned or file.inode.is_directory or (target.flags & O_APPEND and target.positioned):
        raise GuestError(EINVAL)
    if position is not None and position < 0:
        raise GuestError(EINVAL)
    done = copy_between(task, file, position, target, None, min(count, MAX_RW_COUNT))
    if position is not None:
        task.mem.write(offset, (position + done).to_bytes(8, "little"))
    return done


@syscall
def copy_file_range(
    task: "Task", source: Fd, source_offset: Pointer, out: Fd, out_offset: Pointer, count: Size, flags: Flags
) -> int:
    """copy_file_range(2): copy between regular files of one file system."""
    file, target = task.files.get(source), task.files.get(out)
    offsets = [
        int.from_bytes(task.mem.read(address, 8), "little", signed=True) if address else None
        for address in (source_offset, out_offset)
    ]
    if flags:
        raise GuestError(EINVAL)
    if file.inode.is_directory or target.inode.is_directory:
        raise GuestError(EISDIR)
    if not file.inode.is_regular or not target.inode.is_regular or not file.positioned:
        raise GuestError(EINVAL)
    if not file.readable or not target.writable or target.flags & O_APPEND:
        raise GuestError(EBADF)
    if file.inode.fs is not target.inode.fs:
        raise GuestError(EXDEV)
    start = file.position if offsets[0] is None else offsets[0]
    end = target.position if offsets[1] is None else offsets[1]
    if start < 0 or end < 0 or start + count > MAX_FILE_SIZE or end + count > MAX_FILE_SIZE:
        raise GuestError(EINVAL)
    count = min(count, max(file.inode.size - start, 0), MAX_RW_COUNT)
    if file.inode is target.inode and start < end + count and end < start + count:
        raise GuestError(EINVAL)
    done = copy_between(task, file, offsets[0], target, offsets[1], count)
    for address, before in ((source_offset, offsets[0]), (out_offset, offsets[1])):
        if before is not None:
            task.mem.write(address, (before + done).to_bytes(8, "little"))
    return done
