"""Scheduling: one processor, which all threads share fairly whatever they ask for."""

import struct
from errno import E2BIG, EACCES, EINVAL, EOPNOTSUPP, EPERM, ESRCH
from typing import TYPE_CHECKING

from pyvmm.linux.abi.sched import (
    SCHED_ATTR,
    SCHED_ATTR_SIZE_VER0,
    SCHED_BATCH,
    SCHED_DEADLINE,
    SCHED_FIFO,
    SCHED_FLAG_ALL,
    SCHED_FLAG_KEEP_PARAMS,
    SCHED_FLAG_KEEP_POLICY,
    SCHED_FLAG_RESET_ON_FORK,
    SCHED_FLAG_UTIL_CLAMP,
    SCHED_IDLE,
    SCHED_OTHER,
    SCHED_RESET_ON_FORK,
    SCHED_RR,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.layout import PAGE_SIZE
from pyvmm.linux.process import INIT_PID
from pyvmm.linux.scheduler import TIME_SLICE
from pyvmm.linux.table import Int, Pointer, UInt, syscall

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_REAL_TIME = (SCHED_FIFO, SCHED_RR)
_NICE_MIN, _NICE_MAX = -20, 19
_POLICIES = (SCHED_OTHER, *_REAL_TIME, SCHED_BATCH, SCHED_IDLE)


@syscall
def sched_yield(task: "Task") -> int:
    """sched_yield(2)."""
    task.kernel.scheduler.give_up()
    return 0


def _thread(task: "Task", tid: int) -> "Task | None":
    """The thread of that number (0: the caller), None for process 1, which is somebody else's; EINVAL, ESRCH."""
    if tid < 0:
        raise GuestError(EINVAL)
    if tid == INIT_PID:
        return None
    found = task.kernel.tasks.get(tid) if tid else task
    if found is None:
        raise GuestError(ESRCH)
    return found


def _own_thread(task: "Task", tid: int) -> "Task":
    """The same, to be changed: EPERM for process 1."""
    found = _thread(task, tid)
    if found is None:
        raise GuestError(EPERM)
    return found


@syscall
def sched_getaffinity(task: "Task", pid: Int, size: UInt, mask: Pointer) -> int:
    """sched_getaffinity(2): processor 0; the answer is the size of the kernel's mask."""
    if size < 8 or size & 7:
        raise GuestError(EINVAL)
    if pid < 0:
        raise GuestError(ESRCH)
    _thread(task, pid)
    task.mem.write(mask, (1).to_bytes(8, "little"))
    return 8


@syscall
def sched_setaffinity(task: "Task", pid: Int, size: UInt, mask: Pointer) -> int:
    """sched_setaffinity(2)."""
    wanted = task.mem.read(mask, min(size, 8))
    if pid < 0:
        raise GuestError(ESRCH)
    _own_thread(task, pid)
    if not wanted or not wanted[0] & 1:
        raise GuestError(EINVAL)
    return 0


@syscall
def sched_getscheduler(task: "Task", pid: Int) -> int:
    """sched_getscheduler(2)."""
    found = _thread(task, pid)
    return found.policy if found is not None else SCHED_OTHER


@syscall
def sched_getparam(task: "Task", pid: Int, param: Pointer) -> int:
    """sched_getparam(2): no thread has a priority that is not 0, since nobody may have a real-time policy."""
    if not param:
        raise GuestError(EINVAL)
    _thread(task, pid)
    task.mem.write_u32(param, 0)
    return 0


@syscall
def sched_setscheduler(task: "Task", pid: Int, policy: Int, param: Pointer) -> int:
    """sched_setscheduler(2).

    The policy is kept and changes nothing.
    """
    if policy < 0:
        raise GuestError(EINVAL)
    return _set_policy(task, pid, policy, param)


@syscall
def sched_setparam(task: "Task", pid: Int, param: Pointer) -> int:
    """sched_setparam(2)."""
    return _set_policy(task, pid, None, param)


def _set_policy(task: "Task", pid: int, policy: int | None, param: int) -> int:
    """``__sched_setscheduler()`` for one without privileges and with an RLIMIT_RTPRIO of 0; None: the policy stays."""
    if not param or pid < 0:
        raise GuestError(EINVAL)
    priority = task.mem.read_u32(param)
    found = _own_thread(task, pid)
    wanted = found.policy if policy is None else policy
    kind = wanted & ~SCHED_RESET_ON_FORK
    if kind not in _POLICIES or (priority > 99) or (kind in _REAL_TIME) != bool(priority):
        raise GuestError(EINVAL)
    _check_change(found, wanted, found.nice)
    found.policy = wanted
    return 0


@syscall
def sched_setattr(task: "Task", pid: Int, attributes: Pointer, flags: UInt) -> int:
    """sched_setattr(2).

    Policy and nice are kept and change nothing; utilisation clamps give EOPNOTSUPP.
    """
    if not attributes or pid < 0 or flags:
        raise GuestError(EINVAL)
    policy, flags, nice, priority = _read_attributes(task, attributes)
    if policy >> 31:
        raise GuestError(EINVAL)
    found = _own_thread(task, pid)
    kind, resets = policy, bool(flags & SCHED_FLAG_RESET_ON_FORK)
    if flags & SCHED_FLAG_KEEP_POLICY:
        kind, resets = found.policy & ~SCHED_RESET_ON_FORK, bool(found.policy & SCHED_RESET_ON_FORK)
    if flags & SCHED_FLAG_KEEP_PARAMS:
        nice, priority = found.nice, 0
    if kind not in (*_POLICIES, SCHED_DEADLINE) or flags & ~SCHED_FLAG_ALL or priority > 99:
        raise GuestError(EINVAL)
    if (kind in _REAL_TIME) != bool(priority):
        raise GuestError(EINVAL)
    wanted = kind | (SCHED_RESET_ON_FORK if resets else 0)
    _check_change(found, wanted, nice if kind in (SCHED_OTHER, SCHED_BATCH) else found.nice)
    if flags & SCHED_FLAG_UTIL_CLAMP:
        raise GuestError(EOPNOTSUPP)
    found.policy = wanted
    if kind != SCHED_IDLE and not flags & SCHED_FLAG_KEEP_PARAMS:
        found.nice = nice
    return 0


def _read_attributes(task: "Task", address: int) -> tuple[int, int, int, int]:
    """``sched_copy_attr()``: policy, flags, nice, priority; E2BIG tells the caller how long it may be."""
    size = task.mem.read_u32(address) or SCHED_ATTR_SIZE_VER0
    if not SCHED_ATTR_SIZE_VER0 <= size <= PAGE_SIZE:
        task.mem.write_u32(address, SCHED_ATTR.size)
        raise GuestError(E2BIG)
    data = task.mem.read(address, size)
    if any(data[SCHED_ATTR.size :]):
        task.mem.write_u32(address, SCHED_ATTR.size)
        raise GuestError(E2BIG)
    _, policy, flags, nice, priority, *_ = SCHED_ATTR.unpack(data[: SCHED_ATTR.size].ljust(SCHED_ATTR.size, b"\0"))
    if flags & SCHED_FLAG_UTIL_CLAMP and size < SCHED_ATTR.size:
        raise GuestError(EINVAL)
    return policy, flags, max(min(nice, _NICE_MAX), _NICE_MIN), priority


def _check_change(found: "Task", policy: int, nice: int) -> None:
    """``user_check_sched_setscheduler()`` for one without privileges, whose RLIMIT_RTPRIO and RLIMIT_NICE are 0."""
    kind = policy & ~SCHED_RESET_ON_FORK
    leaves_idle = found.policy & ~SCHED_RESET_ON_FORK == SCHED_IDLE != kind
    stops_reset = found.policy & ~policy & SCHED_RESET_ON_FORK
    if nice < found.nice or kind in (*_REAL_TIME, SCHED_DEADLINE) or leaves_idle or stops_reset:
        raise GuestError(EPERM)


@syscall
def sched_getattr(task: "Task", pid: Int, attributes: Pointer, size: UInt, flags: UInt) -> int:
    """sched_getattr(2)."""
    if not attributes or pid < 0 or not SCHED_ATTR_SIZE_VER0 <= size <= PAGE_SIZE or flags:
        raise GuestError(EINVAL)
    found = _thread(task, pid)
    policy, nice = (found.policy, found.nice) if found is not None else (SCHED_OTHER, 0)
    shown = SCHED_FLAG_RESET_ON_FORK if policy & SCHED_RESET_ON_FORK else 0
    kind = policy & ~SCHED_RESET_ON_FORK
    data = SCHED_ATTR.pack(min(size, SCHED_ATTR.size), kind, shown, nice, 0, 0, 0, 0, 0, 0)
    task.mem.write(attributes, data[:size].ljust(size, b"\0"))
    return 0


@syscall
def sched_rr_get_interval(task: "Task", pid: Int, interval: Pointer) -> int:
    """sched_rr_get_interval(2): the time slice."""
    _thread(task, pid)
    task.mem.write(interval, struct.pack("<qq", *divmod(TIME_SLICE, 1_000_000_000)))
    return 0


@syscall
def sched_get_priority_max(task: "Task", policy: Int) -> int:
    """sched_get_priority_max(2)."""
    return 99 if _known(policy) in _REAL_TIME else 0


@syscall
def sched_get_priority_min(task: "Task", policy: Int) -> int:
    """sched_get_priority_min(2)."""
    return 1 if _known(policy) in _REAL_TIME else 0


def _known(policy: int) -> int:
    if policy not in (*_POLICIES, SCHED_DEADLINE):
        raise GuestError(EINVAL)
    return policy


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
    nice = max(min(nice, _NICE_MAX), _NICE_MIN)
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
