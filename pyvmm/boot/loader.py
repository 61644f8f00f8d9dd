"""Putting a kernel guest into its memory: what kind of file it is, where everything goes, and how it is entered.

Three kinds: an ELF64 executable (``vmlinux``, or a program of one's own), a bzImage, and a flat program, which is
anything else that looks like code for real mode. Everything that was made from files is checked before it is written.
"""

from pyvmm.boot import acpi, boot_params, bzimage, elf, entry, pvh
from pyvmm.boot.entry import Entry, Mode
from pyvmm.boot.layout import (
    ACPI_TABLES,
    BOOT_PARAMS,
    COMMAND_LINE,
    COMMAND_LINE_SIZE,
    FLAT_PROGRAM,
    GENERATION_COUNTER,
    HIGH_MEMORY,
    LARGEST_MEMORY,
    RESET,
    RESET_PORT,
    RESET_VECTOR,
)
from pyvmm.boot.memory_map import memory_map
from pyvmm.errors import BootError
from pyvmm.linux.abi.elf import ELFMAG

_PAGE_SIZE = 4096
#: What a machine has at least: low memory, and something for a kernel.
SMALLEST_MEMORY = 2 << 20
#: Bytes of a flat program: up to what is reserved at the end of low memory.
FLAT_PROGRAM_SIZE = GENERATION_COUNTER - FLAT_PROGRAM

#: All the firmware that there is. Linux on a hardware-reduced machine restarts it by a jump to the firmware, unless its
#: command line has ``reboot=`` (``efi_reboot_required`` in ``arch/x86/platform/efi/quirks.c``: by EFI, then the BIOS).
_FIRMWARE = (
    b"\xba"  # mov $RESET_PORT,%dx
    + RESET_PORT.to_bytes(2, "little")
    + b"\xb0"  # mov $RESET,%al
    + RESET.to_bytes(1, "little")
    + b"\xee"  # out %al,%dx
    + b"\xf4\xeb\xfd"  # hlt; jmp .-1
)

