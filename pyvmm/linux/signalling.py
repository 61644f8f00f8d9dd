"""Sending signals, and what they do before any program sees them: stop, continue, wake (``kernel/signal.c``)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyvmm.linux.abi.signal import (
    CLD_CONTINUED,
    CLD_STOPPED,
    SA_NOCLDSTOP,
    SIGCHLD,
    SIGCONT,
    SIGKILL,
    SIGSTOP,
)
from pyvmm.linux.process import is_orphaned_group
from pyvmm.linux.signals import STOP_MASK, STOPPING, SignalInfo
from pyvmm.linux.wait import State

if TYPE_CHECKING:
    from pyvmm.linux.process import Process
    from pyvmm.linux.task import Task

_CONT_MASK = 1 << SIGCONT - 1


def send_to_thread(task: "Task", info: SignalInfo) -> bool:
    """Make a signal pending for one thread (tgkill(2), faults); False if it has too many already."""
    if task.state is State.DEAD:
        return True
    _prepare(task.process, info.signo)
    sent = task.signals.send(info.signo, info)
    task.process.signals.arrived.wake()
    _nudge(task)
    return sent


def send_to_process(process: "Process", info: SignalInfo) -> bool:
    """Make a signal pending for a process, whichever thread takes it; False if it has too many already."""
    leader = process.leader
    if leader is None or process.is_zombie:
        return True
    _prepare(process, info.signo)
    bit = 1 << info.signo - 1
    if leader.signals.is_ignored(info.signo) and not (leader.signals.blocked | leader.signals.really_blocked) & bit:
        return True
    sent = process.signals.pending.add(info)
    process.signals.arrived.wake()
    for task in (leader, *process.threads.values()):
        if not task.signals.blocked & bit:
            _nudge(task)
            break
    return sent


def send_to_all(processes: Iterable["Process"], info: SignalInfo) -> None:
    """Send the same signal to several processes."""
    for process in processes:
        send_to_process(process, info)


def _nudge(task: "Task") -> None:
    """Let the thread see its signals soon."""
    if task.signals.deliverable:
        scheduler = task.kernel.scheduler
        scheduler.wake(task)
        scheduler.attention = True


def _prepare(process: "Process", signo: int) -> None:
    """What a signal does when it is sent, even if it is blocked or ignored."""
    if signo == SIGCONT:
        _discard(process, STOP_MASK)
        if process.stopped:
            _go_on(process)
            _tell_parent(process, "continued", CLD_CONTINUED, SIGCONT)
    elif signo in STOPPING:
        _discard(process, _CONT_MASK)
    elif signo == SIGKILL and process.stopped:
        _go_on(process)


def _discard(process: "Process", mask: int) -> None:
    process.signals.pending.discard(mask)
    for task in process.threads.values():
        task.signals.pending.discard(mask)


def stop(process: "Process", signo: int) -> None:
    """The default action of a stop signal. Who could be continued by nobody goes on: the sandbox's first process, and
    for all signals but SIGSTOP the members of an orphaned process group (but not the first's, which somebody outside
    began).
    """
    first = process.kernel.first_process
    if process is first or (signo != SIGSTOP and process.group != first.group and is_orphaned_group(process)):
        return
    if not process.stopped:
        process.stopped = signo
        _tell_parent(process, "stopped", CLD_STOPPED, signo)


def _go_on(process: "Process") -> None:
    process.stopped = 0
    parked, process.parked = process.parked, []
    for task in parked:
        if task.state is State.STOPPED:
            task.kernel.scheduler.make_ready(task)


def _tell_parent(process: "Process", what: str, code: int, signo: int) -> None:
    process.untold = what
    parent = process.parent
    if parent is None:
        return
    parent.child_changed.wake()
    leader = parent.leader
    if leader is not None and not leader.signals.action(SIGCHLD).flags & SA_NOCLDSTOP:
        uid = process.leader.creds.uid if process.leader else 0
        send_to_process(parent, SignalInfo(SIGCHLD, code, pid=process.pid, uid=uid, status=signo))
