"""Process groups and sessions (credentials(7)): setpgid(2), setsid(2) and their like."""

from errno import EACCES, EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING

from pyvmm.linux.errors import GuestError
from pyvmm.linux.table import Int, syscall

if TYPE_CHECKING:
    from pyvmm.linux.process import Process
    from pyvmm.linux.task import Task


def process_of(task: "Task", pid: int) -> "Process":
    """The process of that number (0: the caller's); ESRCH."""
    process = task.kernel.processes.get(pid) if pid else task.process
    if process is None:
        raise GuestError(ESRCH)
    return process


@syscall
def getpgid(task: "Task", pid: Int) -> int:
    """getpgid(2)."""
    return process_of(task, pid).group


@syscall
def getpgrp(task: "Task") -> int:
    """getpgrp(2)."""
    return task.process.group


@syscall
def getsid(task: "Task", pid: Int) -> int:
    """getsid(2)."""
    return process_of(task, pid).session


@syscall
def setpgid(task: "Task", pid: Int, group: Int) -> int:
    """setpgid(2): for oneself, or for a child that has not executed a program yet."""
    if (group or pid) < 0:
        raise GuestError(EINVAL)
    process = process_of(task, pid)
    if process is not task.process:
        if process.parent is not task.process:
            raise GuestError(ESRCH)
        if process.session != task.process.session:
            raise GuestError(EPERM)
        if process.executed:
            raise GuestError(EACCES)
    if process.session == process.pid:
        raise GuestError(EPERM)
    group = group or process.pid
    if group != process.pid and not any(
        other.group == group and other.session == process.session for other in task.kernel.processes.values()
    ):
        raise GuestError(EPERM)
    process.group = group
    return 0


@syscall
def setsid(task: "Task") -> int:
    """setsid(2): unless the process leads a group already."""
    process = task.process
    if any(other.group == process.pid for other in task.kernel.processes.values()):
        raise GuestError(EPERM)
    process.group = process.session = process.pid
    process.terminal = None
    return process.pid
