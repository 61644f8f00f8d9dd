"""Pipes: pipe(2), and FIFOs, which are pipes with a name (fifo(7))."""

from errno import EAGAIN, EBUSY, EINVAL, ENOTTY, ENXIO, EPERM, EPIPE, ESPIPE
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import O_ACCMODE, O_NONBLOCK, O_RDONLY, O_RDWR
from pyvmm.linux.abi.ioctls import FIONREAD
from pyvmm.linux.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from pyvmm.linux.abi.signal import SIGPIPE
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.wait import WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode
    from pyvmm.linux.vfs.quota import Quota

#: A write of at most so many bytes is never mixed with another's.
PIPE_BUF = 4096
_DEFAULT_CAPACITY = 65536
_MAX_CAPACITY = 1 << 20


class Pipe:
    """The bytes in flight and who is at either end."""

    __slots__ = ("_buffer", "_quota", "capacity", "changed", "ever_read", "ever_written", "readers", "writers")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._quota: Quota | None = None
        self.capacity = _DEFAULT_CAPACITY
        self.readers = self.writers = 0
        #: Woken at every change: bytes come or go, an end is opened or closed.
        self.changed = WaitQueue()
        #: How often either end was opened: what an open of a FIFO waits for.
        self.ever_read = self.ever_written = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def peek(self, count: int) -> bytes:
        """Up to ``count`` bytes, which stay."""
        return bytes(memoryview(self._buffer)[:count])

    def take(self, count: int) -> bytes:
        """Remove and give up to ``count`` bytes."""
        data = self.peek(count)
        del self._buffer[:count]
        self.changed.wake()
        if self._quota is not None:
            self._quota.take(-len(data))
        return data

    def put_back(self, data: bytes) -> None:
        """Put ``data``, which was just taken, in front of everything else."""
        if self._quota is not None:
            self._quota.take(len(data))
        self._buffer[:0] = data
        self.changed.wake()

    def put(self, data: bytes | memoryview, quota: "Quota") -> int:
        """Append what there is room for; how much that was. What is in flight counts as a file's contents do."""
        self._quota = quota
        count = min(len(data), self.capacity - len(self._buffer), quota.bytes_free)
        quota.take(count)
        self._buffer += data[:count]
        if count:
            self.changed.wake()
        return count

    def resize(self, wanted: int) -> int:
        """F_SETPIPE_SZ: the capacity afterwards, a power of two."""
        if wanted > 1 << 31:
            raise GuestError(EINVAL)
        capacity = 4096
        while capacity < wanted:
            capacity <<= 1
        if capacity > _MAX_CAPACITY:
            raise GuestError(EPERM)
        if capacity < len(self._buffer):
            raise GuestError(EBUSY)
        self.capacity = capacity
        self.changed.wake()
        return capacity


class PipeFile(OpenFile):
    """An end of a pipe, or both (a FIFO opened O_RDWR)."""

    __slots__ = ("pipe",)

    def __init__(self, inode: "Inode", flags: int, pipe: Pipe) -> None:
        super().__init__(inode, flags)
        self.pipe = pipe
        if self.readable:
            pipe.readers += 1
            pipe.ever_read += 1
        if self.writable:
            pipe.writers += 1
            pipe.ever_written += 1
        pipe.changed.wake()

    def closed(self) -> None:
        """See :meth:`OpenFile.closed`."""
        self.pipe.readers -= self.readable
        self.pipe.writers -= self.writable
        if not self.pipe.readers and not self.pipe.writers:
            self.pipe.take(len(self.pipe))
        self.pipe.changed.wake()

    def read(self, task: "Task", count: int) -> bytes:
        """See :meth:`OpenFile.read`."""
        pipe = self.pipe
        if not len(pipe):
            if not pipe.writers or not count:
                return b""
            if self.flags & O_NONBLOCK:
                raise GuestError(EAGAIN)
            task.wait(pipe.changed)
        return pipe.take(count)

    def unread(self, data: bytes) -> None:
        """See :meth:`OpenFile.unread`."""
        self.pipe.put_back(data)

    def write(self, task: "Task", data: bytes) -> int:
        """See :meth:`OpenFile.write`."""
        pipe = self.pipe
        if not data:
            return 0
        if not pipe.readers:
            task.send_signal(SIGPIPE)
            raise GuestError(EPIPE)
        done = 0
        room = pipe.capacity - len(pipe)
        if room and (len(data) > PIPE_BUF or room >= len(data)):
            done = pipe.put(data, task.kernel.vfs.store.quota)
        if done == len(data) or (done and (self.flags & O_NONBLOCK or task.signals.deliverable)):
            return done
        if self.flags & O_NONBLOCK:
            raise GuestError(EAGAIN)
        task.wait(pipe.changed, progress=done)

    def queues(self) -> tuple[WaitQueue, ...]:
        """See :meth:`OpenFile.queues`."""
        return (self.pipe.changed,)

    def poll(self, task: "Task") -> int:
        """See :meth:`OpenFile.poll`."""
        pipe, mask = self.pipe, 0
        if self.readable:
            if len(pipe):
                mask |= POLLIN | POLLRDNORM
            if not pipe.writers:
                mask |= POLLHUP
        if self.writable:
            if len(pipe) < pipe.capacity:
                mask |= POLLOUT | POLLWRNORM
            if not pipe.readers:
                mask |= POLLERR
        return mask

    def ioctl(self, task: "Task", request: int, argument: int) -> int:
        """See :meth:`OpenFile.ioctl`."""
        if request != FIONREAD:
            raise GuestError(ENOTTY)
        task.mem.write(argument, len(self.pipe).to_bytes(4, "little"))
        return 0

    def allocate(self, task: "Task", mode: int, offset: int, count: int) -> None:
        """``vfs_fallocate()``: ESPIPE."""
        raise GuestError(ESPIPE)


def open_fifo(task: "Task", inode: "Inode", pipe: Pipe, flags: int) -> PipeFile:
    """Open a FIFO: each end waits for the other, but with O_NONBLOCK (then ENXIO for a writer without readers)."""
    mode = flags & O_ACCMODE
    if mode not in (O_RDONLY, O_RDWR) and flags & O_NONBLOCK and not pipe.readers:
        raise GuestError(ENXIO)
    if task.scratch is None:
        file = PipeFile(inode, flags, pipe)
        if mode == O_RDWR or flags & O_NONBLOCK:
            return file
        task.scratch = (file, pipe.ever_written if file.readable else pipe.ever_read)
    file, seen = task.scratch
    try:
        if file.readable:
            if not pipe.writers and pipe.ever_written == seen:
                task.wait(pipe.changed)
        elif not pipe.readers and pipe.ever_read == seen:
            task.wait(pipe.changed)
    except GuestError:
        task.scratch = None
        file.release()
        raise
    assert isinstance(file, PipeFile)
    return file
