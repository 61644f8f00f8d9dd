"""Scheduling: one processor, which all threads share fairly whatever they ask for."""

from errno import EACCES, EINVAL, EPERM, ESRCH
from typing import TYPE_CHECKING

from pyvmm.linux.errors import GuestError
from pyvmm.linux.table import Int, Pointer, UInt, syscall

if TYPE_CHECKING:
    from pyvmm.linux.task import Task


@syscall
def sched_yield(task: "Task") -> int:
    """sched_yield(2)."""
    task.kernel.scheduler.give_up()
    return 0


def _thread(task: "Task", tid: int) -> "Task":
    """The thread of that number (0: the caller); EINVAL, ESRCH."""
    if tid < 0:
        raise GuestError(EINVAL)
    found = task.kernel.tasks.get(tid) if tid else task
    if found is None:
        raise GuestError(ESRCH)
    return found


@syscall
def sched_getaffinity(task: "Task", pid: Int, size: UInt, mask: Pointer) -> int:
    """sched_getaffinity(2): processor 0; the answer is the size of the kernel's mask."""
    if size < 8 or size & 7:
        raise GuestError(EINVAL)
    _thread(task, pid)
    task.mem.write(mask, (1).to_bytes(8, "little"))
    return 8


@syscall
def sched_setaffinity(task: "Task", pid: Int, size: UInt, mask: Pointer) -> int:
    """sched_setaffinity(2)."""
    wanted = task.mem.read(mask, min(size, 8))
    _thread(task, pid)
    if not wanted or not wanted[0] & 1:
        raise GuestError(EINVAL)
    return 0


@syscall
def sched_getscheduler(task: "Task", pid: Int) -> int:
    """sched_getscheduler(2): SCHED_OTHER."""
    _thread(task, pid)
    return 0


@syscall
def sched_getparam(task: "Task", pid: Int, param: Pointer) -> int:
    """sched_getparam(2)."""
    _thread(task, pid)
    task.mem.write_u32(param, 0)
    return 0


@syscall
def sched_setscheduler(task: "Task", pid: Int, policy: Int, param: Pointer) -> int:
    """sched_setscheduler(2)."""
    _thread(task, pid)
    priority = task.mem.read_u32(param)
    if policy & ~0x4000_0000 not in (0, 3, 5):
        raise GuestError(EPERM if policy in (1, 2) else EINVAL)
    if priority:
        raise GuestError(EINVAL)
    return 0


@syscall
def sched_get_priority_max(task: "Task", policy: Int) -> int:
    """sched_get_priority_max(2)."""
    if policy not in (0, 1, 2, 3, 5, 6):
        raise GuestError(EINVAL)
    return 99 if policy in (1, 2) else 0


@syscall
def sched_get_priority_min(task: "Task", policy: Int) -> int:
    """sched_get_priority_min(2)."""
    if policy not in (0, 1, 2, 3, 5, 6):
        raise GuestError(EINVAL)
    return 1 if policy in (1, 2) else 0


PRIO_PROCESS, PRIO_PGRP, PRIO_USER = 0, 1, 2


def _threads(task: "Task", which: int, who: int) -> "list[Task]":
    """The threads that getpriority(2) means; EINVAL, ESRCH."""
    everybody = task.kernel.tasks.values()
    if which == PRIO_PROCESS:
        found = [task] if not who else [other for other in everybody if other.tid == who]
    elif which == PRIO_PGRP:
        group = who or task.process.group
        found = [other for other in everybody if other.process.group == group]
    elif which == PRIO_USER:
        found = [other for other in everybody if other.creds.uid == (who or task.creds.uid)]
    else:
        raise GuestError(EINVAL)
    if not found:
        raise GuestError(ESRCH)
    return found


@syscall
def getpriority(task: "Task", which: Int, who: Int) -> int:
    """getpriority(2): the call itself shows nice n as 20 - n."""
    return 20 - min(found.nice for found in _threads(task, which, who))


@syscall
def setpriority(task: "Task", which: Int, who: Int, nice: Int) -> int:
    """setpriority(2).

    The number is kept and changes nothing; being less nice is not allowed.
    """
    nice = max(min(nice, 19), -20)
    found = _threads(task, which, who)
    if any(nice < other.nice for other in found):
        raise GuestError(EACCES)
    for other in found:
        other.nice = nice
    return 0


@syscall
def getcpu(task: "Task", cpu: Pointer, node: Pointer) -> int:
    """getcpu(2)."""
    for pointer in (cpu, node):
        if pointer:
            task.mem.write_u32(pointer, 0)
    return 0
