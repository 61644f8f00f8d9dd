"""Signals: dispositions, masks, sending, and the way back from a handler."""

import struct
from errno import EAGAIN, EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING

from pyvmm.linux import sigframe
from pyvmm.linux.abi.signal import (
    NSIG,
    SI_TKILL,
    SI_USER,
    SIG_BLOCK,
    SIG_SETMASK,
    SIG_UNBLOCK,
    SIGKILL,
    SIGSTOP,
    SS_ONSTACK,
)
from pyvmm.linux.errors import GuestError, RegistersSet
from pyvmm.linux.signalling import send_to_process, send_to_thread
from pyvmm.linux.signals import UNBLOCKABLE, Action, SignalInfo, valid
from pyvmm.linux.syscalls.time import read_timespec
from pyvmm.linux.table import Int, Pointer, Size, syscall
from pyvmm.linux.wait import NO_RESTART, Blocked

if TYPE_CHECKING:
    from pyvmm.linux.process import Process
    from pyvmm.linux.task import Task

_SIGSET_SIZE = 8


def _read_mask(task: "Task", address: int, size: int) -> int:
    if size != _SIGSET_SIZE:
        raise GuestError(EINVAL)
    return task.mem.read_u64(address)


@syscall
def rt_sigaction(task: "Task", signo: Int, new: Pointer, old: Pointer, size: Size) -> int:
    """rt_sigaction(2)."""
    if size != _SIGSET_SIZE:
        raise GuestError(EINVAL)
    data = task.mem.read(new, 32) if new else b""
    if not valid(signo) or (new and signo in (SIGKILL, SIGSTOP)):
        raise GuestError(EINVAL)
    signals = task.signals
    before = signals.action(signo)
    if new:
        handler, flags, restorer, mask = struct.unpack("<QQQQ", data)
        signals.actions[signo] = Action(handler, flags, restorer, mask & ~UNBLOCKABLE)
        if signals.is_ignored(signo):
            mask = 1 << signo - 1
            signals.shared.pending.discard(mask)
            for thread in task.process.threads.values():
                thread.signals.pending.discard(mask)
    if old:
        task.mem.write(old, struct.pack("<QQQQ", *before))
    return 0


@syscall
def rt_sigprocmask(task: "Task", how: Int, new: Pointer, old: Pointer, size: Size) -> int:
    """rt_sigprocmask(2)."""
    if size != _SIGSET_SIZE:
        raise GuestError(EINVAL)
    signals = task.signals
    before = signals.blocked
    if new:
        mask = task.mem.read_u64(new) & ~UNBLOCKABLE
        if how == SIG_BLOCK:
            signals.blocked |= mask
        elif how == SIG_UNBLOCK:
            signals.blocked &= ~mask
        elif how == SIG_SETMASK:
            signals.blocked = mask
        else:
            raise GuestError(EINVAL)
    if old:
        task.mem.write_u64(old, before)
    return 0


@syscall
def rt_sigpending(task: "Task", mask: Pointer, size: Size) -> int:
    """rt_sigpending(2)."""
    if size > _SIGSET_SIZE:
        raise GuestError(EINVAL)
    task.mem.write(mask, (task.signals.pending_mask() & task.signals.blocked).to_bytes(8, "little")[:size])
    return 0


@syscall
def rt_sigreturn(task: "Task") -> int:
    """rt_sigreturn(2)."""
    sigframe.restore(task, task.kernel.registers.processor)
    raise RegistersSet


@syscall
def rt_sigsuspend(task: "Task", mask: Pointer, size: Size) -> int:
    """rt_sigsuspend(2)."""
    wanted = _read_mask(task, mask, size) & ~UNBLOCKABLE
    signals = task.signals
    if task.is_first_try:
        signals.saved_mask, signals.blocked = signals.blocked, wanted
    task.wait(restart=NO_RESTART)


@syscall
def rt_sigtimedwait(task: "Task", mask: Pointer, info: Pointer, timeout: Pointer, size: Size) -> int:
    """rt_sigtimedwait(2)."""
    wanted = _read_mask(task, mask, size) & ~UNBLOCKABLE
    until = task.deadline_after(read_timespec(task, timeout)) if timeout else None
    signals = task.signals
    if task.scratch is not None:
        signals.blocked, signals.really_blocked = task.scratch, 0
    taken = signals.take(wanted)
    if taken is not None:
        if info:
            task.mem.write(info, sigframe.siginfo_bytes(taken))
        return taken.signo
    if until is not None and task.kernel.clock.monotonic_ns() >= until:
        raise GuestError(EAGAIN)
    # While it waits, what it waits for is not blocked, so that whoever sends it finds this thread.
    task.scratch = signals.blocked
    try:
        task.wait(until=until, restart=NO_RESTART)
    except Blocked:
        signals.really_blocked = signals.blocked
        signals.blocked &= ~wanted
        raise


