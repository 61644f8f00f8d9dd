"""Files without a place: pipe(2), eventfd(2), memfd_create(2)."""

import struct
from errno import EINVAL, ENAMETOOLONG
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import (
    EFD_SEMAPHORE,
    F_SEAL_EXEC,
    F_SEAL_SEAL,
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    MFD_EXEC,
    MFD_NOEXEC_SEAL,
    O_CLOEXEC,
    O_LARGEFILE,
    O_NONBLOCK,
    O_RDONLY,
    O_RDWR,
    O_WRONLY,
)
from pyvmm.linux.abi.stat import S_IFREG
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.eventfd import EventFile
from pyvmm.linux.files.pipe import Pipe, PipeFile
from pyvmm.linux.files.regular import RegularFile
from pyvmm.linux.table import Flags, Pointer, UInt, syscall
from pyvmm.linux.vfs.anonymous import EventInode, PipeInode

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: ``MFD_NAME_MAX_LEN``: NAME_MAX less ``memfd:``.
_MEMFD_NAME_MAX = 249


@syscall
def pipe(task: "Task", fds: Pointer) -> int:
    """pipe(2): two descriptors, what is written to the second can be read from the first."""
    return pipe2(task, fds, 0)


@syscall
def pipe2(task: "Task", fds: Pointer, flags: Flags) -> int:
    """pipe2(2): the same, with flags.

    O_DIRECT (packets) is refused.
    """
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise GuestError(EINVAL)
    vfs, files = task.kernel.vfs, task.files
    inode = PipeInode(vfs.next_anonymous(), task.creds.fsuid, task.creds.fsgid, task.kernel.clock.realtime_ns())
    made = inode.pipe = Pipe()
    cloexec = bool(flags & O_CLOEXEC)
    kept = flags & O_NONBLOCK
    reader = files.install(PipeFile(inode, O_RDONLY | kept, made), cloexec)
    try:
        writer = files.install(PipeFile(inode, O_WRONLY | kept, made), cloexec)
    except GuestError:
        files.close(reader)
        raise
    try:
        task.mem.write(fds, struct.pack("<ii", reader, writer))
    except GuestError:
        files.close(reader)
        files.close(writer)
        raise
    return 0


@syscall
def eventfd(task: "Task", count: UInt) -> int:
    """eventfd(2): a counter that can be waited for."""
    return eventfd2(task, count, 0)


@syscall
def eventfd2(task: "Task", count: UInt, flags: Flags) -> int:
    """eventfd2(2): the same, with flags."""
    if flags & ~(O_CLOEXEC | O_NONBLOCK | EFD_SEMAPHORE):
        raise GuestError(EINVAL)
    inode = EventInode(task.kernel.vfs.next_anonymous(), b"[eventfd]", task.kernel.clock.realtime_ns())
    return task.files.install(EventFile(inode, flags, count), bool(flags & O_CLOEXEC))


@syscall
def memfd_create(task: "Task", name: Pointer, flags: Flags) -> int:
    """memfd_create(2): a regular file without a name.

    MFD_HUGETLB is refused.
    """
    if flags & ~(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | MFD_EXEC):
        raise GuestError(EINVAL)
    if flags & MFD_EXEC and flags & MFD_NOEXEC_SEAL:
        raise GuestError(EINVAL)
    try:
        text = task.mem.read_cstring(name, _MEMFD_NAME_MAX + 1)
    except GuestError as error:
        raise GuestError(EINVAL if error.errno == ENAMETOOLONG else error.errno) from None
    task.files.lowest_free()
    mode, seals = S_IFREG | 0o777, 0 if flags & MFD_ALLOW_SEALING else F_SEAL_SEAL
    if flags & MFD_NOEXEC_SEAL:
        mode, seals = S_IFREG | 0o666, F_SEAL_EXEC
    inode = task.kernel.vfs.make_memfd(text, task.creds.fsuid, task.creds.fsgid, mode, seals)
    return task.files.install(RegularFile(inode, O_RDWR | O_LARGEFILE), bool(flags & MFD_CLOEXEC))
