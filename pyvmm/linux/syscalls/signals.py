"""Signals: dispositions, masks, sending, and the way back from a handler."""

import struct
from errno import EAGAIN, EINTR, EINVAL, ENOMEM, EPERM, ESRCH
from typing import TYPE_CHECKING

from pyvmm.linux import sigframe
from pyvmm.linux.abi.signal import (
    MINSIGSTKSZ,
    NSIG,
    SI_TKILL,
    SI_USER,
    SIG_BLOCK,
    SIG_SETMASK,
    SIG_UNBLOCK,
    SIGKILL,
    SIGSTOP,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
)
from pyvmm.linux.errors import GuestError, RegistersSet
from pyvmm.linux.signals import UNBLOCKABLE, Action, SignalInfo, valid
from pyvmm.linux.syscalls.time import read_timespec
from pyvmm.linux.table import Int, Pointer, Size, UInt, syscall

if TYPE_CHECKING:
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
            signals.pending.pop(signo, None)
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
    sigframe.restore(task, task.kernel.registers)
    raise RegistersSet


@syscall
def rt_sigsuspend(task: "Task", mask: Pointer, size: Size) -> int:
    """rt_sigsuspend(2)."""
    wanted = _read_mask(task, mask, size) & ~UNBLOCKABLE
    signals = task.signals
    signals.saved_mask, signals.blocked = signals.blocked, wanted
    while not any(not signals.blocked & 1 << signo - 1 for signo in signals.pending):
        task.kernel.sleep_until(None)
    raise GuestError(EINTR)


@syscall
def rt_sigtimedwait(task: "Task", mask: Pointer, info: Pointer, timeout: Pointer, size: Size) -> int:
    """rt_sigtimedwait(2)."""
    wanted = _read_mask(task, mask, size) & ~UNBLOCKABLE
    deadline = None
    if timeout:
        deadline = task.kernel.clock.monotonic_ns() + read_timespec(task, timeout)
    while True:
        for signo in sorted(task.signals.pending):
            if wanted & 1 << signo - 1:
                taken = task.signals.pending.pop(signo)
                if info:
                    task.mem.write(info, sigframe.siginfo_bytes(taken))
                return signo
        if deadline is not None and task.kernel.clock.monotonic_ns() >= deadline:
            raise GuestError(EAGAIN)
        task.kernel.sleep_until(deadline)


@syscall
def sigaltstack(task: "Task", new: Pointer, old: Pointer) -> int:
    """sigaltstack(2)."""
    signals = task.signals
    active = not signals.stack_flags & SS_DISABLE and 0 <= task.cpu.rsp - signals.stack_address < signals.stack_size
    before = struct.pack(
        "<QI4xQ",
        signals.stack_address,
        signals.stack_flags | (SS_ONSTACK if active else 0),
        signals.stack_size,
    )
    if new:
        address, flags, size = struct.unpack("<QI4xQ", task.mem.read(new, 24))
        if active:
            raise GuestError(EPERM)
        if flags & ~SS_AUTODISARM not in (0, SS_ONSTACK, SS_DISABLE):
            raise GuestError(EINVAL)
        if flags & SS_DISABLE:
            signals.stack_address, signals.stack_size, signals.stack_flags = 0, 0, SS_DISABLE
        else:
            if size < MINSIGSTKSZ:
                raise GuestError(ENOMEM)
            signals.stack_address, signals.stack_size = address, size
            signals.stack_flags = flags & SS_AUTODISARM
    if old:
        task.mem.write(old, before)
    return 0


def _send(task: "Task", signo: int, code: int, value: int = 0) -> int:
    if signo and not valid(signo):
        raise GuestError(EINVAL)
    if signo:
        task.signals.send(signo, SignalInfo(signo, code, pid=task.pid, uid=task.creds.uid, value=value))
    return 0


@syscall
def kill(task: "Task", pid: Int, signo: Int) -> int:
    """kill(2).

    The sandbox has one process: 0, -pid and pid mean it, -1 means everybody else, of whom there is nobody.
    """
    if not 0 <= signo <= NSIG:
        raise GuestError(EINVAL)
    if pid in (0, task.pid, -task.pid):
        return _send(task, signo, SI_USER)
    if pid == 1:
        raise GuestError(EPERM)
    raise GuestError(ESRCH)


@syscall
def tkill(task: "Task", tid: Int, signo: Int) -> int:
    """tkill(2)."""
    if tid <= 0 or not 0 <= signo <= NSIG:
        raise GuestError(EINVAL)
    if tid != task.tid:
        raise GuestError(ESRCH)
    return _send(task, signo, SI_TKILL)


@syscall
def tgkill(task: "Task", pid: Int, tid: Int, signo: Int) -> int:
    """tgkill(2)."""
    if pid <= 0:
        raise GuestError(EINVAL)
    if pid != task.pid:
        raise GuestError(ESRCH)
    return tkill(task, tid, signo)


@syscall
def rt_sigqueueinfo(task: "Task", pid: Int, signo: UInt, info: Pointer) -> int:
    """rt_sigqueueinfo(2)."""
    code, sender, uid, value = struct.unpack("<8xi4xiIQ", task.mem.read(info, 32))
    if pid != task.pid:
        raise GuestError(ESRCH)
    if signo and not valid(signo):
        raise GuestError(EINVAL)
    if signo:
        task.signals.send(signo, SignalInfo(signo, code, pid=sender, uid=uid, value=value))
    return 0
