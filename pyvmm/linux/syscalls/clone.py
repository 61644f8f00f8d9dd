"""New threads and processes: clone(2), clone3(2), fork(2), vfork(2)."""

import struct
from dataclasses import replace
from errno import E2BIG, EAGAIN, EINVAL, ENOMEM, ENOSYS, EPERM
from typing import TYPE_CHECKING, NamedTuple

from pyvmm.linux.abi import sched
from pyvmm.linux.abi.signal import NSIG, SIG_IGN, SIGCHLD, SIGKILL
from pyvmm.linux.ending import TASK_COST
from pyvmm.linux.errors import GuestError
from pyvmm.linux.layout import TASK_SIZE
from pyvmm.linux.limits import RLIMIT_NPROC
from pyvmm.linux.process import Process
from pyvmm.linux.signals import SharedSignals, SignalState
from pyvmm.linux.syscalls.pidfd import pid_file
from pyvmm.linux.table import LongFlags, Pointer, Size, ULong, syscall
from pyvmm.linux.task import Task
from pyvmm.linux.usermem import UserMemory
from pyvmm.linux.wait import NO_RESTART, Blocked, Interrupted, WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.kernel import Kernel
    from pyvmm.linux.mm import AddressSpace

#: ``struct clone_args``: flags pidfd child_tid parent_tid exit_signal stack stack_size tls | set_tid set_tid_size
#: | cgroup; the first 64 bytes are version 0.
_CLONE_ARGS = struct.Struct("<11Q")
_CLONE_ARGS_SIZE_VER0 = 64
_PAGE = 4096


class _Request(NamedTuple):
    """What is asked for, in one form for all calls (``struct kernel_clone_args``)."""

    flags: int
    exit_signal: int = 0
    #: Where the child's stack pointer begins; 0: where the caller's is.
    stack: int = 0
    parent_tid: int = 0
    child_tid: int = 0
    tls: int = 0
    pidfd: int = 0


@syscall
def fork(task: Task) -> int:
    """fork(2)."""
    return _clone(task, _Request(0, SIGCHLD))


@syscall
def vfork(task: Task) -> int:
    """vfork(2)."""
    return _clone(task, _Request(sched.CLONE_VFORK | sched.CLONE_VM, SIGCHLD))


@syscall
def clone(task: Task, flags: LongFlags, stack: Pointer, parent_tid: Pointer, child_tid: Pointer, tls: ULong) -> int:
    """clone(2).

    Namespaces are refused with EPERM.
    """
    flags &= 0xFFFF_FFFF
    if flags & sched.CLONE_PIDFD and flags & (sched.CLONE_PARENT_SETTID | sched.CLONE_DETACHED):
        raise GuestError(EINVAL)
    signo = flags & sched.CSIGNAL
    return _clone(task, _Request(flags & ~sched.CSIGNAL, signo, stack, parent_tid, child_tid, tls, parent_tid))


@syscall
def clone3(task: Task, arguments: Pointer, size: Size) -> int:
    """clone3(2).

    Namespaces and set_tid are refused with EPERM, CLONE_INTO_CGROUP with EINVAL.
    """
    if size < _CLONE_ARGS_SIZE_VER0:
        raise GuestError(EINVAL)
    if size > _PAGE:
        raise GuestError(E2BIG)
    data = task.mem.read(arguments, size)
    if any(data[_CLONE_ARGS.size :]):
        raise GuestError(E2BIG)
    (flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, _) = (
        _CLONE_ARGS.unpack(data[: _CLONE_ARGS.size].ljust(_CLONE_ARGS.size, b"\0"))
    )
    if flags & (sched.CSIGNAL | sched.CLONE_DETACHED) or flags >> 34 or exit_signal > NSIG:
        raise GuestError(EINVAL)
    if set_tid or set_tid_size:
        raise GuestError(EPERM if set_tid and 0 < set_tid_size <= 32 else EINVAL)
    if bool(stack) != bool(stack_size) or stack + stack_size > TASK_SIZE:
        raise GuestError(EINVAL)
    if flags & (sched.CLONE_THREAD | sched.CLONE_PARENT) and exit_signal:
        raise GuestError(EINVAL)
    return _clone(task, _Request(flags, exit_signal, stack + stack_size, parent_tid, child_tid, tls, pidfd))


