"""``hvm_start_info``, which a kernel entered by PVH is told everything by: ``xen/include/public/arch-x86/hvm/
start_info.h``.
"""

import struct

from pyvmm.boot.layout import ACPI_TABLES, BOOT_PARAMS, COMMAND_LINE
from pyvmm.boot.memory_map import Region

XEN_HVM_START_MAGIC_VALUE = 0x336E_C578

#: magic, version, flags, nr_modules, modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr, memmap_entries, reserved
_START_INFO = struct.Struct("<IIIIQQQQII")
#: paddr, size, cmdline_paddr, reserved
_MODLIST_ENTRY = struct.Struct("<QQQQ")
#: addr, size, type, reserved; the types are those of e820
_MEMMAP_TABLE_ENTRY = struct.Struct("<QQII")


def start_info(regions: list[Region], initramfs: tuple[int, int]) -> bytes:
    """The structure, to lie at ``layout.BOOT_PARAMS``, and after it what it points to.

    :param initramfs: its physical address and its size in bytes; the first module, unless the size is 0.
    """
    address, size = initramfs
    modules = _MODLIST_ENTRY.pack(address, size, 0, 0) if size else b""
    modlist = BOOT_PARAMS + _START_INFO.size
    memmap = modlist + len(modules)
    header = _START_INFO.pack(
        XEN_HVM_START_MAGIC_VALUE,
        1,
        0,
        1 if size else 0,
        modlist if size else 0,
        COMMAND_LINE,
        ACPI_TABLES,
        memmap,
        len(regions),
        0,
    )
    return header + modules + b"".join(_MEMMAP_TABLE_ENTRY.pack(*region, 0) for region in regions)
