"""Advisory locks: the commands of fcntl(2) for byte ranges, and flock(2)."""

import struct
from errno import EBADF, EINVAL, EOVERFLOW, EWOULDBLOCK
from typing import TYPE_CHECKING

from pyvmm.linux.abi import fcntl as abi
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.locks import OFFSET_MAX, Lock, lock_range, locks_of
from pyvmm.linux.table import Fd, UInt, syscall

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.task import Task

#: ``struct flock``: type, whence, start, length, pid.
_FLOCK = struct.Struct("<hh4xqqi4x")
_OFD_COMMANDS = (abi.F_OFD_GETLK, abi.F_OFD_SETLK, abi.F_OFD_SETLKW)
_KINDS = (abi.F_RDLCK, abi.F_WRLCK, abi.F_UNLCK)
_LOCK_MAND = 32


def fcntl_lock(task: "Task", file: "OpenFile", command: int, address: int) -> int:
    """F_GETLK, F_SETLK, F_SETLKW and their kin for open files (F_OFD_*)."""
    kind, whence, start, length, pid = _FLOCK.unpack(task.mem.read(address, _FLOCK.size))
    if command == abi.F_GETLK and kind not in (abi.F_RDLCK, abi.F_WRLCK):
        raise GuestError(EINVAL)
    start, last = _range(file, whence, start, length)
    if kind not in _KINDS:
        raise GuestError(EINVAL)
    is_ofd = command in _OFD_COMMANDS
    locks = locks_of(file.inode, task.kernel.vfs.store.quota)
    wanted = Lock(file if is_ofd else task.files, kind, start, last, -1 if is_ofd else task.pid)
    if command in (abi.F_GETLK, abi.F_OFD_GETLK):
        if is_ofd and pid:
            raise GuestError(EINVAL)
        found = locks.conflict(wanted)
        if kind == abi.F_UNLCK:
            found = next((lock for lock in locks.ranges if lock.owner is file and lock.overlaps(wanted)), None)
        if found is None:
            task.mem.write(address, abi.F_UNLCK.to_bytes(2, "little"))
        else:
            count = 0 if found.last == OFFSET_MAX else found.last - found.start + 1
            task.mem.write(address, _FLOCK.pack(found.kind, 0, found.start, count, found.pid))
        return 0
    if (kind == abi.F_RDLCK and not file.readable) or (kind == abi.F_WRLCK and not file.writable):
        raise GuestError(EBADF)
    if is_ofd and pid:
        raise GuestError(EINVAL)
    lock_range(task, locks, wanted, wait=command in (abi.F_SETLKW, abi.F_OFD_SETLKW))
    return 0


def _range(file: "OpenFile", whence: int, start: int, length: int) -> tuple[int, int]:
    """The first and the last byte (``flock64_to_posix_lock()``): EINVAL, EOVERFLOW."""
    if not 0 <= whence <= 2:
        raise GuestError(EINVAL)
    start += (0, file.position, file.inode.size)[whence]
    if start > OFFSET_MAX:
        raise GuestError(EOVERFLOW)
    if start < 0:
        raise GuestError(EINVAL)
    if length > 0:
        if start + length - 1 > OFFSET_MAX:
            raise GuestError(EOVERFLOW)
        return start, start + length - 1
    if length < 0:
        if start + length < 0:
            raise GuestError(EINVAL)
        return start + length, start - 1
    return start, OFFSET_MAX


@syscall
def flock(task: "Task", fd: Fd, operation: UInt) -> int:
    """flock(2): lock an open file."""
    if operation & _LOCK_MAND:
        return 0  # As Linux since 5.17: nobody has such locks any more.
    kinds = {abi.LOCK_SH: abi.F_RDLCK, abi.LOCK_EX: abi.F_WRLCK, abi.LOCK_UN: abi.F_UNLCK}
    kind = kinds.get(operation & ~abi.LOCK_NB)
    if kind is None:
        raise GuestError(EINVAL)
    file = task.files.get(fd)
    if kind != abi.F_UNLCK and not file.readable and not file.writable:
        raise GuestError(EBADF)
    locks = locks_of(file.inode, task.kernel.vfs.store.quota)
    if not locks.change_whole(file, kind):
        if operation & abi.LOCK_NB:
            raise GuestError(EWOULDBLOCK)
        task.wait(locks.changed)
    return 0
