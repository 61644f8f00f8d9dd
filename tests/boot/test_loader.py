"""Putting guests into memory: three kinds of file, and clear words for all others."""

import gzip
import mmap
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvmm import BootError
from pyvmm.boot import boot_params as bp
from pyvmm.boot import layout
from pyvmm.boot.entry import Entry, Mode
from pyvmm.boot.loader import FLAT_PROGRAM_SIZE, load
from tests.boot import images
from tests.boot.images import AT

_SIZE = 16 << 20


def memory(size: int = _SIZE) -> memoryview:
    return memoryview(mmap.mmap(-1, size))


def refused(image: bytes, size: int = _SIZE, **options) -> str:
    room = memory(size)
    with pytest.raises(BootError) as caught:
        load(room, image, **options)
    return str(caught.value)


def test_an_elf_file_is_entered_in_long_mode_where_it_says():
    room = memory()
    assert load(room, images.elf(b"\xf4" * 8, memory=100)) == Entry(Mode.LONG, AT)
    assert room[AT : AT + 100] == b"\xf4" * 8 + bytes(92)


def test_an_elf_file_that_offers_pvh_is_entered_that_way():
    image = images.elf(b"\xf4" * 8, notes=images.note(b"Xen\0", 18, struct.pack("<Q", AT + 4)))
    room = memory()
    assert load(room, image) == Entry(Mode.PROTECTED, AT + 4)
    assert struct.unpack_from("<I", room, layout.BOOT_PARAMS) == (0x336EC578,)


def test_linux_is_entered_in_long_mode_though_it_offers_pvh():
    notes = images.note(b"Xen\0", 18, struct.pack("<Q", AT + 4)) + images.note(b"Linux\0", 0x101, b"6.1\0")
    assert load(memory(), images.elf(b"\xf4" * 8, notes=notes)) == Entry(Mode.LONG, AT)


def test_a_bzimages_kernel_is_entered_and_finds_its_own_header():
    room = memory()
    image = images.bzimage(images.packed("lz4", images.elf(b"\xf4" * 8)), init_size=0x1234000, setup_data=0x666)
    assert load(room, image, command_line="quiet") == Entry(Mode.LONG, AT)
    page = room[layout.BOOT_PARAMS : layout.BOOT_PARAMS + bp.SIZE]
    assert (bp.HEADER.read(page), bp.VERSION.read(page)) == (bp.HDRS, 0x20F)
    assert struct.unpack_from("<I", page, 0x260) == (0x1234000,)
    assert page[0x1EF] == 0, "the sentinel: nothing but the header was copied"
    assert bp.SETUP_DATA.read(page) == 0, "a list that the file made up"
    assert room[AT : AT + 8] == b"\xf4" * 8


def test_the_command_line_ends_with_a_zero():
    room = memory()
    room[layout.COMMAND_LINE : layout.COMMAND_LINE + 32] = b"?" * 32
    load(room, images.elf(b"\xf4"), command_line="console=ttyS0 ünïcode")
    assert bytes(room[layout.COMMAND_LINE :][:25]) == "console=ttyS0 ünïcode".encode() + b"\0?"


def test_an_initramfs_lies_at_the_end_of_memory_on_a_page():
    room = memory()
    load(room, images.elf(b"\xf4"), initramfs=b"0707" * 1000)
    page = room[layout.BOOT_PARAMS : layout.BOOT_PARAMS + bp.SIZE]
    address, size = bp.RAMDISK_IMAGE.read(page), bp.RAMDISK_SIZE.read(page)
    assert (address, size) == (_SIZE - 4096, 4000)
    assert room[address : address + size] == b"0707" * 1000


def test_an_initramfs_lies_no_higher_than_the_kernel_allows():
    room = memory()
    image = images.bzimage(images.packed("gzip", images.elf(b"\xf4")), initrd_addr_max=0x7FFFFF)
    load(room, image, initramfs=bytes(100))
    assert bp.RAMDISK_IMAGE.read(room[layout.BOOT_PARAMS :]) == 0x7FF000


def test_a_flat_program_has_low_memory_for_itself():
    room = memory()
    program = bytes(range(1, 256)) * 2000
    assert load(room, program) == Entry(Mode.REAL, layout.FLAT_PROGRAM)
    assert room[layout.FLAT_PROGRAM : layout.FLAT_PROGRAM + len(program)] == program
    assert bytes(room[: layout.FLAT_PROGRAM]) == bytes(layout.FLAT_PROGRAM)


