"""Moving what is in pipes without a program's memory in between: splice(2), tee(2); and with it: vmsplice(2)."""

from errno import EAGAIN, EBADF, EFAULT, EINVAL, EPIPE, ESPIPE
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import IOV_MAX, O_APPEND, O_NONBLOCK
from pyvmm.linux.abi.signal import SIGPIPE
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.pipe import PipeFile
from pyvmm.linux.files.transfer import STEP, copy_between, gather, read_vector, scatter
from pyvmm.linux.table import Fd, Flags, Pointer, Size, ULong, syscall

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.task import Task

#: linux/splice.h.
SPLICE_F_NONBLOCK, SPLICE_F_ALL = 2, 15


@syscall
def splice(
    task: "Task", source: Fd, source_offset: Pointer, out: Fd, out_offset: Pointer, count: Size, flags: Flags
) -> int:
    """splice(2): move between a pipe and any other file, or between two pipes."""
    if not count:
        return 0
    if flags & ~SPLICE_F_ALL:
        raise GuestError(EINVAL)
    file, target = task.files.get(source), task.files.get(out)
    from_pipe, to_pipe = isinstance(file, PipeFile), isinstance(target, PipeFile)
    if (from_pipe and source_offset) or (to_pipe and out_offset):
        raise GuestError(ESPIPE)
    offsets = [
        int.from_bytes(task.mem.read(address, 8), "little", signed=True) if address else None
        for address in (out_offset, source_offset)
    ]
    if not file.readable or not target.writable:
        raise GuestError(EBADF)
    _check(file, target, source_offset, out_offset, offsets)
    count = min(count, STEP)
    if isinstance(file, PipeFile):
        if isinstance(target, PipeFile):
            count = min(count, _available(task, file, flags), _room(task, target, flags))
        else:
            count = min(count, _available(task, file, flags))
    else:
        assert isinstance(target, PipeFile)
        count = min(count, _room(task, target, flags))
    done = copy_between(task, file, offsets[1], target, offsets[0], count) if count else 0
    for address, before in zip((out_offset, source_offset), offsets, strict=True):
        if before is not None:
            task.mem.write(address, (before + done).to_bytes(8, "little"))
    return done


def _check(
    file: "OpenFile", target: "OpenFile", source_offset: int, out_offset: int, offsets: list[int | None]
) -> None:
    """What ``do_splice()`` refuses."""
    pipes = [each.pipe for each in (file, target) if isinstance(each, PipeFile)]
    if not pipes or (len(pipes) == 2 and pipes[0] is pipes[1]):
        raise GuestError(EINVAL)
    if (source_offset and not file.positioned) or (out_offset and not target.positioned):
        raise GuestError(EINVAL)
    if any(offset is not None and offset < 0 for offset in offsets):
        raise GuestError(EINVAL)
    if len(pipes) < 2 and ((target.flags & O_APPEND and target.positioned) or file.inode.is_directory):
        raise GuestError(EINVAL)


def _available(task: "Task", file: PipeFile, flags: int, heeds_file: bool = True) -> int:
    """How much is in a pipe; 0: nothing, and nobody can write any more. ``heeds_file``: its O_NONBLOCK counts too."""
    pipe = file.pipe
    if not len(pipe) and pipe.writers:
        if flags & SPLICE_F_NONBLOCK or (heeds_file and file.flags & O_NONBLOCK):
            raise GuestError(EAGAIN)
        task.wait(pipe.changed)
    return len(pipe)


def _room(task: "Task", target: PipeFile, flags: int, heeds_file: bool = True) -> int:
    """How much a pipe can take."""
    pipe = target.pipe
    if not pipe.readers:
        task.send_signal(SIGPIPE)
        raise GuestError(EPIPE)
    if pipe.is_full:
        if flags & SPLICE_F_NONBLOCK or (heeds_file and target.flags & O_NONBLOCK):
            raise GuestError(EAGAIN)
        task.wait(pipe.changed)
    return pipe.room


@syscall
def tee(task: "Task", source: Fd, out: Fd, count: Size, flags: Flags) -> int:
    """tee(2): copy what is in a pipe into another, without taking it."""
    if flags & ~SPLICE_F_ALL:
        raise GuestError(EINVAL)
    if not count:
        return 0
    file, target = task.files.get(source), task.files.get(out)
    if not file.readable or not target.writable:
        raise GuestError(EBADF)
    if not isinstance(file, PipeFile) or not isinstance(target, PipeFile) or file.pipe is target.pipe:
        raise GuestError(EINVAL)
    count = min(count, STEP, _available(task, file, flags))
    if not count:
        return 0
    count = min(count, _room(task, target, flags))
    return target.pipe.put(file.pipe.peek(count), task.kernel.vfs.store.quota)


@syscall
def vmsplice(task: "Task", fd: Fd, vector: Pointer, count: ULong, flags: Flags) -> int:
    """vmsplice(2).

    The memory is copied into the pipe, so what is written to it later is not seen there.
    """
    if flags & ~SPLICE_F_ALL:
        raise GuestError(EINVAL)
    file = task.files.get(fd)
    if not file.readable and not file.writable:
        raise GuestError(EBADF)
    if count > IOV_MAX:
        raise GuestError(EINVAL)
    pieces = read_vector(task, vector, count)
    wanted = sum(length for _, length in pieces)
    if not wanted:
        return 0
    if not isinstance(file, PipeFile):
        raise GuestError(EBADF)
    pipe = file.pipe
    if not file.writable:
        data = pipe.peek(min(wanted, STEP, _available(task, file, flags, False)))
        if scatter(task, data, pieces, 0) < len(data):
            raise GuestError(EFAULT)
        pipe.take(len(data))
        return len(data)
    data = gather(task, pieces, 0, min(wanted, _room(task, file, flags, False)))
    if not data:
        raise GuestError(EFAULT)
    return pipe.put(data, task.kernel.vfs.store.quota)
