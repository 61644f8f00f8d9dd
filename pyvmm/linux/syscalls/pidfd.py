"""Processes as files: pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2)."""

from errno import EBADF, EINVAL, ENOENT, EPERM, ESRCH
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import O_NONBLOCK
from pyvmm.linux.abi.signal import SI_TKILL, SI_USER
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.pidfd import PidFile
from pyvmm.linux.signalling import send_to_process
from pyvmm.linux.signals import SignalInfo, valid
from pyvmm.linux.syscalls.signals import read_info
from pyvmm.linux.table import Fd, Flags, Int, Pointer, UInt, syscall
from pyvmm.linux.vfs.anonymous import EventInode
from pyvmm.linux.vfs.procfs.tree import TaskDirectory

if TYPE_CHECKING:
    from pyvmm.linux.process import Process
    from pyvmm.linux.task import Task

#: Whom a signal is for: thread, process, group.
_SIGNAL_FLAGS = (0, 1, 2, 4)
_PIDFD_SIGNAL_PROCESS_GROUP = 4


def pid_file(task: "Task", process: "Process", flags: int) -> PidFile:
    """A new file for ``process``."""
    kernel = task.kernel
    inode = EventInode(kernel.vfs.next_anonymous(), b"[pidfd]", kernel.clock.realtime_ns())
    return PidFile(inode, flags, process)


def process_behind(task: "Task", fd: int) -> PidFile:
    """The file that ``fd`` must refer to: EBADF for one of another kind too."""
    file = task.files.get(fd)
    if not isinstance(file, PidFile):
        raise GuestError(EBADF)
    return file


def _receiver(task: "Task", fd: int) -> "Process":
    """Whom ``fd`` stands for: a pidfd's process, or that of a directory ``/proc/<pid>`` (``tgid_pidfd_to_pid()``)."""
    inode = task.files.get(fd).inode
    if isinstance(inode, TaskDirectory) and inode.is_whole:
        return inode.process
    return process_behind(task, fd).process


@syscall
def pidfd_open(task: "Task", pid: Int, flags: Flags) -> int:
    """pidfd_open(2): a descriptor that stands for a process.

    PIDFD_THREAD is refused with EINVAL.
    """
    if flags & ~O_NONBLOCK or pid <= 0:
        raise GuestError(EINVAL)
    process = task.kernel.processes.get(pid)
    if process is None:
        raise GuestError(ENOENT if pid in task.kernel.tasks else ESRCH)
    return task.files.install(pid_file(task, process, flags), cloexec=True)


@syscall
def pidfd_send_signal(task: "Task", fd: Fd, signo: Int, info: Pointer, flags: Flags) -> int:
    """pidfd_send_signal(2).

    A signal for the thread goes to the process.
    """
    if flags not in _SIGNAL_FLAGS:
        raise GuestError(EINVAL)
    process = _receiver(task, fd)
    sent = SignalInfo(signo, SI_USER, pid=task.pid, uid=task.creds.uid)
    if info:
        number, sent = read_info(task, info)
        if number != signo:
            raise GuestError(EINVAL)
        if process is not task.process and (sent.code >= 0 or sent.code == SI_TKILL):
            raise GuestError(EPERM)
    if signo and not valid(signo):
        raise GuestError(EINVAL)
    if task.kernel.processes.get(process.pid) is not process:
        raise GuestError(ESRCH)
    others = [process]
    if flags == _PIDFD_SIGNAL_PROCESS_GROUP:
        others = [each for each in task.kernel.processes.values() if each.group == process.pid]
        if not others:
            raise GuestError(ESRCH)
    if signo:
        for each in others:
            send_to_process(each, sent)
    return 0


@syscall
def pidfd_getfd(task: "Task", fd: Fd, wanted: Fd, flags: UInt) -> int:
    """pidfd_getfd(2): a duplicate of another process's descriptor."""
    if flags:
        raise GuestError(EINVAL)
    process = process_behind(task, fd).process
    leader = process.leader
    if leader is None or process.is_zombie:
        raise GuestError(ESRCH)
    return task.files.install(leader.files.get_raw(wanted), cloexec=True)
