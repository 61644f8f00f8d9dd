"""The files of ``/proc/<pid>``: each a function from the process to its text."""

from collections.abc import Callable
from errno import EINVAL
from typing import TYPE_CHECKING

from pyvmm.linux.abi.mman import MAP_SHARED, MAP_TYPE, PROT_EXEC, PROT_READ, PROT_WRITE
from pyvmm.linux.abi.stat import major, minor
from pyvmm.linux.errors import GuestError
from pyvmm.linux.layout import PAGE_SIZE
from pyvmm.linux.limits import RLIM_INFINITY
from pyvmm.linux.signals import SignalState
from pyvmm.linux.task import COMM_LENGTH

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_PAGE_SHIFT = 12
#: The column in which paths begin in ``maps``.
_NAME_COLUMN = 73


def maps(task: "Task") -> bytes:
    """``maps``: the areas of the address space."""
    dev = task.kernel.vfs.rootfs.dev
    lines = []
    for area in task.mm.maps():
        start, end, prot, flags, ino, offset, name = area[:7]
        rights = (b"r" if prot & PROT_READ else b"-") + (b"w" if prot & PROT_WRITE else b"-")
        rights += (b"x" if prot & PROT_EXEC else b"-") + (b"s" if flags & MAP_TYPE == MAP_SHARED else b"p")
        device = b"%02x:%02x" % (major(dev), minor(dev)) if ino else b"00:00"
        line = b"%08x-%08x %s %08x %s %d" % (start, end, rights, offset if ino else 0, device, ino)
        lines.append(
            (line.ljust(_NAME_COLUMN - 1) + b" " + name.replace(b"\n", b"\\012") if name else line + b" ") + b"\n"
        )
    return b"".join(lines)


def _sizes(task: "Task") -> tuple[int, int, int, int]:
    """Bytes: whole address space, resident, code, data and stack."""
    total = code = data = 0
    for area in task.mm.maps():
        size = area.end - area.start
        total += size
        if area.prot & PROT_EXEC:
            code += size
        elif area.prot & PROT_WRITE:
            data += size
    return total, min(task.kernel.memory_used(), total), code, data


def stat(task: "Task") -> bytes:
    """``stat``: 52 fields in a row."""
    kernel = task.kernel
    total, resident, _, _ = _sizes(task)
    process, signals = task.process, task.signals
    tick = 10_000_000
    ticks, child_ticks = kernel.process_cpu_ns(process) // tick, process.children_cpu_ns // tick
    ignored, caught = _dispositions(signals)
    fields = [
        task.ppid, process.group, process.session, 0, -1, 0x400000, 0, 0, 0, 0,
        ticks, 0, child_ticks, 0, 20 + task.nice, task.nice, len(process.threads), 0, 0,
        total, resident >> _PAGE_SHIFT, RLIM_INFINITY, 0, 0, 0, 0, 0,
        *(mask & 0x7FFF_FFFF for mask in (signals.pending_mask(), signals.blocked, ignored, caught)),
        0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, task.mm.brk_start, *task.mm.arguments, *task.mm.environment, 0,
    ]  # fmt: skip
    state = _state(task)
    return b"%d (%s) %s %s\n" % (task.tid, task.comm, state, b" ".join(b"%d" % field for field in fields))


def _state(task: "Task") -> bytes:
    """The letter of its state."""
    return task.state.value.encode()


def statm(task: "Task") -> bytes:
    """``statm``: sizes in pages."""
    total, resident, code, data = (size >> _PAGE_SHIFT for size in _sizes(task))
    return b"%d %d 0 %d 0 %d 0\n" % (total, resident, code, data)


def _dispositions(signals: SignalState) -> tuple[int, int]:
    """Masks of the signals that are ignored, and of those that have a handler."""
    ignored = caught = 0
    for signo, action in signals.actions.items():
        if action.handler == 1:
            ignored |= 1 << signo - 1
        elif action.handler:
            caught |= 1 << signo - 1
    return ignored, caught


_STATES = {b"R": b"running", b"S": b"sleeping", b"T": b"stopped", b"X": b"dead"}


