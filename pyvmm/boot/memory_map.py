"""What a guest is told of its physical memory: ACPI 6.4, chapter 15, "System Address Map Interfaces" (e820)."""

from typing import NamedTuple

from pyvmm.boot.layout import ACPI_TABLES, GENERATION_COUNTER, HIGH_MEMORY, LOW_MEMORY_END

E820_TYPE_RAM, E820_TYPE_RESERVED = 1, 2


class Region(NamedTuple):
    """``size`` bytes of physical memory; ``type`` is E820_TYPE_*."""

    address: int
    size: int
    type: int


def memory_map(memory_size: int) -> list[Region]:
    """The regions of a machine with that many bytes of memory, ascending.

    What the monitor goes on to read or write is reserved: a kernel must not use it even once it has read the tables.
    """
    return [
        Region(0, GENERATION_COUNTER, E820_TYPE_RAM),
        Region(GENERATION_COUNTER, LOW_MEMORY_END - GENERATION_COUNTER, E820_TYPE_RESERVED),
        Region(ACPI_TABLES, HIGH_MEMORY - ACPI_TABLES, E820_TYPE_RESERVED),
        Region(HIGH_MEMORY, memory_size - HIGH_MEMORY, E820_TYPE_RAM),
    ]