@syscall
def sigaltstack(task: "Task", new: Pointer, old: Pointer) -> int:
    """sigaltstack(2)."""
    signals = task.signals
    shown = SS_ONSTACK if signals.on_stack(task.cpu.rsp) else 0
    before = struct.pack("<QI4xQ", signals.stack_address, signals.stack_flags | shown, signals.stack_size)
    if new:
        address, flags, size = struct.unpack("<QI4xQ", task.mem.read(new, 24))
        signals.set_stack(task.cpu.rsp, address, flags, size)
    if old:
        task.mem.write(old, before)
    return 0


def _check_number(signo: int) -> None:
    if not 0 <= signo <= NSIG:
        raise GuestError(EINVAL)


def _from_user(task: "Task", signo: int, code: int) -> SignalInfo:
    return SignalInfo(signo, code, pid=task.pid, uid=task.creds.uid)


def _processes(task: "Task", pid: int) -> "list[Process]":
    """Whom kill(2) means by ``pid``: ESRCH if that is nobody."""
    everybody = task.kernel.processes
    if pid > 0:
        found = [everybody[pid]] if pid in everybody else []
    elif pid == -1:
        found = [process for process in everybody.values() if process is not task.process]
    else:
        group = -pid or task.process.group
        found = [process for process in everybody.values() if process.group == group]
    if not found:
        raise GuestError(ESRCH)
    return found


@syscall
def kill(task: "Task", pid: Int, signo: Int) -> int:
    """kill(2): process 1, which is not in the sandbox, is somebody else's."""
    _check_number(signo)
    if pid == 1:
        raise GuestError(EPERM)
    found = _processes(task, pid)
    if signo:
        for process in found:
            send_to_process(process, _from_user(task, signo, SI_USER))
    return 0


@syscall
def tkill(task: "Task", tid: Int, signo: Int) -> int:
    """tkill(2)."""
    return _to_thread(task, None, tid, signo)


@syscall
def tgkill(task: "Task", pid: Int, tid: Int, signo: Int) -> int:
    """tgkill(2)."""
    if pid <= 0:
        raise GuestError(EINVAL)
    return _to_thread(task, pid, tid, signo)


def _to_thread(task: "Task", pid: int | None, tid: int, signo: int) -> int:
    if tid <= 0:
        raise GuestError(EINVAL)
    _check_number(signo)
    thread = task.kernel.tasks.get(tid)
    if thread is None or (pid is not None and thread.pid != pid):
        raise GuestError(ESRCH)
    if signo and not send_to_thread(thread, _from_user(task, signo, SI_TKILL)):
        raise GuestError(EAGAIN)
    return 0


def read_info(task: "Task", address: int) -> tuple[int, SignalInfo]:
    """A ``siginfo_t`` of the program's: its signal, and what is to be told with it."""
    signo, code, sender, uid, value = struct.unpack("<i4xi4xiIQ", task.mem.read(address, 32))
    return signo, SignalInfo(signo, code, pid=sender, uid=uid, value=value)


def _read_info(task: "Task", pid: int, signo: int, address: int) -> SignalInfo:
    _, info = read_info(task, address)
    _check_number(signo)
    if (info.code >= 0 or info.code == SI_TKILL) and pid != task.pid:
        raise GuestError(EPERM)
    info.signo = signo
    return info


@syscall
def rt_sigqueueinfo(task: "Task", pid: Int, signo: Int, info: Pointer) -> int:
    """rt_sigqueueinfo(2)."""
    sent = _read_info(task, pid, signo, info)
    process = task.kernel.processes.get(pid)
    if process is None:
        raise GuestError(ESRCH)
    if signo and not send_to_process(process, sent):
        raise GuestError(EAGAIN)
    return 0


@syscall
def rt_tgsigqueueinfo(task: "Task", pid: Int, tid: Int, signo: Int, info: Pointer) -> int:
    """rt_tgsigqueueinfo(2)."""
    if pid <= 0 or tid <= 0:
        raise GuestError(EINVAL)
    sent = _read_info(task, pid, signo, info)
    thread = task.kernel.tasks.get(tid)
    if thread is None or thread.pid != pid:
        raise GuestError(ESRCH)
    if signo and not send_to_thread(thread, sent):
        raise GuestError(EAGAIN)
    return 0


@syscall
def pause(task: "Task") -> int:
    """pause(2)."""
    task.wait(restart=NO_RESTART)
