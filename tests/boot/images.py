"""Kernel files made for the tests: ELF files, bzImages, and code small enough to be written in bytes."""

import bz2
import gzip
import lzma
import struct
from functools import lru_cache

import lz4.block
import zstandard

from pyvmm.linux.abi.elf import EHDR, PHDR, PT_LOAD, PT_NOTE

#: Where ``elf()`` puts its code, unless told otherwise.
AT = 0x200000


def elf_header(**changes: int | bytes) -> bytes:
    fields: dict[str, int | bytes] = {
        "ident": b"\x7fELF\2\1\1".ljust(16, b"\0"), "type": 2, "machine": 62, "version": 1, "entry": AT,
        "phoff": 64, "shoff": 0, "flags": 0,
        "ehsize": 64, "phentsize": 56, "phnum": 1, "shentsize": 0, "shnum": 0, "shstrndx": 0,
    }  # fmt: skip
    return EHDR.pack(*(fields | changes).values())


def segment(offset: int, size: int, address: int = AT, memory: int | None = None, kind: int = PT_LOAD) -> bytes:
    memory = size if memory is None else memory
    return PHDR.pack(kind, 7, offset, address ^ 0xFFFF_FFFF_8000_0000, address, size, memory, 4)


def note(name: bytes, type_: int, descriptor: bytes, align: int = 4) -> bytes:
    result = struct.pack("<III", len(name), len(descriptor), type_) + name
    result += bytes(-len(result) % align) + descriptor
    return result + bytes(-len(result) % align)


def elf(code: bytes, *, address: int = AT, memory: int | None = None, notes: bytes = b"", **changes: int) -> bytes:
    """An executable of one segment, entered at its start, and of notes."""
    start = 64 + 2 * 56
    headers = segment(start, len(code), address, memory) + segment(start + len(code), len(notes), kind=PT_NOTE)
    return elf_header(**{"phnum": 2, "entry": address, **changes}) + headers + code + notes


def _lz4_legacy(data: bytes) -> bytes:
    result = struct.pack("<I", 0x184C2102)
    for at in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[at : at + (8 << 20)], store_size=False)
        result += struct.pack("<I", len(block)) + block
    return result


def _sized(packed: bytes, data: bytes) -> bytes:
    return packed + struct.pack("<I", len(data))


_BCJ = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 1}]
#: How the build of Linux packs a kernel: gzip has the size in itself.
PACKERS = {
    "gzip": lambda data: gzip.compress(data, 1),
    "bzip2": lambda data: _sized(bz2.compress(data, 1), data),
    "xz": lambda data: _sized(lzma.compress(data, check=lzma.CHECK_CRC32, filters=_BCJ), data),
    "lzma": lambda data: _sized(lzma.compress(data, lzma.FORMAT_ALONE, preset=1), data),
    "lz4": lambda data: _sized(_lz4_legacy(data), data),
    "zstd": lambda data: _sized(zstandard.ZstdCompressor().compress(data), data),
    "zstd without its size": lambda data: _sized(
        zstandard.ZstdCompressor(write_content_size=False).compress(data), data
    ),
}


@lru_cache(maxsize=32)
def packed(how: str, data: bytes) -> bytes:
    """``data`` packed by one of ``PACKERS``; kept, because packing is what takes time in these tests."""
    return PACKERS[how](data)


def bzimage(payload: bytes, *, version: int = 0x20F, setup_sects: int = 4, **changes: int) -> bytes:
    """A bzImage with that payload, ``changes`` being fields of its header by offset in ``FIELDS``."""
    setup = bytearray((setup_sects + 1) * 512)
    fields = {
        "setup_sects": setup_sects, "boot_flag": 0xAA55, "header": 0x53726448, "version": version, "jump": 0x6AEB,
        "loadflags": 1, "initrd_addr_max": 0x7FFFFFFF, "xloadflags": 1, "cmdline_size": 2047,
        "payload_offset": 0x40, "payload_length": len(payload), "init_size": 0x1000000,
    }  # fmt: skip
    for name, value in (fields | changes).items():
        offset, size = FIELDS[name]
        setup[offset : offset + size] = value.to_bytes(size, "little")
    return bytes(setup) + b"\x90" * 0x40 + payload + bytes(100)


FIELDS = {
    "setup_sects": (0x1F1, 1), "boot_flag": (0x1FE, 2), "jump": (0x200, 2), "header": (0x202, 4), "version": (0x206, 2),
    "loadflags": (0x211, 1), "setup_data": (0x250, 8), "initrd_addr_max": (0x22C, 4), "xloadflags": (0x236, 2),
    "cmdline_size": (0x238, 4), "payload_offset": (0x248, 4), "payload_length": (0x24C, 4), "init_size": (0x260, 4),
}  # fmt: skip
