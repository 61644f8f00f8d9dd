"""What the numbers depend on: the host that they were measured on, its memory, and what this process holds."""

import os
import platform
import sys
import time
from pathlib import Path

from pyvmm.host import Host

__all__ = ["count_descriptors", "count_mappings", "describe_host", "memory_available", "memory_of_forks"]


def memory_available() -> int:
    """MemAvailable of this host, in bytes."""
    return _figures("/proc/meminfo")["MemAvailable"]


def memory_of_forks() -> int:
    """Bytes of what forks are made of: the kernel's slabs, vmalloc areas and page tables, and this process's own pages.

    Less disturbed by what else happens on the host than MemAvailable, and less complete.
    """
    host = _figures("/proc/meminfo")
    kernel = sum(host.get(name, 0) for name in ("Slab", "VmallocUsed", "PageTables", "SecPageTables"))
    return kernel + _figures("/proc/self/status")["RssAnon"]


def _figures(path: str) -> dict[str, int]:
    """The lines of a file that say ``Name: NUMBER kB``, in bytes."""
    figures = {}
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            figures[name] = int(value.split()[0]) * 1024
    return figures


def count_descriptors() -> int:
    """Descriptors that this process has open."""
    # One of them is that of the listing itself, at every call.
    return len(os.listdir("/proc/self/fd"))


def count_mappings() -> int:
    """Mappings of this process, of which the kernel allows ``vm.max_map_count``."""
    with open("/proc/self/maps", "rb") as maps:
        return sum(1 for _ in maps)


def describe_host(host: Host) -> dict[str, str]:
    """The facts that belong beside every number."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "processor": f"{os.cpu_count()} × {model}",
        "kernel": platform.release(),
        "kvm": "software (kvm_pvm)" if host.is_software else "hardware",
        "python": sys.version.split()[0],
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }
