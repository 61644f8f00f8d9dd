"""Asking how a child ended: wait4(2), waitid(2)."""

import struct
from collections.abc import Callable
from errno import EAGAIN, ECHILD, EINVAL
from typing import TYPE_CHECKING

from pyvmm.linux.abi import sched
from pyvmm.linux.abi.fcntl import O_NONBLOCK
from pyvmm.linux.abi.signal import (
    CLD_CONTINUED,
    CLD_DUMPED,
    CLD_EXITED,
    CLD_KILLED,
    CLD_STOPPED,
    SIGCHLD,
    SIGCONT,
)
from pyvmm.linux.ending import reap
from pyvmm.linux.errors import GuestError
from pyvmm.linux.syscalls.pidfd import process_behind
from pyvmm.linux.table import Flags, Int, Pointer, syscall

if TYPE_CHECKING:
    from pyvmm.linux.process import Process
    from pyvmm.linux.task import Task

_WAIT4_OPTIONS = sched.WNOHANG | sched.WUNTRACED | sched.WCONTINUED | sched.WNOTHREAD | sched.WALL | sched.WCLONE
_WAITID_OPTIONS = _WAIT4_OPTIONS | sched.WEXITED | sched.WNOWAIT
_CONTINUED_STATUS = 0xFFFF


@syscall
def wait4(task: "Task", pid: Int, status: Pointer, options: Flags, usage: Pointer) -> int:
    """wait4(2)."""
    if options & ~_WAIT4_OPTIONS:
        raise GuestError(EINVAL)
    if pid == -(1 << 31):
        raise GuestError(ECHILD)
    wanted: Callable[[Process], bool]
    if pid == -1:
        wanted = _anybody
    elif pid > 0:
        wanted = _with_pid(pid)
    else:
        wanted = _in_group(-pid or task.process.group)
    found = _wait(task, wanted, options | sched.WEXITED)
    if found is None:
        return 0
    child, value = found
    if status:
        task.mem.write_u32(status, value)
    if usage:
        task.mem.write(usage, usage_of(child.cpu_ns() + child.children_cpu_ns))
    return child.pid


@syscall
def waitid(task: "Task", which: Int, pid: Int, info: Pointer, options: Flags, usage: Pointer) -> int:
    """waitid(2)."""
    kinds = sched.WEXITED | sched.WSTOPPED | sched.WCONTINUED
    if options & ~_WAITID_OPTIONS or not options & kinds:
        raise GuestError(EINVAL)
    wanted: Callable[[Process], bool]
    is_patient = True
    if which == sched.P_ALL:
        wanted = _anybody
    elif which == sched.P_PID and pid > 0:
        wanted = _with_pid(pid)
    elif which == sched.P_PGID and pid >= 0:
        wanted = _in_group(pid or task.process.group)
    elif which == sched.P_PIDFD and pid >= 0:
        file = process_behind(task, pid)
        wanted = _with_pid(0 if file.is_gone else file.process.pid)
        is_patient = not file.flags & O_NONBLOCK
    else:
        raise GuestError(EINVAL)
    found = _wait(task, wanted, options if is_patient else options | sched.WNOHANG)
    if found is None:
        if not is_patient and not options & sched.WNOHANG:
            raise GuestError(EAGAIN)
        if info:
            task.mem.write(info, bytes(128))
        return 0
    child, value = found
    uid = task.creds.uid
    if info:
        task.mem.write(info, struct.pack("<iii4xiIi", SIGCHLD, 0, *_code(value, child.pid, uid)).ljust(128, b"\0"))
    if usage:
        task.mem.write(usage, usage_of(child.cpu_ns() + child.children_cpu_ns))
    return 0


def _code(value: int, pid: int, uid: int) -> tuple[int, int, int, int]:
    """si_code, si_pid, si_uid, si_status."""
    if value == _CONTINUED_STATUS:
        return CLD_CONTINUED, pid, uid, SIGCONT
    if value & 0xFF == 0x7F:
        return CLD_STOPPED, pid, uid, value >> 8
    if value & 0x7F:
        return CLD_DUMPED if value & 0x80 else CLD_KILLED, pid, uid, value & 0x7F
    return CLD_EXITED, pid, uid, value >> 8


def usage_of(cpu_ns: int, resident_kib: int = 0) -> bytes:
    """``struct rusage``: all processor time counted as user time."""
    seconds, nanoseconds = divmod(cpu_ns, 1_000_000_000)
    return struct.pack("<18q", seconds, nanoseconds // 1000, 0, 0, resident_kib, *[0] * 13)


def _anybody(child: "Process") -> bool:
    return True


def _with_pid(pid: int) -> "Callable[[Process], bool]":
    return lambda child: child.pid == pid


def _in_group(group: int) -> "Callable[[Process], bool]":
    return lambda child: child.group == group


def _wait(task: "Task", wanted: "Callable[[Process], bool]", options: int) -> "tuple[Process, int] | None":
    """A child that has something to tell, and its wait status; None if WNOHANG and none has."""
    process = task.process
    children = [child for child in process.children.values() if wanted(child) and _is_kind(child, options)]
    if not children:
        raise GuestError(ECHILD)
    keep = bool(options & sched.WNOWAIT)
    for child in children:
        if child.status is not None:
            if options & sched.WEXITED:
                if not keep:
                    reap(child)
                return child, child.status
        elif child.untold == "stopped" and child.stopped and options & sched.WUNTRACED:
            if not keep:
                child.untold = ""
            return child, child.stopped << 8 | 0x7F
        elif child.untold == "continued" and options & sched.WCONTINUED:
            if not keep:
                child.untold = ""
            return child, _CONTINUED_STATUS
    if options & sched.WNOHANG:
        return None
    task.wait(process.child_changed)


def _is_kind(child: "Process", options: int) -> bool:
    """__WALL: every child; __WCLONE: those whose end is told by another signal than SIGCHLD; else the others."""
    if options & sched.WALL:
        return True
    return (child.exit_signal != SIGCHLD) == bool(options & sched.WCLONE)
