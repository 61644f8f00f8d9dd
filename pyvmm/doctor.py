"""What this host offers to pyvmm, and what to do about each thing that is missing."""

import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from pyvmm.errors import HostError, PyvmmError
from pyvmm.kvm import Kvm, KvmError
from pyvmm.kvm.abi import capabilities
from pyvmm.template.cache import TemplateCache
from pyvmm.template.interpreter import base_executable
from pyvmm.template.libraries import Loader
from pyvmm.template.packages import find_pip

Status = Literal["ok", "info", "warn", "fail"]

_MIB = 1 << 20
_GIB = 1 << 30

# What a fork cannot do without, and what merely serves it better. Names as in linux/kvm.h.
_REQUIRED = (
    "KVM_CAP_USER_MEMORY",
    "KVM_CAP_EXT_CPUID",
    "KVM_CAP_SYNC_REGS",
    "KVM_CAP_XSAVE",
    "KVM_CAP_XCRS",
    "KVM_CAP_VCPU_EVENTS",
)
_WANTED = (
    "KVM_CAP_XSAVE2",
    "KVM_CAP_IMMEDIATE_EXIT",
    "KVM_CAP_DEBUGREGS",
    "KVM_CAP_SPLIT_IRQCHIP",
    "KVM_CAP_READONLY_MEM",
)

DESCRIPTORS_A_FORK = 2
MAPPINGS_A_FORK = 2


class Finding(msgspec.Struct, frozen=True):
    """One fact; ``advice`` says what to do when ``status`` is ``warn`` (works, but) or ``fail`` (nothing will run)."""

    group: str
    name: str
    status: Status
    value: str
    advice: str = ""


def diagnose(device: str = "/dev/kvm", cache: TemplateCache | None = None) -> list[Finding]:
    """All findings about this host, those about KVM first."""
    return [*_kvm(device), *_limits(), *_memory(), *_processor(), *_python(), *_templates(cache or TemplateCache())]


def usable(findings: list[Finding]) -> bool:
    """Whether guests can run here at all."""
    return all(finding.status != "fail" for finding in findings)


def kvm_kind() -> str:
    """Which KVM is underneath: ``kvm_intel`` or ``kvm_amd`` (hardware), ``kvm_pvm`` (software), or ``unknown``."""
    for module in ("kvm_pvm", "kvm_intel", "kvm_amd"):
        if Path("/sys/module", module).exists():
            return module
    return "unknown"


def _kvm(device: str) -> Iterator[Finding]:
    try:
        kvm = Kvm(device)
    except KvmError as error:
        reason, _, advice = str(error).partition("; ")
        yield Finding("kvm", "device", "fail", reason, advice or "pyvmm needs a usable /dev/kvm")
        return
    with kvm:
        yield Finding("kvm", "device", "ok", f"{device} can be opened, interface version 12")
        yield _kind()
        try:
            with kvm.create_vm():
                yield Finding("kvm", "create a VM", "ok", "works")
        except HostError as error:
            reason, _, advice = str(error).partition("; ")
            yield Finding("kvm", "create a VM", "fail", reason, advice or "see the kernel's log (dmesg)")
            return
        for name in _REQUIRED + _WANTED:
            yield _capability(kvm, name)
        slots = kvm.check_extension(capabilities.KVM_CAP_NR_MEMSLOTS)
        few = slots < 8
        advice = "guests that need much memory may not get it" if few else ""
        yield Finding("kvm", "memory slots a VM", "warn" if few else "ok", str(slots), advice)


def _kind() -> Finding:
    kind = kvm_kind()
    if kind == "kvm_pvm":
        text = "software (kvm_pvm): programs run at full speed, bare-metal guests interpreted, stock Linux not at all"
    elif kind == "unknown":
        text = "unknown: neither kvm_intel, kvm_amd nor kvm_pvm is listed in /sys/module"
    else:
        text = f"hardware ({kind}): every kind of guest runs"
    return Finding("kvm", "kind", "info", text)


def _capability(kvm: Kvm, name: str) -> Finding:
    value = kvm.check_extension(getattr(capabilities, name))
    if value:
        return Finding("kvm", name, "ok", "yes" if value == 1 else f"yes ({value:#x})")
    if name in _REQUIRED:
        return Finding(
            "kvm", name, "fail", "no", "this kernel's KVM is too old: Linux 5.17 or newer has all that is needed"
        )
    return Finding("kvm", name, "info", "no")


def _limits() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    forks = _count(hard, DESCRIPTORS_A_FORK)
    few = hard != resource.RLIM_INFINITY and hard < 4096
    advice = "raise the hard limit: LimitNOFILE= (systemd), --ulimit nofile= (containers), /etc/security/limits.conf"
    value = f"{_limit(soft)} of at most {_limit(hard)}: {forks} live forks a process"
    yield Finding("limits", "open descriptors (ulimit -n)", "warn" if few else "ok", value, advice if few else "")

    maps = _number("/proc/sys/vm/max_map_count")
    if maps is not None:
        few = maps < 65530
        value = f"{maps}: {_count(maps, MAPPINGS_A_FORK)} live forks a process"
        advice = "sysctl vm.max_map_count=262144" if few else ""
        yield Finding("limits", "memory mappings (vm.max_map_count)", "warn" if few else "ok", value, advice)

    soft, _ = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    few = soft != resource.RLIM_INFINITY and soft < 256
    advice = "each thread that runs guests has one timer, which counts here: raise ulimit -i" if few else ""
    yield Finding("limits", "pending signals (ulimit -i)", "warn" if few else "ok", _limit(soft), advice)

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    bounded = soft != resource.RLIM_INFINITY
    advice = (
        "each live fork maps its whole memory: lift ulimit -v, and bound real memory by a cgroup instead"
        if bounded
        else ""
    )
    yield Finding(
        "limits", "address space (ulimit -v)", "warn" if bounded else "ok", _limit(soft, _MIB, " MiB"), advice
    )

    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    yield Finding("limits", "locked memory (ulimit -l)", "info", _limit(soft, _MIB, " MiB"))


