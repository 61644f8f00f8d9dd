"""The control descriptor: how the agent of a template gets the program that a fork is to run.

Reading it in a template freezes the guest; reading it in a fork gives the program. The agent writes ``ready`` when
its generators are fresh and closes the descriptor before it runs anything, so a program never has it, and there is
no path by which it could be opened.
"""

from errno import EINVAL
from typing import TYPE_CHECKING, Any

from pyvmm.linux.abi.fcntl import O_RDWR, SEEK_CUR, SEEK_SET
from pyvmm.linux.errors import Freeze, GuestError
from pyvmm.linux.files.base import OpenFile

if TYPE_CHECKING:
    from pyvmm.linux.kernel import Kernel
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs import Vfs

#: Nanoseconds until it is looked again whether other threads still run.
_REST = 1_000_000
#: The number that the agent knows it by.
CONTROL_FD = 3


class ControlFile(OpenFile):
    """The agent's end."""

    __slots__ = ()

    kind = "control"

    def read(self, task: "Task", count: int) -> bytes:
        """The next part of the program; in a template, which has none, the guest freezes before this very call, once
        all other threads have come to rest.
        """
        kernel = task.kernel
        program = kernel.program
        if program is None:
            if kernel.scheduler.others_run(task):
                task.wait(until=kernel.clock.monotonic_ns() + _REST)
            raise Freeze
        data = program[self.position : self.position + count]
        self.position += len(data)
        return data

    def seek(self, offset: int, whence: int) -> int:
        """From the start or from here: a shell reads what it can put back by the block, else byte for byte."""
        if whence == SEEK_CUR:
            offset += self.position
        elif whence != SEEK_SET:
            raise GuestError(EINVAL)
        if not 0 <= offset < 1 << 63:
            raise GuestError(EINVAL)
        self.position = offset
        return offset

    def write(self, task: "Task", data: bytes) -> int:
        """The agent says that the fork is fresh."""
        if data != b"ready" or task.kernel.program is None:
            raise GuestError(EINVAL)
        task.kernel.refreshed = True
        return len(data)


def restore_control(vfs: "Vfs", state: dict[str, Any]) -> OpenFile:
    """The control descriptor of a fork."""
    from pyvmm.linux.vfs.anonymous import EventInode

    return ControlFile(EventInode(vfs.next_anonymous(), b"[pyvmm]", vfs.clock.realtime_ns()), O_RDWR)


def install_control(kernel: "Kernel") -> None:
    """Give a template's program its control descriptor."""
    task = kernel.task
    task.files.install_at(CONTROL_FD, restore_control(kernel.vfs, {}))
