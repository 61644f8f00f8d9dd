"""Waiting for several files: poll(2), select(2)."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINVAL, ENOMEM
from typing import TYPE_CHECKING

from pyvmm.linux.abi.poll import (
    POLLERR,
    POLLFD,
    POLLHUP,
    POLLIN,
    POLLNVAL,
    POLLOUT,
    POLLPRI,
    POLLRDBAND,
    POLLRDNORM,
    POLLWRBAND,
    POLLWRNORM,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.signals import UNBLOCKABLE
from pyvmm.linux.syscalls.time import read_timespec
from pyvmm.linux.table import Int, Pointer, Size, UInt, syscall
from pyvmm.linux.wait import NO_RESTART, Blocked, Interrupted, waiting_cost

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.task import Task

#: What select(2) means by readable, writable, exceptional.
_SELECT_MASKS = (
    POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR | POLLNVAL,
    POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR | POLLNVAL,
    POLLPRI | POLLNVAL,
)
_MILLISECOND = 1_000_000
_SECOND = 1_000_000_000
_FOR_EVER = 1 << 62


@syscall
def poll(task: "Task", fds: Pointer, count: UInt, timeout: Int) -> int:
    """poll(2): wait until one of several files is ready."""
    return _poll(task, fds, count, None if timeout < 0 else task.deadline_after(timeout * _MILLISECOND))


@syscall
def ppoll(task: "Task", fds: Pointer, count: UInt, timeout: Pointer, mask: Pointer, size: Size) -> int:
    """ppoll(2): the same, with nanoseconds and a signal mask for the meantime."""
    deadline = _deadline(task, timeout)
    try:
        with signal_mask(task, mask, size):
            return _poll(task, fds, count, deadline)
    finally:
        _write_left(task, timeout, deadline, 1)


def _poll(task: "Task", fds: int, count: int, deadline: int | None) -> int:
    if count > task.files.limit:
        raise GuestError(EINVAL)
    entries = list(POLLFD.iter_unpack(task.mem.read(fds, count * POLLFD.size)))
    files = task.files
    results = [0] * count

    polled: list[OpenFile] = []
    ready = 0
    for index, (fd, events, _) in enumerate(entries):
        if fd < 0:
            continue
        try:
            file = files.get(fd)
            polled.append(file)
            mask = file.poll(task) & (events & 0xFFFF | POLLERR | POLLHUP)
        except GuestError:
            mask = POLLNVAL
        results[index] = mask
        ready += bool(mask)
    if not ready:
        wait_for_files(task, polled, deadline)
    out = b"".join(POLLFD.pack(fd, events, mask) for (fd, events, _), mask in zip(entries, results, strict=True))
    task.mem.write(fds, out)
    return ready


def wait_for_files(task: "Task", files: "list[OpenFile]", deadline: int | None) -> None:
    """None of ``files`` is ready: wait for one, unless the time has come (EINTR: a signal has; ENOMEM)."""
    if deadline is None or task.kernel.clock.monotonic_ns() < deadline:
        queues = [queue for file in files for queue in file.queues()]
        if waiting_cost(len(queues)) > task.kernel.vfs.store.quota.bytes_free:
            raise GuestError(ENOMEM)
        task.wait(*queues, until=deadline, restart=NO_RESTART)
    if task.signals.deliverable:
        raise Interrupted(NO_RESTART)


# -------------------------------------------------------------------------------------------------------------- select


@syscall
def select(task: "Task", count: Int, read: Pointer, write: Pointer, other: Pointer, timeout: Pointer) -> int:
    """select(2): the same, by sets of descriptors."""
    deadline = None
    if timeout:
        seconds, microseconds = struct.unpack("<qq", task.mem.read(timeout, 16))
        seconds, microseconds = seconds + microseconds // 1_000_000, microseconds % 1_000_000
        if seconds < 0:
            raise GuestError(EINVAL)
        deadline = task.deadline_after(min(seconds * _SECOND + microseconds * 1000, _FOR_EVER))
    try:
        return _select(task, count, (read, write, other), deadline)
    finally:
        _write_left(task, timeout, deadline, 1000)


@syscall
def pselect6(
    task: "Task", count: Int, read: Pointer, write: Pointer, other: Pointer, timeout: Pointer, mask: Pointer
) -> int:
    """pselect(2): the same, with nanoseconds and a signal mask for the meantime."""
    address = size = 0
    if mask:
        address, size = struct.unpack("<QQ", task.mem.read(mask, 16))
    deadline = _deadline(task, timeout)
    try:
        with signal_mask(task, address, size):
            return _select(task, count, (read, write, other), deadline)
    finally:
        _write_left(task, timeout, deadline, 1)


def _select(task: "Task", count: int, addresses: tuple[int, int, int], deadline: int | None) -> int:
    if count < 0:
        raise GuestError(EINVAL)
    count = min(count, max(task.files.limit, 64))
    size = (count + 63) // 64 * 8
    in_range = (1 << count) - 1
    wanted = [int.from_bytes(task.mem.read(at, size), "little") & in_range if at else 0 for at in addresses]
    found = [0, 0, 0]
    everything = wanted[0] | wanted[1] | wanted[2]
    numbers = [fd for fd in range(everything.bit_length()) if everything >> fd & 1]
    polled = [task.files.get(fd) for fd in numbers]  # EBADF before anything else
    ready = 0
    for fd, file in zip(numbers, polled, strict=True):
        mask = file.poll(task)
        for index, selected in enumerate(_SELECT_MASKS):
            if wanted[index] >> fd & 1 and mask & selected:
                found[index] |= 1 << fd
                ready += 1
    if not ready:
        wait_for_files(task, polled, deadline)
    for address, bits in zip(addresses, found, strict=True):
        if address:
            task.mem.write(address, bits.to_bytes(size, "little"))
    return ready


# ------------------------------------------------------------------------------------------------- timeouts and masks


def _deadline(task: "Task", timeout: int) -> int | None:
    return task.deadline_after(read_timespec(task, timeout)) if timeout else None


def _write_left(task: "Task", address: int, deadline: int | None, unit: int) -> None:
    """Say how much time was left, where the timeout was given; its fraction counts in ``unit`` nanoseconds."""
    if not address or deadline is None:
        return
    left = max(deadline - task.kernel.clock.monotonic_ns(), 0)
    try:
        task.mem.write(address, struct.pack("<qq", left // _SECOND, left % _SECOND // unit))
    except GuestError:
        pass  # A timeout in read-only memory is fine.


@contextmanager
def signal_mask(task: "Task", address: int, size: int) -> Iterator[None]:
    """Block the signals at ``address`` instead of those that are, for the time of a call.

    A call that a signal has interrupted leaves the old mask to be put back after the handler; by any other end it is
    there again at once, and what is pending waits (``restore_saved_sigmask_unless()``).
    """
    if not address:
        yield
        return
    if size != 8:
        raise GuestError(EINVAL)
    signals = task.signals
    wanted = task.mem.read_u64(address) & ~UNBLOCKABLE
    if task.is_first_try:
        signals.saved_mask = signals.blocked
    signals.blocked = wanted
    try:
        yield
    except (Interrupted, Blocked):
        raise
    except BaseException:
        _restore_mask(task)
        raise
    _restore_mask(task)


def _restore_mask(task: "Task") -> None:
    signals = task.signals
    if signals.saved_mask is not None:
        signals.blocked, signals.saved_mask = signals.saved_mask, None
        if signals.deliverable:
            task.kernel.scheduler.attention = True