def status(task: "Task") -> bytes:
    """``status``: the same for people."""
    total, resident, code, data = (size >> 10 for size in _sizes(task))
    creds, signals = task.creds, task.signals
    ignored, caught = _dispositions(signals)
    lines = (
        (b"Name", task.comm),
        (b"Umask", b"%04o" % task.fs.umask),
        (b"State", b"%s (%s)" % (_state(task), _STATES[_state(task)])),
        (b"Tgid", b"%d" % task.pid),
        (b"Ngid", b"0"),
        (b"Pid", b"%d" % task.tid),
        (b"PPid", b"%d" % task.ppid),
        (b"TracerPid", b"0"),
        (b"Uid", b"%d\t%d\t%d\t%d" % (creds.uid, creds.euid, creds.suid, creds.fsuid)),
        (b"Gid", b"%d\t%d\t%d\t%d" % (creds.gid, creds.egid, creds.sgid, creds.fsgid)),
        (b"FDSize", b"%d" % max(64, len(task.files))),
        (b"Groups", b"".join(b"%d " % group for group in creds.groups)),
        *((b"NS" + key, b"%d" % value) for key, value in (
            (b"tgid", task.pid), (b"pid", task.tid), (b"pgid", task.process.group), (b"sid", task.process.session),
        )),
        *((b"Vm" + key, b"%8d kB" % value) for key, value in (
            (b"Peak", total), (b"Size", total), (b"Lck", 0), (b"Pin", 0), (b"HWM", resident), (b"RSS", resident),
        )),
        *((b"Rss" + key, b"%8d kB" % value) for key, value in ((b"Anon", resident), (b"File", 0), (b"Shmem", 0))),
        *((b"Vm" + key, b"%8d kB" % value) for key, value in (
            (b"Data", data), (b"Stk", 8192), (b"Exe", code), (b"Lib", 0), (b"PTE", 0), (b"Swap", 0),
        )),
        (b"CoreDumping", b"0"),
        (b"THP_enabled", b"0"),
        (b"Threads", b"%d" % len(task.process.threads)),
        (b"SigQ", b"%d/1024" % signals.pending.count),
        (b"SigPnd", b"%016x" % signals.pending.mask),
        (b"ShdPnd", b"%016x" % signals.shared.pending.mask),
        (b"SigBlk", b"%016x" % signals.blocked),
        (b"SigIgn", b"%016x" % ignored),
        (b"SigCgt", b"%016x" % caught),
        *((b"Cap" + key, b"%016x" % 0) for key in (b"Inh", b"Prm", b"Eff", b"Bnd", b"Amb")),
        (b"NoNewPrivs", b"%d" % task.no_new_privs),
        (b"Seccomp", b"0"),
        (b"Seccomp_filters", b"0"),
        (b"Cpus_allowed", b"1"),
        (b"Cpus_allowed_list", b"0"),
        (b"Mems_allowed", b"1"),
        (b"Mems_allowed_list", b"0"),
        (b"voluntary_ctxt_switches", b"0"),
        (b"nonvoluntary_ctxt_switches", b"0"),
    )  # fmt: skip
    return b"".join(b"%s:\t%s\n" % line for line in lines)


_LIMITS = (
    (b"Max cpu time", b"seconds"), (b"Max file size", b"bytes"), (b"Max data size", b"bytes"),
    (b"Max stack size", b"bytes"), (b"Max core file size", b"bytes"), (b"Max resident set", b"bytes"),
    (b"Max processes", b"processes"), (b"Max open files", b"files"), (b"Max locked memory", b"bytes"),
    (b"Max address space", b"bytes"), (b"Max file locks", b"locks"), (b"Max pending signals", b"signals"),
    (b"Max msgqueue size", b"bytes"),
    (b"Max nice priority", b""), (b"Max realtime priority", b""), (b"Max realtime timeout", b"us"),
)  # fmt: skip


def limits(task: "Task") -> bytes:
    """``limits``: resource limits."""
    lines = [b"%-25s %-20s %-20s %-10s\n" % (b"Limit", b"Soft Limit", b"Hard Limit", b"Units")]
    for (name, unit), pair in zip(_LIMITS, task.rlimits, strict=True):
        soft, hard = (b"unlimited" if value == RLIM_INFINITY else b"%d" % value for value in pair)
        lines.append(b"%-25s %-20s %-20s %-10s\n" % (name, soft, hard, unit))
    return b"".join(lines)


