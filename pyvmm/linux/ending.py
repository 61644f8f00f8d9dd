"""How threads and processes end (``kernel/exit.c``)."""

import struct
from errno import EFAULT
from typing import TYPE_CHECKING

from pyvmm.linux.abi.signal import CLD_EXITED, CLD_KILLED, SA_NOCLDWAIT, SI_KERNEL, SIG_IGN, SIGCHLD, SIGCONT, SIGHUP
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.held import let_go
from pyvmm.linux.files.terminal import leader_ended
from pyvmm.linux.futex import FUTEX_BITSET_ANY, FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS, futex_wake
from pyvmm.linux.process import is_orphaned_group
from pyvmm.linux.signalling import send_to_all, send_to_process
from pyvmm.linux.signals import ALL_SIGNALS, SignalInfo

if TYPE_CHECKING:
    from pyvmm.linux.process import Process
    from pyvmm.linux.task import Task

#: ``ROBUST_LIST_LIMIT``: a list may be a loop.
_ROBUST_LIST_LIMIT = 2048
#: Bytes that a thread takes of the monitor's memory, about; counted against the sandbox's quota.
TASK_COST = 16 << 10


def end_thread(task: "Task") -> None:
    """One thread ends, others of its process go on (or the caller ends the process)."""
    process = task.process
    kernel = task.kernel
    kernel.scheduler.remove(task)
    process.threads.pop(task.tid, None)
    kernel.tasks.pop(task.tid, None)
    process.past_cpu_ns += task.cpu_ns
    task.signals.pending.discard(ALL_SIGNALS)
    if task.charged:
        kernel.vfs.store.quota.take(-task.charged)
    leave_memory(task)
    let_go(task)
    task.files.leave()


def leave_memory(task: "Task") -> None:
    """The thread does not use its address space any more (``mm_release()``): it ends, or executes another program."""
    mm = task.mm
    if mm.users > 1 or task.robust_list:
        try:
            _release_robust_list(task)
        except GuestError:
            pass  # What it says of itself is its own risk.
    if task.clear_child_tid and mm.users > 1:
        try:
            task.mem.write_u32(task.clear_child_tid, 0)
            futex_wake(task, task.clear_child_tid, 1, FUTEX_BITSET_ANY, private=False)
        except GuestError as error:
            if error.errno != EFAULT:
                raise
    task.clear_child_tid = task.robust_list = 0
    if task.vfork_done is not None:
        done, task.vfork_done = task.vfork_done, None
        done.wake()
    mm.users -= 1
    if not mm.users:
        task.kernel.scheduler.attention = True
        mm.close()


def _release_robust_list(task: "Task") -> None:
    """Mark the mutexes that it holds as orphaned, and wake a waiter of each (``exit_robust_list()``)."""
    if not task.robust_list:
        return
    head = task.robust_list
    entry, offset, pending = struct.unpack("<QqQ", task.mem.read(head, 24))
    for _ in range(_ROBUST_LIST_LIMIT):
        if entry & ~1 == head:
            break
        following = task.mem.read_u64(entry & ~1)
        if entry & ~1 != pending & ~1:
            _orphan(task, (entry & ~1) + offset)
        entry = following
    if pending & ~1:
        _orphan(task, (pending & ~1) + offset)


def _orphan(task: "Task", address: int) -> None:
    value = task.mem.read_u32(address)
    if value & FUTEX_TID_MASK == task.tid:
        task.mem.write_u32(address, value & FUTEX_WAITERS | FUTEX_OWNER_DIED)
        if value & FUTEX_WAITERS:
            futex_wake(task, address, 1, FUTEX_BITSET_ANY, private=False)


def end_process(process: "Process", status: int) -> None:
    """All threads end. ``status`` is what wait(2) gives: exit code << 8, or the signal."""
    if process.is_exiting:
        return
    process.is_exiting = True
    kernel = process.kernel
    process.status = status
    if process is kernel.first_process:
        # The whole sandbox ends with it: nothing has to be given back in good order.
        kernel.first_process_ended(status)
        return
    uid = next(iter(process.threads.values())).creds.uid
    if process.timers is not None:
        process.timers.close()
    for task in list(process.threads.values()):
        end_thread(task)
    children = list(process.children.values())
    for child in children:
        _orphan_process(child)
    for child in children:
        _continue_orphans(child, process)
    if process.parent is not None:
        _continue_orphans(process, process.parent)
    process.stopped = 0
    if process.session == process.pid:
        leader_ended(process)
    process.ended.wake()
    parent = process.parent
    if parent is None:
        reap(process)
        return
    leader = parent.leader
    ignored = False
    if leader is not None and process.exit_signal == SIGCHLD:
        action = leader.signals.action(SIGCHLD)
        ignored = action.handler == SIG_IGN or bool(action.flags & SA_NOCLDWAIT)
    if process.exit_signal and leader is not None:
        signo = status & 0x7F
        info = SignalInfo(
            process.exit_signal,
            CLD_KILLED if signo else CLD_EXITED,
            pid=process.pid,
            uid=uid,
            status=signo or status >> 8,
        )
        send_to_process(parent, info)
    if ignored:
        reap(process)
    parent.child_changed.wake()


def _orphan_process(child: "Process") -> None:
    """Its parent has ended: a subreaper among its ancestors takes it, or nobody."""
    former = child.parent
    assert former is not None
    del former.children[child.pid]
    ancestor = former.parent
    while ancestor is not None and not ancestor.is_subreaper:
        ancestor = ancestor.parent
    child.parent = ancestor
    leader = child.leader
    if ancestor is not None:
        ancestor.children[child.pid] = child
        ancestor.child_changed.wake()
    elif child.is_zombie:
        reap(child)
    if child.death_signal and leader is not None:
        send_to_process(child, SignalInfo(child.death_signal, 0))


def _continue_orphans(member: "Process", parent: "Process") -> None:
    """If ``parent`` was the last who could continue stopped processes in the group of ``member``, its child until now,
    they are told and continued (``kill_orphaned_pgrp()``).
    """
    if parent.group == member.group or parent.session != member.session or not is_orphaned_group(member):
        return
    group = [each for each in member.kernel.processes.values() if each.group == member.group]
    if any(each.stopped for each in group):
        for signo in (SIGHUP, SIGCONT):
            send_to_all(group, SignalInfo(signo, SI_KERNEL))


def reap(process: "Process") -> None:
    """Forget a zombie: somebody has asked how it ended, or nobody will."""
    process.kernel.processes.pop(process.pid, None)
    if process.parent is not None:
        process.parent.children.pop(process.pid, None)
        process.parent.children_cpu_ns += process.cpu_ns() + process.children_cpu_ns
