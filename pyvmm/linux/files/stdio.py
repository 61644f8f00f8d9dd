"""Standard input, output and error.

They look like pipes, whose other ends the host has: what is written to descriptors 1 and 2 (or to whatever was
duplicated from them, or opened as ``/dev/stdout``) goes to the kernel's two collectors at once, and standard input
gives the bytes that the host handed in, then end of file.
"""

from errno import ENOTTY, ESPIPE
from typing import TYPE_CHECKING, Any

from pyvmm.linux.abi.fcntl import O_RDONLY, O_WRONLY
from pyvmm.linux.abi.ioctls import FIONREAD
from pyvmm.linux.abi.poll import POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.files.pipe import pipe_capacity

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.anonymous import StdioInode


class _Stream(OpenFile):
    __slots__ = ("stream",)

    def __init__(self, inode: "StdioInode", flags: int) -> None:
        super().__init__(inode, flags)
        self.stream = inode

    def ioctl(self, task: "Task", request: int, argument: int) -> int:
        """``pipe_ioctl``."""
        if request != FIONREAD:
            raise GuestError(ENOTTY)
        waiting = 0 if self.stream.number else len(task.kernel.stdin) - self.stream.consumed
        task.mem.write(argument, max(waiting, 0).to_bytes(4, "little"))
        return 0

    def pipe_size(self, wanted: int | None) -> int:
        """See :meth:`OpenFile.pipe_size`; its other end is never too slow for it to matter."""
        if wanted is not None:
            self.stream.capacity = pipe_capacity(wanted)
        return self.stream.capacity

    def allocate(self, task: "Task", mode: int, offset: int, count: int) -> None:
        """``vfs_fallocate()``: ESPIPE."""
        raise GuestError(ESPIPE)


class StandardInput(_Stream):
    """The read end of a pipe whose writer has written everything and gone."""

    __slots__ = ()

    kind = "stdin"

    def __init__(self, inode: "StdioInode", flags: int = O_RDONLY) -> None:
        super().__init__(inode, flags)

    def save(self) -> dict[str, Any]:
        """See :meth:`OpenFile.save`."""
        return super().save() | {"consumed": self.stream.consumed}

    def read(self, task: "Task", count: int) -> bytes:
        """See :meth:`OpenFile.read`."""
        start = self.stream.consumed
        data = bytes(task.kernel.stdin[start : start + count])
        self.stream.consumed = start + len(data)
        return data

    def unread(self, data: bytes) -> None:
        """See :meth:`OpenFile.unread`."""
        self.stream.consumed -= len(data)

    def poll(self, task: "Task") -> int:
        """See :meth:`OpenFile.poll`."""
        return POLLHUP | (POLLIN | POLLRDNORM if self.stream.consumed < len(task.kernel.stdin) else 0)


class StandardOutput(_Stream):
    """The write end of a pipe whose reader is always quick enough."""

    __slots__ = ()

    kind = "stdout"

    def __init__(self, inode: "StdioInode", flags: int = O_WRONLY) -> None:
        super().__init__(inode, flags)

    def write(self, task: "Task", data: bytes) -> int:
        """See :meth:`OpenFile.write`."""
        task.kernel.stdout.write(data)
        return len(data)

    def poll(self, task: "Task") -> int:
        """See :meth:`OpenFile.poll`."""
        return POLLOUT | POLLWRNORM


class StandardError(StandardOutput):
    """As standard output, collected apart."""

    __slots__ = ()

    kind = "stderr"

    def write(self, task: "Task", data: bytes) -> int:
        """See :meth:`OpenFile.write`."""
        task.kernel.stderr.write(data)
        return len(data)