def mounts(task: "Task") -> bytes:
    """``mounts``: as fstab(5)."""
    return b"".join(
        b"%s %s %s %s 0 0\n" % (fs.kind, fs.mountpoint, fs.kind, fs.options) for fs in task.kernel.vfs.mounted()
    )


def mountinfo(task: "Task") -> bytes:
    """``mountinfo``: with numbers."""
    lines = []
    for number, fs in enumerate(task.kernel.vfs.mounted(), 20):
        above = {b"/": 1, b"/dev/shm": 21}.get(fs.mountpoint, 20)
        lines.append(
            b"%d %d 0:%d / %s %s - %s %s rw\n" % (number, above, fs.dev, fs.mountpoint, fs.options, fs.kind, fs.kind)
        )
    return b"".join(lines)


def io(task: "Task") -> bytes:
    """``io``: not counted."""
    names = (b"rchar", b"wchar", b"syscr", b"syscw", b"read_bytes", b"write_bytes", b"cancelled_write_bytes")
    return b"".join(b"%s: 0\n" % name for name in names)


def set_comm(task: "Task", data: bytes) -> None:
    """Writing ``comm`` names the thread."""
    task.comm = data.split(b"\0")[0].rstrip(b"\n")[:COMM_LENGTH]


def set_oom_score_adj(task: "Task", data: bytes) -> None:
    """Accepted if it is a number that Linux would accept; there is nobody to choose from."""
    try:
        value = int(data)
    except ValueError:
        raise GuestError(EINVAL) from None
    if not -1000 <= value <= 1000:
        raise GuestError(EINVAL)


def cmdline(task: "Task") -> bytes:
    """``cmdline``, as the program has it now. If it has written over the end of its arguments, it means one string that
    may go on in the environment (setproctitle(3)).
    """
    start, end = task.mm.arguments
    data = _strings(task, start, end)
    if data and data[-1]:
        title, closed, _ = _strings(task, start, min(start + PAGE_SIZE, task.mm.environment[1])).partition(b"\0")
        return title + closed
    return data


def _strings(task: "Task", start: int, end: int) -> bytes:
    """What is in the memory of ``task``; nothing if it has ended, or has unmapped it."""
    if not task.mm.users:
        return b""
    try:
        return task.mem.read(start, end - start)
    except GuestError:
        return b""


_Entry = tuple[int, Callable[["Task"], bytes], Callable[["Task", bytes], None] | None]

#: Name -> mode, what makes the text, what takes a write.
PROCESS_FILES: dict[bytes, _Entry] = {
    b"maps": (0o444, maps, None),
    b"cmdline": (0o444, cmdline, None),
    b"environ": (0o400, lambda task: _strings(task, *task.mm.environment), None),
    b"auxv": (0o400, lambda task: bytes(16), None),
    b"stat": (0o444, stat, None),
    b"statm": (0o444, statm, None),
    b"status": (0o444, status, None),
    b"comm": (0o644, lambda task: task.comm + b"\n", set_comm),
    b"limits": (0o444, limits, None),
    b"mounts": (0o444, mounts, None),
    b"mountinfo": (0o444, mountinfo, None),
    b"cgroup": (0o444, lambda task: b"0::/\n", None),
    b"io": (0o400, io, None),
    b"oom_score": (0o444, lambda task: b"0\n", None),
    b"oom_score_adj": (0o644, lambda task: b"0\n", set_oom_score_adj),
    b"oom_adj": (0o644, lambda task: b"0\n", set_oom_score_adj),
    b"wchan": (0o444, lambda task: b"0", None),
    b"loginuid": (0o444, lambda task: b"4294967295", None),
    b"personality": (0o400, lambda task: b"00000000\n", None),
    b"uid_map": (0o444, lambda task: b"         0          0 4294967295\n", None),
    b"gid_map": (0o444, lambda task: b"         0          0 4294967295\n", None),
}