#: Files that are given by mistake, by what they have at an offset. A flat program has no mark of its own.
_OTHERS = (
    (0, b"\x1f\x8b", "a gzip file; unpack it first (gunzip)"),
    (0, b"BZh", "a bzip2 file; unpack it first (bunzip2)"),
    (0, b"\xfd7zXZ\0", "an xz file; unpack it first (unxz)"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file; unpack it first (unzstd)"),
    (0, b"\x02\x21\x4c\x18", "an lz4 file; unpack it first (lz4 -d)"),
    (0, b"\x04\x22\x4d\x18", "an lz4 file; unpack it first (lz4 -d)"),
    (0, b"PK\x03\x04", "a zip file"),
    (0, b"!<arch>\n", "a package or library (ar); a kernel is needed"),
    (0, b"070701", "an initramfs (cpio); give it as such, and a kernel beside it"),
    (0, b"#!", "a script"),
    (0, b"QFI\xfb", "a qcow2 disk image; a kernel is needed"),
    (0, b"\x27\x05\x19\x56", "a U-Boot image"),
    (0x38, b"ARM\x64", "a kernel for ARM (AArch64); one for x86-64 is needed"),
    (0x24, b"\x18\x28\x6f\x01", "a kernel for 32-bit ARM; one for x86-64 is needed"),
    (0x30, b"RISCV", "a kernel for RISC-V; one for x86-64 is needed"),
    (0, b"MZ", "a PE (EFI or Windows) program without a Linux setup header"),
)


def load(
    memory: memoryview,
    image: bytes | memoryview,
    *,
    command_line: str = "",
    initramfs: bytes | memoryview = b"",
    virtio_devices: int = 0,
) -> Entry:
    """Put a guest into its memory.

    :param memory: all of the guest's memory, from physical address 0 on; nothing but zeros.
    :param image: the kernel's or program's file.
    :param command_line: what is to be said to the kernel; at most 2047 bytes.
    :param initramfs: the file system that Linux begins with.
    :param virtio_devices: how many of them the ACPI tables are to name.
    :returns: where it begins; see :func:`pyvmm.boot.entry.set_registers`.
    :raises BootError: a file is of the wrong kind or damaged, or the machine is too small for what it is given.
    """
    if not SMALLEST_MEMORY <= len(memory) <= LARGEST_MEMORY:
        raise BootError(
            f"a kernel guest has between {SMALLEST_MEMORY >> 20} and {LARGEST_MEMORY >> 20} MiB of memory, not "
            f"{len(memory) >> 20} MiB ({len(memory)} bytes)"
        )
    if not image:
        raise BootError("the kernel is an empty file")
    file = memoryview(image).cast("B")
    if file[:4] == ELFMAG:
        begin = _kernel(memory, file, boot_params.header_of_vmlinux(), command_line, memoryview(initramfs))
    elif bzimage.is_bzimage(file):
        header = bzimage.setup_header(file)
        unpacked = memoryview(bzimage.unpack(file, len(memory)))
        begin = _kernel(memory, unpacked, header, command_line, memoryview(initramfs))
    elif command_line or initramfs:
        _refuse_other(file)
        raise BootError(
            "the file is neither an ELF file nor a bzImage, so it is taken for a flat real-mode program; such a one "
            "has no command line and no initramfs"
        )
    else:
        begin = _flat_program(memory, file)
    tables = acpi.tables(virtio_devices)
    memory[ACPI_TABLES : ACPI_TABLES + len(tables)] = tables
    memory[RESET_VECTOR : RESET_VECTOR + len(_FIRMWARE)] = _FIRMWARE
    entry.write_tables(memory, begin.mode)
    return begin


def is_linux(image: bytes) -> bool:
    """Whether a file is a Linux kernel, as far as can be seen without unpacking it."""
    file = memoryview(image)
    if bzimage.is_bzimage(file):
        return True
    return bytes(file[:4]) == ELFMAG and elf.parse(file, LARGEST_MEMORY).is_linux


def _refuse_other(file: memoryview) -> None:
    for offset, mark, what in _OTHERS:
        if file[offset : offset + len(mark)] == mark:
            raise BootError(f"this cannot be booted: it is {what}")


def _flat_program(memory: memoryview, file: memoryview) -> Entry:
    _refuse_other(file)
    if len(file) > FLAT_PROGRAM_SIZE:
        raise BootError(
            f"this cannot be booted: it is neither an ELF file nor a bzImage, and with {len(file)} bytes too large "
            f"for a flat real-mode program ({FLAT_PROGRAM_SIZE} bytes from {FLAT_PROGRAM:#x} on)"
        )
    memory[FLAT_PROGRAM : FLAT_PROGRAM + len(file)] = file
    return Entry(Mode.REAL, FLAT_PROGRAM)


def _kernel(memory: memoryview, file: memoryview, header: bytes, command_line: str, initramfs: memoryview) -> Entry:
    kernel = elf.parse(file, len(memory))
    text = _command_line(command_line, header)
    initramfs_at = _place_initramfs(len(memory), kernel.end, len(initramfs), header)
    for segment in kernel.segments:
        memory[segment.address : segment.address + segment.file_size] = file[
            segment.offset : segment.offset + segment.file_size
        ]
    memory[COMMAND_LINE : COMMAND_LINE + len(text)] = text
    memory[initramfs_at : initramfs_at + len(initramfs)] = initramfs
    # Linux can be entered both ways; in long mode it has less to do. Others that offer PVH expect it.
    by_pvh = kernel.pvh_entry is not None and not kernel.is_linux
    regions, placed = memory_map(len(memory)), (initramfs_at, len(initramfs))
    told = pvh.start_info(regions, placed) if by_pvh else boot_params.boot_params(header, regions, placed)
    memory[BOOT_PARAMS : BOOT_PARAMS + len(told)] = told
    if by_pvh and kernel.pvh_entry is not None:
        return Entry(Mode.PROTECTED, kernel.pvh_entry)
    return Entry(Mode.LONG, kernel.entry)


def _command_line(text: str, header: bytes) -> bytes:
    """The command line with its zero."""
    try:
        line = text.encode()
    except UnicodeEncodeError:
        raise BootError("the command line has characters that cannot be written in UTF-8") from None
    if b"\0" in line:
        raise BootError("the command line has a zero byte in it, which ends it for a kernel")
    room = min(COMMAND_LINE_SIZE - 1, boot_params.CMDLINE_SIZE.read(header))
    if len(line) > room:
        raise BootError(f"the command line is too long: {len(line)} bytes; this kernel takes {room}")
    return line + b"\0"


def _place_initramfs(memory_size: int, kernel_end: int, size: int, header: bytes) -> int:
    """The physical address of an initramfs: as high as the kernel allows."""
    highest = boot_params.INITRD_ADDR_MAX.read(header) + 1
    address = (min(memory_size, highest) - size) & -_PAGE_SIZE
    if size and address < max(kernel_end, HIGH_MEMORY):
        raise BootError(
            f"the initramfs does not fit: it has {size >> 20} MiB ({size} bytes), the kernel ends at {kernel_end:#x} "
            f"and memory at {memory_size:#x}; give the machine more memory"
        )
    return address if size else 0
