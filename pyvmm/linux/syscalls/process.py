"""The process itself: its end, its numbers, its limits, prctl(2) and arch_prctl(2)."""

import struct
from errno import EFAULT, EINVAL, ENODEV, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from typing import TYPE_CHECKING

from pyvmm.linux.abi.signal import NSIG
from pyvmm.linux.errors import GuestError, GuestExit, ThreadExit
from pyvmm.linux.layout import TASK_SIZE
from pyvmm.linux.limits import RLIM_NLIMITS, RLIMIT_NOFILE
from pyvmm.linux.syscalls.wait import usage_of
from pyvmm.linux.table import Int, Pointer, Size, UInt, ULong, syscall
from pyvmm.linux.task import COMM_LENGTH

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

ARCH_SET_GS, ARCH_SET_FS, ARCH_GET_FS, ARCH_GET_GS = 0x1001, 0x1002, 0x1003, 0x1004
ARCH_GET_CPUID, ARCH_SET_CPUID = 0x1011, 0x1012
ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM, ARCH_REQ_XCOMP_PERM = 0x1021, 0x1022, 0x1023
#: State components that Linux knows (``enum xfeature``); of those that need a permission, AMX, none is to be had.
_XFEATURE_MAX = 19

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_DUMPABLE = 1, 2, 3, 4
PR_SET_NAME, PR_GET_NAME = 15, 16
PR_GET_SECCOMP, PR_CAPBSET_READ = 21, 23
PR_SET_TIMERSLACK, PR_GET_TIMERSLACK = 29, 30
PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 36, 37
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 38, 39
PR_SET_VMA = 0x5356_4D41

RUSAGE_CHILDREN, RUSAGE_SELF, RUSAGE_THREAD = -1, 0, 1


@syscall
def exit_(task: "Task", status: Int) -> int:
    """_exit(2): the end of a thread."""
    raise ThreadExit(status & 0xFF)


@syscall
def exit_group(task: "Task", status: Int) -> int:
    """exit_group(2)."""
    raise GuestExit(status & 0xFF)


@syscall
def getpid(task: "Task") -> int:
    """getpid(2)."""
    return task.pid


@syscall
def gettid(task: "Task") -> int:
    """gettid(2)."""
    return task.tid


@syscall
def getppid(task: "Task") -> int:
    """getppid(2)."""
    return task.ppid


@syscall
def set_tid_address(task: "Task", address: Pointer) -> int:
    """set_tid_address(2)."""
    task.clear_child_tid = address
    return task.tid


@syscall
def set_robust_list(task: "Task", head: Pointer, size: Size) -> int:
    """set_robust_list(2)."""
    if size != 24:
        raise GuestError(EINVAL)
    task.robust_list = head
    return 0


@syscall
def get_robust_list(task: "Task", pid: Int, head: Pointer, size: Pointer) -> int:
    """get_robust_list(2)."""
    found = task.kernel.tasks.get(pid) if pid else task
    if found is None:
        raise GuestError(ESRCH)
    task.mem.write_u64(size, 24)
    task.mem.write_u64(head, found.robust_list)
    return 0


@syscall
def arch_prctl(task: "Task", code: Int, address: Pointer) -> int:
    """arch_prctl(2): the bases of FS and GS, and what it tells of the processor."""
    if code in (ARCH_SET_FS, ARCH_SET_GS):
        if address >= TASK_SIZE:
            raise GuestError(EPERM)
        if code == ARCH_SET_FS:
            task.cpu.fs_base = address
        else:
            task.cpu.gs_base = address
        return 0
    if code == ARCH_GET_FS:
        task.mem.write_u64(address, task.cpu.fs_base)
        return 0
    if code == ARCH_GET_GS:
        task.mem.write_u64(address, task.cpu.gs_base)
        return 0
    if code == ARCH_GET_CPUID:
        return 1
    if code == ARCH_SET_CPUID:
        raise GuestError(ENODEV)
    if code in (ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM):
        task.mem.write_u64(address, task.kernel.xcr0)
        return 0
    if code == ARCH_REQ_XCOMP_PERM:
        raise GuestError(EOPNOTSUPP if address < _XFEATURE_MAX else EINVAL)
    raise GuestError(EINVAL)


@syscall
def prctl(task: "Task", option: Int, arg2: ULong, arg3: ULong, arg4: ULong, arg5: ULong) -> int:
    """prctl(2).

    The name, no-new-privileges, dumpable and what asks for defaults; everything else is EINVAL.
    """
    if option == PR_SET_NAME:
        task.comm = _name(task, arg2)
        return 0
    if option == PR_GET_NAME:
        task.mem.write(arg2, task.comm.ljust(16, b"\0"))
        return 0
    if option == PR_SET_NO_NEW_PRIVS:
        if arg2 != 1 or arg3 or arg4 or arg5:
            raise GuestError(EINVAL)
        task.no_new_privs = True
        return 0
    if option == PR_GET_NO_NEW_PRIVS:
        return int(task.no_new_privs)
    if option == PR_SET_DUMPABLE:
        if arg2 > 1:
            raise GuestError(EINVAL)
        task.process.dumpable = bool(arg2)
        return 0
    if option == PR_GET_DUMPABLE:
        return int(task.process.dumpable)
    process = task.process
    if option in (PR_GET_PDEATHSIG, PR_GET_CHILD_SUBREAPER):
        task.mem.write_u32(arg2, process.death_signal if option == PR_GET_PDEATHSIG else process.is_subreaper)
        return 0
    if option == PR_SET_PDEATHSIG and arg2 <= NSIG:
        process.death_signal = arg2
        return 0
    if option == PR_SET_CHILD_SUBREAPER:
        process.is_subreaper = bool(arg2)
        return 0
    if option in (PR_SET_TIMERSLACK, PR_GET_SECCOMP):
        return 0
    if option == PR_GET_TIMERSLACK:
        return 50_000
    if option == PR_CAPBSET_READ and arg2 <= 40:
        return 0
    raise GuestError(EINVAL)


