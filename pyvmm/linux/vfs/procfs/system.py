"""The files of ``/proc`` that tell about the whole sandbox: each a function from the task that asks to the text."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pyvmm.linux.mm import MAX_MAP_COUNT

if TYPE_CHECKING:
    from pyvmm.linux.task import Task


def meminfo(task: "Task") -> bytes:
    """``meminfo``: the sandbox's limit and use."""
    kernel = task.kernel
    total = kernel.memory_limit >> 10
    free = max(total - (kernel.memory_used() >> 10), 0)
    lines = (
        (b"MemTotal", total), (b"MemFree", free), (b"MemAvailable", free), (b"Buffers", 0), (b"Cached", 0),
        (b"SwapCached", 0), (b"Active", total - free), (b"Inactive", 0), (b"SwapTotal", 0), (b"SwapFree", 0),
        (b"Dirty", 0), (b"Writeback", 0), (b"AnonPages", total - free), (b"Mapped", 0), (b"Shmem", 0), (b"Slab", 0),
        (b"SReclaimable", 0), (b"SUnreclaim", 0), (b"PageTables", 0), (b"CommitLimit", total),
        (b"Committed_AS", total - free), (b"VmallocTotal", 34359738367), (b"VmallocUsed", 0),
    )  # fmt: skip
    text = b"".join(b"%-15s %8d kB\n" % (name + b":", value) for name, value in lines)
    return text + b"HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n"


def stat(task: "Task") -> bytes:
    """``stat``."""
    clock = task.kernel.clock
    uptime, busy = clock.monotonic_ns() // 10_000_000, clock.cpu_ns() // 10_000_000
    times = b"%d 0 0 %d 0 0 0 0 0 0" % (busy, max(uptime - busy, 0))
    cpus = b"".join(b"cpu%d %s\n" % (number, times) for number in range(task.kernel.cpu_count))
    started = (clock.realtime_ns() - clock.monotonic_ns()) // 1_000_000_000
    return b"cpu  %s\n%sintr 0\nctxt 0\nbtime %d\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n" % (
        times,
        cpus,
        started,
    )


def uptime(task: "Task") -> bytes:
    """``uptime``: since the template was booted, and how much of that idle."""
    clock = task.kernel.clock
    up = clock.monotonic_ns() // 10_000_000
    idle = max(up - clock.cpu_ns() // 10_000_000, 0)
    return b"%d.%02d %d.%02d\n" % (*divmod(up, 100), *divmod(idle, 100))


def version(task: "Task") -> bytes:
    """``version``: as uname(2) says it."""
    from pyvmm.linux.syscalls.identity import RELEASE, SYSNAME, VERSION  # late: the calls import the file system

    return b"%s version %s (pyvmm) %s\n" % (SYSNAME, RELEASE, VERSION)


def osrelease(task: "Task") -> bytes:
    """``sys/kernel/osrelease``."""
    from pyvmm.linux.syscalls.identity import RELEASE

    return RELEASE + b"\n"


def os_version(task: "Task") -> bytes:
    """``sys/kernel/version``."""
    from pyvmm.linux.syscalls.identity import VERSION

    return VERSION + b"\n"


def uuid(task: "Task") -> bytes:
    """``sys/kernel/random/uuid``: a new one at each reading."""
    return _uuid(task.kernel.random(16))


def boot_id(task: "Task") -> bytes:
    """``sys/kernel/random/boot_id``: one for each sandbox."""
    return _uuid(task.kernel.vfs.boot_id(task.kernel.random))


def _uuid(data: bytes) -> bytes:
    raw = bytearray(data)
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    digits = raw.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])).encode() + b"\n"


def _file_counts(task: "Task") -> bytes:
    return b"%d\t0\t%d\n" % (len(task.files), task.files.limit)


#: Path below ``/proc`` -> what makes the text.
SYSTEM_FILES: dict[bytes, Callable[["Task"], bytes]] = {
    b"cpuinfo": lambda task: task.kernel.cpuinfo,
    b"meminfo": meminfo,
    b"stat": stat,
    b"uptime": uptime,
    b"loadavg": lambda task: b"0.00 0.00 0.00 1/1 %d\n" % task.pid,
    b"version": version,
    b"filesystems": lambda task: b"nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tpipefs\nnodev\toverlay\n",
    b"cmdline": lambda task: b"\n",
    b"devices": lambda task: b"Character devices:\n  1 mem\n  5 /dev/tty\n\nBlock devices:\n",
    b"cgroups": lambda task: b"#subsys_name\thierarchy\tnum_cgroups\tenabled\n",
    b"swaps": lambda task: b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
    b"sys/vm/overcommit_memory": lambda task: b"0\n",
    b"sys/vm/max_map_count": lambda task: b"%d\n" % MAX_MAP_COUNT,
    b"sys/vm/swappiness": lambda task: b"0\n",
    b"sys/vm/mmap_min_addr": lambda task: b"65536\n",
    b"sys/kernel/ostype": lambda task: b"Linux\n",
    b"sys/kernel/osrelease": osrelease,
    b"sys/kernel/version": os_version,
    b"sys/kernel/hostname": lambda task: task.kernel.hostname + b"\n",
    b"sys/kernel/domainname": lambda task: b"(none)\n",
    b"sys/kernel/pid_max": lambda task: b"32768\n",
    b"sys/kernel/threads-max": lambda task: b"1024\n",
    b"sys/kernel/ngroups_max": lambda task: b"65536\n",
    b"sys/kernel/cap_last_cap": lambda task: b"40\n",
    b"sys/kernel/core_pattern": lambda task: b"core\n",
    b"sys/kernel/randomize_va_space": lambda task: b"0\n",
    b"sys/kernel/random/boot_id": boot_id,
    b"sys/kernel/random/uuid": uuid,
    b"sys/kernel/random/entropy_avail": lambda task: b"256\n",
    b"sys/kernel/random/poolsize": lambda task: b"256\n",
    b"sys/fs/file-max": lambda task: b"%d\n" % task.files.limit,
    b"sys/fs/nr_open": lambda task: b"1048576\n",
    b"sys/fs/file-nr": _file_counts,
    b"sys/fs/pipe-max-size": lambda task: b"1048576\n",
    b"sys/fs/pipe-user-pages-soft": lambda task: b"16384\n",
    b"sys/fs/protected_hardlinks": lambda task: b"1\n",
    b"sys/fs/protected_symlinks": lambda task: b"0\n",
    b"sys/net/core/somaxconn": lambda task: b"4096\n",
}
