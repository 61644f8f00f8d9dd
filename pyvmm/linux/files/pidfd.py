"""pidfd_open(2): a process as a file (``fs/pidfs.c``)."""

from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import O_NONBLOCK, O_RDWR
from pyvmm.linux.abi.poll import POLLHUP, POLLIN, POLLRDNORM
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.wait import WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.process import Process
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode


class PidFile(OpenFile):
    """A process: ready to be read when it has ended, though there is nothing to be read."""

    __slots__ = ("process",)

    def __init__(self, inode: "Inode", flags: int, process: "Process") -> None:
        super().__init__(inode, O_RDWR | flags & O_NONBLOCK)
        self.process = process

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended and somebody has asked how."""
        process = self.process
        return process.kernel.processes.get(process.pid) is not process

    def poll(self, task: "Task") -> int:
        """``pidfd_poll``."""
        if self.is_gone:
            return POLLIN | POLLRDNORM | POLLHUP
        return POLLIN | POLLRDNORM if self.process.is_zombie else 0

    def queues(self) -> tuple[WaitQueue, ...]:
        """See :meth:`OpenFile.queues`."""
        return (self.process.ended,)
