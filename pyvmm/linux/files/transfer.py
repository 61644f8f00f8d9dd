"""Moving bytes between open files and a program's memory.

All transfers go in steps of at most :data:`STEP` bytes, so that nothing is allocated in proportion to a number that the
program gave. When the memory ends before the data does, what lies before the fault counts; EFAULT is for a transfer
that moved nothing.
"""

from errno import EFAULT, EINVAL
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import IOV_MAX, MAX_RW_COUNT
from pyvmm.linux.abi.uio import IOVEC
from pyvmm.linux.errors import GuestError
from pyvmm.linux.layout import TASK_SIZE
from pyvmm.linux.wait import Blocked

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.task import Task

STEP = 1 << 18

#: (address, length) of each piece of a buffer.
Vector = list[tuple[int, int]]


def buffer_at(address: int, count: int) -> Vector:
    """One buffer; EFAULT if it does not lie in the program's part of the address space."""
    if address + count > TASK_SIZE:
        raise GuestError(EFAULT)
    return [(address, min(count, MAX_RW_COUNT))]


def read_vector(task: "Task", address: int, count: int) -> Vector:
    """The pieces that ``count`` iovecs at ``address`` describe (``import_iovec()``): EINVAL, EFAULT."""
    if not 0 <= count <= IOV_MAX:
        raise GuestError(EINVAL)
    vector, total = [], 0
    for base, length in IOVEC.iter_unpack(task.mem.read(address, count * IOVEC.size)):
        if length >> 63:
            raise GuestError(EINVAL)
        if base + length > TASK_SIZE:
            raise GuestError(EFAULT)
        length = min(length, MAX_RW_COUNT - total)
        total += length
        vector.append((base, length))
    return vector


def read_into(task: "Task", file: "OpenFile", vector: Vector, offset: int | None = None) -> int:
    """Read from the position (or at ``offset``) into memory; how much was."""
    done, wanted = 0, sum(length for _, length in vector)
    try:
        while True:
            task.kernel.check()
            count = min(wanted - done, STEP)
            data = file.read(task, count) if offset is None else file.pread(task, offset + done, count)
            delivered = scatter(task, data, vector, done)
            if delivered < len(data):
                if offset is None:
                    file.unread(data[delivered:])
                if not done and not delivered:
                    raise GuestError(EFAULT)
                return done + delivered
            done += delivered
            if done == wanted or delivered < count or not file.in_steps:
                return done
    except GuestError:
        if not done:
            raise
        return done


def scatter(task: "Task", data: bytes, vector: Vector, skip: int) -> int:
    """Put ``data`` into the pieces of ``vector`` after the first ``skip`` bytes; how much of it could be."""
    done = 0
    for address, length in vector:
        if skip >= length:
            skip -= length
            continue
        part = data[done : done + length - skip]
        if not part:
            break
        stored = store(task, address + skip, part)
        done += stored
        skip = 0
        if stored < len(part):
            break
    return done


def store(task: "Task", address: int, data: bytes) -> int:
    """Write to memory what can be written; how much that was."""
    try:
        task.mem.write(address, data)
        return len(data)
    except GuestError:
        count = task.mem.writable(address, len(data))
        task.mem.write(address, data[:count])
        return count


def write_from(task: "Task", file: "OpenFile", vector: Vector, offset: int | None = None) -> int:
    """Write from memory at the position (or at ``offset``), after what the same call has written before it had to
    wait; how much was.
    """
    before = task.progress
    done, wanted = before, sum(length for _, length in vector)
    try:
        while True:
            task.kernel.check()
            count = min(wanted - done, STEP)
            data = gather(task, vector, done, count)
            if count and not data:
                raise GuestError(EFAULT)
            written = file.write(task, data) if offset is None else file.pwrite(task, offset + done, data)
            done += written
            if done == wanted or written < count:
                return done
    except GuestError:
        if not done:
            raise
        return done
    except Blocked as wait:
        wait.progress += done - before
        raise


def gather(task: "Task", vector: Vector, skip: int, count: int) -> bytes:
    """Up to ``count`` bytes out of the pieces of ``vector`` after the first ``skip`` bytes, ending before what cannot
    be read.
    """
    parts = []
    for address, length in vector:
        if skip >= length:
            skip -= length
            continue
        wanted = min(length - skip, count)
        part = load(task, address + skip, wanted)
        parts.append(part)
        count -= wanted
        skip = 0
        if len(part) < wanted or not count:
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)


def load(task: "Task", address: int, count: int) -> bytes:
    """Read from memory what can be read of ``count`` bytes."""
    try:
        return task.mem.read(address, count)
    except GuestError:
        return task.mem.read(address, task.mem.readable(address, count))


def copy_between(
    task: "Task", source: "OpenFile", offset: int | None, target: "OpenFile", target_offset: int | None, count: int
) -> int:
    """Copy in steps, from and to the positions where no offset is given; how much was."""
    done = 0
    while done < count:
        task.kernel.check()
        wanted = min(count - done, STEP)
        written, waits = 0, False
        try:
            data = source.read(task, wanted) if offset is None else source.pread(task, offset + done, wanted)
            if not data:
                break
            try:
                if target_offset is None:
                    written = target.write(task, data)
                else:
                    written = target.pwrite(task, target_offset + done, data)
            except Blocked as wait:
                written, waits = wait.progress, True
                if not done and not written:
                    raise
            finally:
                if offset is None and written < len(data):
                    source.unread(data[written:])
        except GuestError:
            if not done:
                raise
            break
        done += written
        if waits or written < wanted:
            break
    return done
