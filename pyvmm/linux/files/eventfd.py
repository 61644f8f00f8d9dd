"""eventfd(2): a counter that can be waited for."""

import struct
from errno import EAGAIN, EINVAL, ENOTTY
from typing import TYPE_CHECKING, Any

from pyvmm.linux.abi.fcntl import EFD_SEMAPHORE, O_NONBLOCK, O_RDWR
from pyvmm.linux.abi.poll import POLLERR, POLLIN, POLLOUT
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.wait import WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode

_U64 = struct.Struct("<Q")
_MAX = (1 << 64) - 1


class EventFile(OpenFile):
    """A 64-bit counter."""

    __slots__ = ("changed", "counter", "semaphore")

    kind = "eventfd"

    def __init__(self, inode: "Inode", flags: int, counter: int) -> None:
        super().__init__(inode, O_RDWR | flags & O_NONBLOCK)
        self.counter = counter
        self.changed = WaitQueue()
        self.semaphore = bool(flags & EFD_SEMAPHORE)

    def read(self, task: "Task", count: int) -> bytes:
        """``eventfd_read``."""
        if count < 8:
            raise GuestError(EINVAL)
        if not self.counter:
            if self.flags & O_NONBLOCK:
                raise GuestError(EAGAIN)
            task.wait(self.changed)
        value = 1 if self.semaphore else self.counter
        self.counter -= value
        self.changed.wake(POLLOUT)
        return _U64.pack(value)

    def write(self, task: "Task", data: bytes) -> int:
        """``eventfd_write``."""
        if len(data) < 8:
            raise GuestError(EINVAL)
        (value,) = _U64.unpack_from(data)
        if value == _MAX:
            raise GuestError(EINVAL)
        if self.counter + value >= _MAX:
            if self.flags & O_NONBLOCK:
                raise GuestError(EAGAIN)
            task.wait(self.changed)
        self.counter += value
        self.changed.wake(POLLIN)
        return 8

    def save(self) -> dict[str, Any]:
        """See :meth:`OpenFile.save`."""
        return super().save() | {"counter": self.counter, "semaphore": self.semaphore}

    def queues(self) -> tuple[WaitQueue, ...]:
        """See :meth:`OpenFile.queues`."""
        return (self.changed,)

    def poll(self, task: "Task") -> int:
        """``eventfd_poll``."""
        mask = POLLIN if self.counter else 0
        if self.counter < _MAX - 1:
            mask |= POLLOUT
        return mask if self.counter < _MAX else mask | POLLERR

    def ioctl(self, task: "Task", request: int, argument: int) -> int:
        """NULL ``unlocked_ioctl``."""
        raise GuestError(ENOTTY)

    def seek(self, offset: int, whence: int) -> int:
        """``noop_llseek``."""
        return self.position