def _memory() -> Iterator[Finding]:
    available = _available_memory()
    low = available < _GIB
    advice = "a template with numpy and pandas wants 1 GiB while it is built" if low else ""
    yield Finding("memory", "available", "warn" if low else "ok", _size(available), advice)
    limit = _cgroup_limit()
    if limit is not None:
        low = limit < _GIB
        advice = "raise the memory limit of the container or unit" if low else ""
        yield Finding("memory", "limit of the cgroup", "warn" if low else "info", _size(limit), advice)
    if _number("/proc/sys/vm/overcommit_memory") == 2:
        yield Finding(
            "memory", "overcommit", "warn", "strict", "forks reserve more than they use: sysctl vm.overcommit_memory=0"
        )


def _processor() -> Iterator[Finding]:
    model = next((text for text in _lines("/proc/cpuinfo") if text.startswith("model name")), "")
    yield Finding(
        "host",
        "processor",
        "info",
        f"{model.partition(':')[2].strip() or platform.machine()}, {os.cpu_count()} of them",
    )
    if platform.machine() != "x86_64":
        yield Finding("host", "architecture", "fail", platform.machine(), "pyvmm runs on x86-64 only")
    yield Finding("host", "kernel", "info", platform.release())
    source = "".join(_lines("/sys/devices/system/clocksource/clocksource0/current_clocksource")).strip()
    slow = source not in ("tsc", "kvm-clock", "")
    advice = (
        "reading the time is slow on this host, so are measurements: a kernel that trusts the TSC is quicker"
        if slow
        else ""
    )
    yield Finding("host", "clock source", "warn" if slow else "ok", source or "unknown", advice)


def _python() -> Iterator[Finding]:
    executable = base_executable()
    yield Finding("python", "version", "ok", f"{platform.python_version()} ({platform.python_implementation()})")
    try:
        loader = Loader(executable)
        yield Finding("python", "interpreter for templates", "ok", f"{executable} with {loader.path}")
    except PyvmmError as error:
        advice = "run pyvmm with a Python that is linked to glibc dynamically, such as the distribution's"
        yield Finding("python", "interpreter for templates", "fail", str(error), advice)
    pip = find_pip()
    advice = "" if pip else f"recipes with packages need it: {sys.executable} -m ensurepip"
    yield Finding("python", "pip", "ok" if pip else "warn", "found" if pip else "missing", advice)


def _templates(cache: TemplateCache) -> Iterator[Finding]:
    folder = next(path for path in (cache.home, *cache.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    low = free < 2 * _GIB
    advice = "a template takes up to 1 GiB: free some space, or set PYVMM_HOME to a larger disk" if low else ""
    yield Finding("templates", "disk", "warn" if low else "ok", f"{_size(free)} free for {cache.home}", advice)
    if not os.access(folder, os.W_OK):
        yield Finding("templates", "folder", "warn", f"{folder} is not writable", "set PYVMM_HOME to a folder of yours")
    entries = cache.entries()
    for entry in entries:
        yield Finding("templates", entry.name, "ok", f"{entry.key[:12]}, {_size(entry.disk_bytes)}")
    if not entries:
        advice = "build it with `pyvmm template build python`; `pyvmm serve` does so at its first start"
        yield Finding("templates", "built", "info", "none yet", advice)


def _available_memory() -> int:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _cgroup_limit() -> int | None:
    """The smallest memory limit on the way from this process's cgroup to the root; bytes."""
    own = next((line[3:].strip() for line in _lines("/proc/self/cgroup") if line.startswith("0::")), "/")
    path = Path("/sys/fs/cgroup") / own.lstrip("/")
    limits = [_number(str(folder / "memory.max")) for folder in (path, *path.parents)]
    known = [limit for limit in [*limits, _number("/sys/fs/cgroup/memory/memory.limit_in_bytes")] if limit is not None]
    return min((limit for limit in known if limit < 1 << 60), default=None)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []


def _number(path: str) -> int | None:
    try:
        return int("".join(_lines(path)))
    except ValueError:
        return None


def _count(limit: int, each: int) -> str:
    return "any number of" if limit == resource.RLIM_INFINITY else f"about {max(0, limit - 64) // each}"


def _limit(value: int, unit: int = 1, name: str = "") -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else f"{value // unit}{name}"


def _size(value: int) -> str:
    return f"{value / _GIB:.1f} GiB" if value >= _GIB else f"{value / _MIB:.0f} MiB"