def _clone(task: Task, request: _Request) -> int:
    if task.scratch is not None:
        return _wait_for_vfork(task)
    flags = request.flags
    _check(flags)
    kernel = task.kernel
    limit = min(task.rlimits[RLIMIT_NPROC][0], kernel.limits.tasks)
    if len(kernel.tasks.keys() | kernel.processes.keys()) >= limit:
        raise GuestError(EAGAIN)
    if flags & sched.CLONE_PIDFD:
        task.mem.write_u32(request.pidfd, task.files.lowest_free())
    quota = kernel.vfs.store.quota
    if quota.bytes_free < TASK_COST:
        raise GuestError(ENOMEM)
    mm, mem = _memory_for(task, kernel, flags)
    try:
        child = _make(task, kernel, request, mm, mem)
    except GuestError:
        if mm is not task.mm:
            mm.close()
        raise
    quota.take(TASK_COST)
    child.charged = TASK_COST
    if flags & sched.CLONE_PIDFD:
        task.files.install(pid_file(task, child.process, 0), cloexec=True)
    kernel.scheduler.make_ready(child)
    if flags & sched.CLONE_VFORK:
        child.vfork_done = WaitQueue()
        task.scratch = child
        return _wait_for_vfork(task)
    return child.tid


def _check(flags: int) -> None:
    if flags & sched.CLONE_NAMESPACES:
        raise GuestError(EPERM)
    if flags & sched.CLONE_SIGHAND and not flags & sched.CLONE_VM:
        raise GuestError(EINVAL)
    if flags & sched.CLONE_THREAD and not flags & sched.CLONE_SIGHAND:
        raise GuestError(EINVAL)
    if flags & sched.CLONE_CLEAR_SIGHAND and flags & sched.CLONE_SIGHAND:
        raise GuestError(EINVAL)
    if flags & sched.CLONE_INTO_CGROUP or (flags & sched.CLONE_PIDFD and flags & sched.CLONE_THREAD):
        raise GuestError(EINVAL)
    if flags & sched.CLONE_PTRACE:
        raise GuestError(ENOSYS)


def _memory_for(task: Task, kernel: "Kernel", flags: int) -> "tuple[AddressSpace, UserMemory]":
    if flags & sched.CLONE_VM:
        return task.mm, task.mem
    mm = task.mm.fork()
    return mm, UserMemory(mm, kernel.memory.view, kernel.memory.words)


def _make(task: Task, kernel: "Kernel", request: _Request, mm: "AddressSpace", mem: UserMemory) -> Task:
    flags = request.flags
    tid = kernel.next_pid()
    files, fs = task.files, task.fs
    if flags & sched.CLONE_FILES:
        files.users += 1
    else:
        files = files.copy()
    if not flags & sched.CLONE_FS:
        fs = fs.copy()
    if flags & sched.CLONE_THREAD:
        process = task.process
    else:
        parent = task.process.parent if flags & sched.CLONE_PARENT else task.process
        process = Process(kernel, tid, parent, SharedSignals(_actions_for(task, flags), task.signals.shared.budget))
        if parent is None:
            process.rlimits = list(task.rlimits)
        process.exit_signal = task.process.exit_signal if flags & sched.CLONE_PARENT else request.exit_signal
    signals = SignalState(process.signals)
    signals.blocked = task.signals.blocked
    if not flags & sched.CLONE_VM or flags & sched.CLONE_VFORK:
        own = task.signals
        signals.stack_address, signals.stack_size, signals.stack_flags = (
            own.stack_address,
            own.stack_size,
            own.stack_flags,
        )
    child = Task(kernel, process, task.cpu, mm, mem, files, fs, signals, tid, replace(task.creds), task.comm)
    child.no_new_privs, child.nice = task.no_new_privs, task.nice
    child.mempolicy = task.mempolicy
    child.policy = sched.SCHED_OTHER if task.policy & sched.SCHED_RESET_ON_FORK else task.policy
    context = kernel.registers.of(task).copy()
    context.with_result(0)
    if request.stack:
        context.rsp = request.stack
    if flags & sched.CLONE_SETTLS:
        context.fs_base = request.tls
    child.context = context
    kernel.add(child)
    for wanted, memory, address in (
        (sched.CLONE_PARENT_SETTID, task.mem, request.parent_tid),
        (sched.CLONE_CHILD_SETTID, mem, request.child_tid),
    ):
        if flags & wanted:
            try:
                memory.write_u32(address, tid)
            except GuestError:
                pass  # As Linux's put_user() there: nobody is told.
    if flags & sched.CLONE_CHILD_CLEARTID:
        child.clear_child_tid = request.child_tid
    return child


def _actions_for(task: Task, flags: int) -> dict:  # type: ignore[type-arg]
    """The dispositions of a new process: the caller's own, a copy, or a copy without handlers."""
    actions = task.signals.actions
    if flags & sched.CLONE_SIGHAND:
        return actions
    if flags & sched.CLONE_CLEAR_SIGHAND:
        return {signo: action for signo, action in actions.items() if action.handler == SIG_IGN}
    return dict(actions)


def _wait_for_vfork(task: Task) -> int:
    """Sleep until the child of a vfork(2) has executed a program or ended; only being killed ends that before."""
    child: Task = task.scratch
    if child.vfork_done is None:
        return child.tid
    if task.signals.pending_mask() & 1 << SIGKILL - 1:
        raise Interrupted(NO_RESTART)
    raise Blocked((child.vfork_done,), None)
