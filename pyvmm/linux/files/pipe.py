"""Pipes: pipe(2), and FIFOs, which are pipes with a name (fifo(7))."""

from collections import deque
from errno import EAGAIN, EBUSY, EINVAL, ENOMEM, ENOTTY, ENXIO, EPERM, EPIPE, ESPIPE
from typing import TYPE_CHECKING, Any, Self

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
DEFAULT_CAPACITY = 65536
_MAX_CAPACITY = 1 << 20
#: What is new for readers and writers.
_IN, _OUT = POLLIN | POLLRDNORM, POLLOUT | POLLWRNORM


def pipe_capacity(wanted: int) -> int:
    """The capacity of a pipe that is to hold ``wanted`` bytes: a power of two (EINVAL, EPERM)."""
    if wanted > 1 << 31:
        raise GuestError(EINVAL)
    capacity = PIPE_BUF
    while capacity < wanted:
        capacity <<= 1
    if capacity > _MAX_CAPACITY:
        raise GuestError(EPERM)
    return capacity


class Pipe:
    """The bytes in flight and who is at either end.

    As Linux's it has room for so many pages, not for so many bytes: what is written begins a page of its own unless it
    fits into the last one, and a page is free when all of it has been read.
    """

    __slots__ = (
        "_buffer",
        "_pages",
        "_quota",
        "capacity",
        "changed",
        "ever_read",
        "ever_written",
        "readers",
        "writers",
    )

    def __init__(self) -> None:
        self._buffer = bytearray()
        #: Of each page in use: where its bytes end, and how many are left.
        self._pages: deque[list[int]] = deque()
        self._quota: Quota | None = None
        self.capacity = DEFAULT_CAPACITY
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

    @property
    def is_full(self) -> bool:
        """Whether nothing can begin a new page (``pipe_full()``)."""
        return len(self._pages) >= self.capacity // PIPE_BUF

    @property
    def room(self) -> int:
        """Bytes that new pages can take."""
        return (self.capacity // PIPE_BUF - len(self._pages)) * PIPE_BUF

    def take(self, count: int) -> bytes:
        """Remove and give up to ``count`` bytes."""
        data = self.peek(count)
        del self._buffer[:count]
        was_full, left = self.is_full, len(data)
        while left:
            page = self._pages[0]
            taken = min(left, page[1])
            page[1] -= taken
            left -= taken
            if not page[1]:
                self._pages.popleft()
        if self._quota is not None:
            self._quota.take(-len(data))
        self.changed.wake(_OUT if was_full and not self.is_full else 0)
        return data

    def put_back(self, data: bytes) -> None:
        """Put ``data``, which was just taken, in front of everything else."""
        if not data:
            return
        if self._quota is not None:
            self._quota.take(len(data))
        self._buffer[:0] = data
        left = len(data)
        while left:
            page = min(left, PIPE_BUF)
            self._pages.appendleft([PIPE_BUF, page])
            left -= page
        self.changed.wake(_IN)

    def put(self, data: bytes | memoryview, quota: "Quota") -> int:
        """Append what there is room for; how much that was. What is in flight counts as a file's contents do."""
        self._quota = quota
        wanted = min(len(data), quota.bytes_free)
        if wanted < len(data) <= PIPE_BUF:
            return 0
        done, odd, pages = 0, wanted % PIPE_BUF, self._pages
        if odd and pages and pages[-1][0] + odd <= PIPE_BUF:
            pages[-1][0] += odd
            pages[-1][1] += odd
            done = odd
        while done < wanted and not self.is_full:
            page = min(wanted - done, PIPE_BUF)
            pages.append([page, page])
            done += page
        quota.take(done)
        self._buffer += data[:done]
        if done:
            self.changed.wake(_IN)
        return done

    def resize(self, wanted: int) -> int:
        """F_SETPIPE_SZ: the capacity afterwards."""
        capacity = pipe_capacity(wanted)
        if capacity // PIPE_BUF < len(self._pages):
            raise GuestError(EBUSY)
        self.capacity = capacity
        self.changed.wake(_OUT)
        return capacity

    def save(self) -> dict[str, Any]:
        """Plain data."""
        pages = [tuple(page) for page in self._pages]
        return {
            "data": bytes(self._buffer),
            "pages": pages,
            "capacity": self.capacity,
            "readers": self.readers,
            "writers": self.writers,
        }

    @classmethod
    def restore(cls, state: dict[str, Any], quota: "Quota") -> Self:
        """As :meth:`save` told. Its ends are counted already, and what is opened for them gives its own back."""
        pipe = cls()
        pipe._buffer += state["data"]
        pipe._pages.extend(list(page) for page in state["pages"])
        pipe._quota = quota
        pipe.capacity = state["capacity"]
        pipe.readers, pipe.writers = state["readers"], state["writers"]
        return pipe


class PipeFile(OpenFile):
    """An end of a pipe, or both (a FIFO opened O_RDWR)."""

    __slots__ = ("pipe",)

    kind = "pipe"

    def __init__(self, inode: "Inode", flags: int, pipe: Pipe) -> None:
        super().__init__(inode, flags)
        self.pipe = pipe
        if self.readable:
            pipe.readers += 1
            pipe.ever_read += 1
        if self.writable:
            pipe.writers += 1
            pipe.ever_written += 1

    def closed(self) -> None:
        """See :meth:`OpenFile.closed`."""
        pipe = self.pipe
        pipe.readers -= self.readable
        pipe.writers -= self.writable
        if not pipe.readers and not pipe.writers:
            pipe.take(len(pipe))
        elif not pipe.readers or not pipe.writers:
            pipe.changed.wake()

    def save(self) -> dict[str, Any]:
        """See :meth:`OpenFile.save`."""
        return super().save() | {"ino": self.inode.ino, "path": self.inode.path(), "pipe": self.pipe.save()}

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
        quota = task.kernel.vfs.store.quota
        done = pipe.put(data, quota)
        if done < len(data) and not pipe.is_full and quota.bytes_free < min(len(data) - done, PIPE_BUF):
            # The pipe would have room, but the sandbox has no memory: waiting for a reader would not help.
            if done:
                return done
            raise GuestError(ENOMEM)
        if done == len(data) or (done and (self.flags & O_NONBLOCK or task.signals.deliverable)):
            return done
        if self.flags & O_NONBLOCK:
            pipe.changed.wake(_IN)  # As Linux does, to no purpose but for edge-triggered waiters.
            raise GuestError(EAGAIN)
        task.wait(pipe.changed, progress=done)

    def pipe_size(self, wanted: int | None) -> int:
        """See :meth:`OpenFile.pipe_size`."""
        return self.pipe.capacity if wanted is None else self.pipe.resize(wanted)

    def queues(self) -> tuple[WaitQueue, ...]:
        """See :meth:`OpenFile.queues`."""
        return (self.pipe.changed,)

    def poll(self, task: "Task") -> int:
        """See :meth:`OpenFile.poll`."""
        pipe, mask = self.pipe, 0
        if self.readable:
            if len(pipe):
                mask |= _IN
            if not pipe.writers:
                mask |= POLLHUP
        if self.writable:
            if not pipe.is_full:
                mask |= _OUT
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
        pipe.changed.wake()
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
