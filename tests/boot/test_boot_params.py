"""The zero page: fields where the kernel's header has them, and what a kernel is told."""

import re
import shutil
import struct
import subprocess

import pytest

from pyvmm.boot import boot_params as bp
from pyvmm.boot import layout, pvh
from pyvmm.boot.memory_map import memory_map

_MEMORY = 256 << 20


def test_fields_lie_where_the_kernels_header_has_them(tmp_path):
    if shutil.which("gcc") is None:
        pytest.fail("the structures are compared by a C compiler: install the package gcc")
    source, program = tmp_path / "offsets.c", tmp_path / "offsets"
    ours = {name.lower(): field for name, field in vars(bp).items() if isinstance(field, bp.Field)}
    lines = ["#include <asm/bootparam.h>", "#include <stddef.h>", "#include <stdio.h>", "int main(void) {"]
    for name in ours:
        path = name if name in ("acpi_rsdp_addr", "e820_entries") else f"hdr.{name}"
        member = f"((struct boot_params *)0)->{path}"
        lines.append(f'printf("{name} %zu %zu\\n", offsetof(struct boot_params, {path}), sizeof({member}));')
    lines.append(
        'printf("e820_table %zu %zu\\n", offsetof(struct boot_params, e820_table), sizeof(struct boot_params));'
    )
    source.write_text("\n".join([*lines, "return 0; }"]))
    subprocess.run(["gcc", "-w", "-o", str(program), str(source)], check=True)
    output = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    theirs = {name: (int(offset), int(size)) for name, offset, size in re.findall(r"(\w+) (\d+) (\d+)\n", output)}
    assert theirs == {**ours, "e820_table": (bp.E820_TABLE, bp.SIZE)}


def e820(page: bytes) -> list[tuple[int, int, int]]:
    table = page[bp.E820_TABLE : bp.E820_TABLE + 20 * page[bp.E820_ENTRIES.offset]]
    return [struct.unpack("<QQI", table[at : at + 20]) for at in range(0, len(table), 20)]


def page_of(initramfs: tuple[int, int] = (0, 0)) -> bytes:
    return bp.boot_params(bp.header_of_vmlinux(), memory_map(_MEMORY), initramfs)


def test_a_kernel_is_told_where_everything_is():
    page = page_of((0x0F00_0000, 12345))
    assert len(page) == bp.SIZE
    assert bp.TYPE_OF_LOADER.read(page) == 0xFF
    assert bp.LOADFLAGS.read(page) & 1
    assert (bp.RAMDISK_IMAGE.read(page), bp.RAMDISK_SIZE.read(page)) == (0x0F00_0000, 12345)
    assert bp.CMD_LINE_PTR.read(page) == layout.COMMAND_LINE
    assert bp.ACPI_RSDP_ADDR.read(page) == layout.ACPI_TABLES


def test_no_initramfs_is_no_address():
    page = page_of((0x0F00_0000, 0))
    assert (bp.RAMDISK_IMAGE.read(page), bp.RAMDISK_SIZE.read(page)) == (0, 0)


def test_the_memory_map_ascends_and_ends_with_memory():
    regions = e820(page_of())
    ends = [address + size for address, size, _ in regions]
    assert all(end <= after for end, (after, _, _) in zip(ends, regions[1:], strict=False))
    assert (regions[0][0], ends[-1]) == (0, _MEMORY)


@pytest.mark.parametrize("reserved", [layout.GENERATION_COUNTER, layout.ACPI_TABLES, layout.ACPI_TABLES_END - 1])
def test_what_the_monitor_goes_on_to_use_is_reserved(reserved):
    (kind,) = [kind for address, size, kind in e820(page_of()) if address <= reserved < address + size]
    assert kind == 2


@pytest.mark.parametrize(
    "used", [layout.BOOT_GDT, layout.BOOT_PARAMS, layout.BOOT_PAGE_TABLES, layout.COMMAND_LINE, layout.HIGH_MEMORY]
)
def test_what_only_the_start_needs_is_the_kernels_memory(used):
    (kind,) = [kind for address, size, kind in e820(page_of()) if address <= used < address + size]
    assert kind == 1


def test_pvh_tells_the_same_as_boot_params():
    told = pvh.start_info(memory_map(_MEMORY), (0x0F00_0000, 12345))
    magic, version, _, modules, modlist, cmdline, rsdp, memmap, entries, _ = struct.unpack_from("<4I4Q2I", told)
    assert (magic, version, modules) == (0x336EC578, 1, 1)
    assert (cmdline, rsdp) == (layout.COMMAND_LINE, layout.ACPI_TABLES)
    assert struct.unpack_from("<QQQQ", told, modlist - layout.BOOT_PARAMS) == (0x0F00_0000, 12345, 0, 0)
    table = [struct.unpack_from("<QQII", told, memmap - layout.BOOT_PARAMS + 24 * i)[:3] for i in range(entries)]
    assert table == e820(page_of())


def test_pvh_without_an_initramfs_has_no_modules():
    modules, modlist = struct.unpack_from("<I", pvh.start_info([], (0, 0)), 12) + struct.unpack_from(
        "<Q", pvh.start_info([], (0, 0)), 16
    )
    assert (modules, modlist) == (0, 0)