def _name(task: "Task", address: int) -> bytes:
    """Up to 15 bytes of a string that may be longer."""
    name = bytearray()
    while len(name) < COMM_LENGTH:
        byte = task.mem.read(address + len(name), 1)
        if byte == b"\0":
            break
        name += byte
    return bytes(name)


# -------------------------------------------------------------------------------------------------------------- limits


def _get_limit(task: "Task", resource: int) -> tuple[int, int]:
    if not 0 <= resource < RLIM_NLIMITS:
        raise GuestError(EINVAL)
    return task.rlimits[resource]


def _set_limit(task: "Task", resource: int, data: bytes) -> None:
    soft, hard = struct.unpack("<QQ", data)
    if soft > hard:
        raise GuestError(EINVAL)
    if hard > task.rlimits[resource][1]:
        raise GuestError(EPERM)
    task.rlimits[resource] = (soft, hard)
    if resource == RLIMIT_NOFILE:
        task.files.limit = soft


@syscall
def getrlimit(task: "Task", resource: UInt, limit: Pointer) -> int:
    """getrlimit(2)."""
    task.mem.write(limit, struct.pack("<QQ", *_get_limit(task, resource)))
    return 0


@syscall
def setrlimit(task: "Task", resource: UInt, limit: Pointer) -> int:
    """setrlimit(2).

    Enforced are RLIMIT_NOFILE and RLIMIT_FSIZE; the sandbox's own limits hold whatever is set here.
    """
    _get_limit(task, resource)
    _set_limit(task, resource, task.mem.read(limit, 16))
    return 0


@syscall
def prlimit64(task: "Task", pid: Int, resource: UInt, new: Pointer, old: Pointer) -> int:
    """prlimit(2)."""
    found = task.kernel.tasks.get(pid) if pid else task
    if found is None:
        raise GuestError(ESRCH)
    before = _get_limit(found, resource)
    data = task.mem.read(new, 16) if new else None
    if data is not None:
        _set_limit(found, resource, data)
    if old:
        task.mem.write(old, struct.pack("<QQ", *before))
    return 0


@syscall
def getrusage(task: "Task", who: Int, usage: Pointer) -> int:
    """getrusage(2).

    Processor time is all counted as user time; resident size is what the sandbox uses.
    """
    kernel = task.kernel
    resident = kernel.memory_used() >> 10
    if who == RUSAGE_SELF:
        data = usage_of(kernel.process_cpu_ns(task.process), resident)
    elif who == RUSAGE_THREAD:
        data = usage_of(kernel.task_cpu_ns(task), resident)
    elif who == RUSAGE_CHILDREN:
        data = usage_of(task.process.children_cpu_ns)
    else:
        raise GuestError(EINVAL)
    task.mem.write(usage, data)
    return 0


# ---------------------------------------------------------------------------------------- what there is one answer to


@syscall
def rseq(task: "Task", area: Pointer, length: UInt, flags: Int, signature: UInt) -> int:
    """rseq(2).

    Not offered: a scheduler that pre-empts would have to abort critical sections. glibc does without it.
    """
    raise GuestError(ENOSYS)


@syscall
def personality(task: "Task", persona: UInt) -> int:
    """personality(2): always PER_LINUX."""
    return 0


@syscall
def capget(task: "Task", header: Pointer, data: Pointer) -> int:
    """capget(2): none."""
    version, pid = struct.unpack("<Ii", task.mem.read(header, 8))
    sets = {0x1998_0330: 1, 0x2007_1026: 2, 0x2008_0522: 2}.get(version)
    if sets is None:
        task.mem.write_u32(header, 0x2008_0522)
        if not data:
            return 0
        raise GuestError(EINVAL)
    if pid < 0:
        raise GuestError(EINVAL)
    if pid and pid not in task.kernel.tasks:
        raise GuestError(ESRCH)
    if data:
        task.mem.write(data, bytes(12 * sets))
    return 0


@syscall
def capset(task: "Task", header: Pointer, data: Pointer) -> int:
    """capset(2): nothing can be gained, giving up everything succeeds."""
    version = task.mem.read_u32(header)
    sets = {0x1998_0330: 1, 0x2007_1026: 2, 0x2008_0522: 2}.get(version)
    if sets is None:
        raise GuestError(EINVAL)
    if not data:
        raise GuestError(EFAULT)
    if any(task.mem.read(data, 12 * sets)):
        raise GuestError(EPERM)
    return 0
