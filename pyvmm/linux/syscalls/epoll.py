"""Waiting for many files: epoll_create(2), epoll_ctl(2), epoll_wait(2)."""

from errno import EEXIST, EFAULT, EINVAL, ENOENT, EPERM
from typing import TYPE_CHECKING

from pyvmm.linux.abi.epoll import (
    EP_MAX_EVENTS,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLL_EVENT,
    EPOLLEXCLUSIVE,
    EPOLLEXCLUSIVE_OK_BITS,
    EPOLLWAKEUP,
)
from pyvmm.linux.abi.fcntl import O_CLOEXEC
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import can_poll
from pyvmm.linux.files.epoll import EpollFile, Taken
from pyvmm.linux.layout import TASK_SIZE
from pyvmm.linux.syscalls.poll import signal_mask
from pyvmm.linux.syscalls.time import read_timespec
from pyvmm.linux.table import Fd, Flags, Int, Pointer, Size, syscall
from pyvmm.linux.vfs.anonymous import EventInode
from pyvmm.linux.wait import NO_RESTART

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_MILLISECOND = 1_000_000
#: Events that are taken from the set before they are written: nothing grows with the number that the program gives.
_STEP = 1024


@syscall
def epoll_create(task: "Task", size: Int) -> int:
    """epoll_create(2): a set of files that can be waited for; the size only has to be positive."""
    if size <= 0:
        raise GuestError(EINVAL)
    return epoll_create1(task, 0)


@syscall
def epoll_create1(task: "Task", flags: Flags) -> int:
    """epoll_create1(2): the same, with flags."""
    if flags & ~O_CLOEXEC:
        raise GuestError(EINVAL)
    vfs = task.kernel.vfs
    inode = EventInode(vfs.next_anonymous(), b"[eventpoll]", task.kernel.clock.realtime_ns())
    return task.files.install(EpollFile(inode, vfs.store.quota), bool(flags & O_CLOEXEC))


@syscall
def epoll_ctl(task: "Task", epfd: Fd, operation: Int, fd: Fd, event: Pointer) -> int:
    """epoll_ctl(2): add, change or remove a file of a set.

    EPOLLWAKEUP has no effect.
    """
    events = data = 0
    if operation != EPOLL_CTL_DEL:
        events, data = EPOLL_EVENT.unpack(task.mem.read(event, EPOLL_EVENT.size))
    epoll, file = task.files.get(epfd), task.files.get(fd)
    if not can_poll(file):
        raise GuestError(EPERM)
    events &= ~EPOLLWAKEUP
    if file is epoll or not isinstance(epoll, EpollFile):
        raise GuestError(EINVAL)
    if events & EPOLLEXCLUSIVE and (
        operation == EPOLL_CTL_MOD
        or (operation == EPOLL_CTL_ADD and (isinstance(file, EpollFile) or events & ~EPOLLEXCLUSIVE_OK_BITS))
    ):
        raise GuestError(EINVAL)
    entry = epoll.find(fd, file)
    if operation == EPOLL_CTL_ADD:
        if entry is not None:
            raise GuestError(EEXIST)
        epoll.add(task, fd, file, events, data)
        return 0
    if operation not in (EPOLL_CTL_DEL, EPOLL_CTL_MOD):
        raise GuestError(EINVAL)
    if entry is None:
        raise GuestError(ENOENT)
    if operation == EPOLL_CTL_DEL:
        epoll.remove(entry)
    elif entry.events & EPOLLEXCLUSIVE:
        raise GuestError(EINVAL)
    else:
        epoll.modify(task, entry, events, data)
    return 0


@syscall
def epoll_wait(task: "Task", epfd: Fd, events: Pointer, count: Int, timeout: Int) -> int:
    """epoll_wait(2): wait until files of a set are ready, and say which."""
    return _wait(task, epfd, events, count, None if timeout < 0 else task.deadline_after(timeout * _MILLISECOND))


@syscall
def epoll_pwait(task: "Task", epfd: Fd, events: Pointer, count: Int, timeout: Int, mask: Pointer, size: Size) -> int:
    """epoll_pwait(2): the same, with a signal mask for the meantime."""
    with signal_mask(task, mask, size):
        return epoll_wait(task, epfd, events, count, timeout)


@syscall
def epoll_pwait2(
    task: "Task", epfd: Fd, events: Pointer, count: Int, timeout: Pointer, mask: Pointer, size: Size
) -> int:
    """epoll_pwait2(2): the same, with nanoseconds."""
    deadline = task.deadline_after(read_timespec(task, timeout)) if timeout else None
    with signal_mask(task, mask, size):
        return _wait(task, epfd, events, count, deadline)


def _wait(task: "Task", epfd: int, address: int, count: int, deadline: int | None) -> int:
    epoll = task.files.get(epfd)
    if not 0 < count <= EP_MAX_EVENTS:
        raise GuestError(EINVAL)
    if address + count * EPOLL_EVENT.size > TASK_SIZE:
        raise GuestError(EFAULT)
    if not isinstance(epoll, EpollFile):
        raise GuestError(EINVAL)
    ready = epoll.take_ready(task, min(count, _STEP))
    if ready:
        return _tell(task, epoll, address, ready)
    if deadline is None or task.kernel.clock.monotonic_ns() < deadline:
        task.wait(epoll.changed, until=deadline, restart=NO_RESTART)
    return 0


def _tell(task: "Task", epoll: EpollFile, address: int, ready: list[Taken]) -> int:
    """Write the events; EFAULT if none can be, and what cannot be comes again."""
    told = 0
    for events, entry, _ in ready:
        try:
            task.mem.write(address + told * EPOLL_EVENT.size, EPOLL_EVENT.pack(events, entry.data))
        except GuestError:
            epoll.put_back(ready[told:])
            if not told:
                raise
            break
        told += 1
    return told
