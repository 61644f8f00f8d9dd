"""Who the program is, and what system it is told it runs on."""

import struct
from errno import EINVAL, EPERM
from typing import TYPE_CHECKING

from pyvmm.linux.errors import GuestError
from pyvmm.linux.table import Int, Pointer, Size, UInt, syscall

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: What uname(2) says. The release is the oldest kernel whose calls are all understood here, not the host's.
SYSNAME, RELEASE, VERSION, MACHINE = b"Linux", b"6.1.0-pyvmm", b"#1 SMP PREEMPT_DYNAMIC pyvmm", b"x86_64"

_UNCHANGED = 0xFFFF_FFFF


@syscall
def uname(task: "Task", buffer: Pointer) -> int:
    """uname(2)."""
    fields = (SYSNAME, task.kernel.hostname, RELEASE, VERSION, MACHINE, b"(none)")
    task.mem.write(buffer, struct.pack("65s65s65s65s65s65s", *fields))
    return 0


@syscall
def sethostname(task: "Task", name: Pointer, size: Size) -> int:
    """sethostname(2)."""
    raise GuestError(EPERM)


@syscall
def getuid(task: "Task") -> int:
    """getuid(2)."""
    return task.creds.uid


@syscall
def geteuid(task: "Task") -> int:
    """geteuid(2)."""
    return task.creds.euid


@syscall
def getgid(task: "Task") -> int:
    """getgid(2)."""
    return task.creds.gid


@syscall
def getegid(task: "Task") -> int:
    """getegid(2)."""
    return task.creds.egid


@syscall
def getresuid(task: "Task", real: Pointer, effective: Pointer, saved: Pointer) -> int:
    """getresuid(2)."""
    for pointer, value in ((real, task.creds.uid), (effective, task.creds.euid), (saved, task.creds.suid)):
        task.mem.write_u32(pointer, value)
    return 0


@syscall
def getresgid(task: "Task", real: Pointer, effective: Pointer, saved: Pointer) -> int:
    """getresgid(2)."""
    for pointer, value in ((real, task.creds.gid), (effective, task.creds.egid), (saved, task.creds.sgid)):
        task.mem.write_u32(pointer, value)
    return 0


@syscall
def getgroups(task: "Task", size: Int, groups: Pointer) -> int:
    """getgroups(2)."""
    own = task.creds.groups
    if size < 0 or 0 < size < len(own):
        raise GuestError(EINVAL)
    if size:
        task.mem.write(groups, struct.pack(f"<{len(own)}I", *own))
    return len(own)


@syscall
def setgroups(task: "Task", size: Int, groups: Pointer) -> int:
    """setgroups(2): only root may."""
    raise GuestError(EPERM)


def _only_own(own: tuple[int, ...], *wanted: int) -> int:
    """Success if every id that is to be set (-1: left alone) is one that the task has."""
    for value in wanted:
        if value != _UNCHANGED and value not in own:
            raise GuestError(EPERM)
    return 0


def _uids(task: "Task") -> tuple[int, ...]:
    return task.creds.uid, task.creds.euid, task.creds.suid


def _gids(task: "Task") -> tuple[int, ...]:
    return task.creds.gid, task.creds.egid, task.creds.sgid


@syscall
def setuid(task: "Task", uid: UInt) -> int:
    """setuid(2)."""
    if uid == _UNCHANGED:
        raise GuestError(EINVAL)
    return _only_own(_uids(task), uid)


@syscall
def setgid(task: "Task", gid: UInt) -> int:
    """setgid(2)."""
    if gid == _UNCHANGED:
        raise GuestError(EINVAL)
    return _only_own(_gids(task), gid)


@syscall
def setreuid(task: "Task", real: UInt, effective: UInt) -> int:
    """setreuid(2)."""
    return _only_own(_uids(task), real, effective)


@syscall
def setregid(task: "Task", real: UInt, effective: UInt) -> int:
    """setregid(2)."""
    return _only_own(_gids(task), real, effective)


@syscall
def setresuid(task: "Task", real: UInt, effective: UInt, saved: UInt) -> int:
    """setresuid(2)."""
    return _only_own(_uids(task), real, effective, saved)


@syscall
def setresgid(task: "Task", real: UInt, effective: UInt, saved: UInt) -> int:
    """setresgid(2)."""
    return _only_own(_gids(task), real, effective, saved)


@syscall
def setfsuid(task: "Task", uid: UInt) -> int:
    """setfsuid(2): the answer is the one before, whether it changed or not."""
    return task.creds.fsuid


@syscall
def setfsgid(task: "Task", gid: UInt) -> int:
    """setfsgid(2)."""
    return task.creds.fsgid


@syscall
def sysinfo(task: "Task", info: Pointer) -> int:
    """sysinfo(2)."""
    kernel = task.kernel
    free = max(kernel.memory_limit - kernel.memory_used(), 0)
    uptime = kernel.clock.monotonic_ns() // 1_000_000_000
    data = struct.pack("<q3Q6QH6xQQI", uptime, 0, 0, 0, kernel.memory_limit, free, 0, 0, 0, 0, 1, 0, 0, 1)
    task.mem.write(info, data.ljust(112, b"\0"))
    return 0