def test_a_flat_program_may_fill_all_of_its_room():
    room = memory()
    load(room, b"\x90" * FLAT_PROGRAM_SIZE)
    assert room[layout.GENERATION_COUNTER - 1 : layout.GENERATION_COUNTER + 1] == b"\x90\0"


@pytest.mark.parametrize("image", [images.elf(b"\xf4"), b"\xf4"], ids=["elf", "flat"])
def test_every_machine_has_acpi_tables(image):
    room = memory()
    load(room, image, virtio_devices=2)
    place = bytes(room[layout.ACPI_TABLES : layout.ACPI_TABLES_END])
    assert place.startswith(b"RSD PTR ")
    assert place.count(b"LNRO0005") == 2


@pytest.mark.parametrize("size", [1 << 20, (3 << 30) + 4096])
def test_memory_that_no_machine_has_is_refused(size):
    assert "between 2 and 3072 MiB" in refused(images.elf(b"\xf4"), size)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (b"", "empty file"),
        (gzip.compress(b"x"), "gunzip"),
        (b"\xfd7zXZ\0....", "unxz"),
        (bytes(0x38) + b"ARM\x64" + bytes(4096), "AArch64"),
        (b"MZ".ljust(0x38, b"\0") + b"ARM\x64" + bytes(4096), "AArch64"),
        (bytes(0x24) + b"\x18\x28\x6f\x01" + bytes(4096), "32-bit ARM"),
        (b"MZ" + bytes(4096), "PE (EFI or Windows) program"),
        (b"070701" + bytes(4096), "initramfs"),
        (b"#!/bin/sh\n", "script"),
        (b"!<arch>\ndebian-binary", "package"),
        (b"\x90" * (FLAT_PROGRAM_SIZE + 1), "too large for a flat real-mode program"),
        (images.elf_header(ident=b"\x7fELF\1\1\1".ljust(16, b"\0")), "32-bit"),
        (images.bzimage(images.packed("xz", images.elf_header(ident=b"\x7fELF\1\1\1".ljust(16, b"\0")))), "32-bit"),
        (images.bzimage(b"", version=0x201), "2.06"),
    ],
)  # fmt: skip
def test_what_cannot_be_booted_is_named(image, says):
    assert says in refused(image)


@pytest.mark.parametrize("options", [{"command_line": "quiet"}, {"initramfs": b"0707"}])
def test_a_flat_program_takes_nothing_beside_it(options):
    assert "no command line and no initramfs" in refused(b"\xf4", **options)


def test_a_compressed_kernel_with_a_command_line_is_still_told_apart_from_a_flat_program():
    assert "gunzip" in refused(gzip.compress(b"x"), command_line="quiet")


def test_a_command_line_as_long_as_the_kernel_takes_is_taken():
    load(memory(), images.elf(b"\xf4"), command_line="x" * 2047)


@pytest.mark.parametrize(
    ("image", "line", "says"),
    [
        (images.elf(b"\xf4"), "x" * 2048, "takes 2047"),
        (images.elf(b"\xf4"), "ü" * 1024, "2048 bytes"),
        (images.bzimage(images.packed("gzip", images.elf(b"\xf4")), cmdline_size=255), "x" * 256, "takes 255"),
        (images.elf(b"\xf4"), "a\0b", "zero byte"),
        (images.elf(b"\xf4"), "\udc80", "UTF-8"),
    ],
)
def test_a_command_line_that_a_kernel_cannot_take_is_refused(image, line, says):
    assert says in refused(image, command_line=line)


def test_an_initramfs_that_does_not_fit_above_the_kernel_is_refused():
    image = images.elf(b"\xf4", memory=8 << 20)
    load(memory(), image, initramfs=bytes(6 << 20))
    assert "give the machine more memory" in refused(image, initramfs=bytes((6 << 20) + 1))


def test_a_kernel_that_is_refused_leaves_memory_as_it_was():
    room = memory()
    with pytest.raises(BootError):
        load(room, images.elf(b"\xf4" * 8), command_line="x" * 4096)
    assert bytes(room) == bytes(_SIZE)


@given(st.binary(max_size=2000), st.sampled_from([b"", b"\x7fELF\2\1\1", images.bzimage(b"")[:1000]]))
def test_any_file_is_loaded_or_refused(tail, start):
    try:
        entry = load(memory(2 << 20), start + tail)
    except BootError as error:
        assert str(error)
    else:
        assert entry.address < 2 << 20
