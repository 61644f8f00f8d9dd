"""``boot_params``, the "zero page" that Linux is told everything by: ``arch/x86/include/uapi/asm/bootparam.h``.

Fields have their names in the header and are read and written where they lie, because its structures are packed.
"""

import struct
from typing import NamedTuple

from pyvmm.boot.layout import ACPI_TABLES, COMMAND_LINE, COMMAND_LINE_SIZE
from pyvmm.boot.memory_map import Region

SIZE = 4096


class Field(NamedTuple):
    """A little-endian number of ``size`` bytes, ``offset`` bytes from the start of ``boot_params``, or of a bzImage."""

    offset: int
    size: int

    def read(self, page: memoryview | bytes | bytearray) -> int:
        """Its value."""
        return int.from_bytes(page[self.offset : self.offset + self.size], "little")

    def write(self, page: memoryview | bytearray, value: int) -> None:
        """Set it."""
        page[self.offset : self.offset + self.size] = value.to_bytes(self.size, "little")


ACPI_RSDP_ADDR = Field(0x070, 8)
E820_ENTRIES = Field(0x1E8, 1)
# struct setup_header
SETUP_SECTS = Field(0x1F1, 1)
BOOT_FLAG = Field(0x1FE, 2)
HEADER = Field(0x202, 4)
VERSION = Field(0x206, 2)
TYPE_OF_LOADER = Field(0x210, 1)
LOADFLAGS = Field(0x211, 1)
RAMDISK_IMAGE = Field(0x218, 4)
RAMDISK_SIZE = Field(0x21C, 4)
CMD_LINE_PTR = Field(0x228, 4)
INITRD_ADDR_MAX = Field(0x22C, 4)
XLOADFLAGS = Field(0x236, 2)
CMDLINE_SIZE = Field(0x238, 4)
PAYLOAD_OFFSET = Field(0x248, 4)
PAYLOAD_LENGTH = Field(0x24C, 4)
SETUP_DATA = Field(0x250, 8)
#: Where the header ends at the latest: what follows in ``boot_params`` is something else.
HEADER_LIMIT = 0x290

E820_TABLE = 0x2D0
_BOOT_E820_ENTRY = struct.Struct("<QQI")

BOOT_FLAG_VALUE = 0xAA55
HDRS = int.from_bytes(b"HdrS", "little")
LOADED_HIGH = 1 << 0
XLF_KERNEL_64 = 1 << 0
#: "Undefined": a boot loader without a number of its own.
LOADER_UNDEFINED = 0xFF


def header_of_vmlinux() -> bytes:
    """The beginning of ``boot_params`` with a setup header for a kernel that comes without one."""
    page = bytearray(HEADER_LIMIT)
    BOOT_FLAG.write(page, BOOT_FLAG_VALUE)
    HEADER.write(page, HDRS)
    VERSION.write(page, 0x20C)
    INITRD_ADDR_MAX.write(page, 0x7FFF_FFFF)
    XLOADFLAGS.write(page, XLF_KERNEL_64)
    CMDLINE_SIZE.write(page, COMMAND_LINE_SIZE - 1)
    return bytes(page)


def boot_params(header: bytes, regions: list[Region], initramfs: tuple[int, int]) -> bytes:
    """The page for a kernel.

    :param header: its beginning with the setup header in its place, zeros before that.
    :param regions: the memory map, at most 128.
    :param initramfs: its physical address and its size in bytes, which may be 0.
    """
    page = bytearray(header.ljust(SIZE, b"\0"))
    TYPE_OF_LOADER.write(page, LOADER_UNDEFINED)
    LOADFLAGS.write(page, LOADFLAGS.read(page) | LOADED_HIGH)
    CMD_LINE_PTR.write(page, COMMAND_LINE)
    address, size = initramfs
    RAMDISK_IMAGE.write(page, address if size else 0)
    RAMDISK_SIZE.write(page, size)
    SETUP_DATA.write(page, 0)
    ACPI_RSDP_ADDR.write(page, ACPI_TABLES)
    E820_ENTRIES.write(page, len(regions))
    for number, region in enumerate(regions):
        _BOOT_E820_ENTRY.pack_into(
            page, E820_TABLE + number * _BOOT_E820_ENTRY.size, region.address, region.size, region.type
        )
    return bytes(page)
