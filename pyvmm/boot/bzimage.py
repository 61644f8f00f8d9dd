"""A bzImage: Linux's setup header, and the kernel packed behind it.

The kernel is unpacked here rather than by the code that comes with it, so that the guest begins where Linux itself
does. The format is that of ``Documentation/arch/x86/boot.rst``; the payload is what ``arch/x86/boot/compressed`` makes:
an ELF file, packed, and the size of it (four bytes, which gzip has of its own).
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable

import lz4.block
import zstandard

from pyvmm.boot import boot_params as bp
from pyvmm.errors import BootError
from pyvmm.linux.abi.elf import ELFMAG

_OLDEST = 0x206
_SECTOR = 512
#: What xz, lzma and zstd may keep of what they have unpacked: the kernel's build uses 128 MiB at most.
_WINDOW_LIMIT = 128 << 20
_XZ_MEMORY_LIMIT = 192 << 20
#: ``lib/decompress_unlz4.c``: the legacy frame of ``lz4 -l`` is blocks of that size, unpacked.
_LZ4_MAGIC = 0x184C_2102
_LZ4_BLOCK = 8 << 20
_CHUNK = 1 << 20

_U32 = struct.Struct("<I")


def is_bzimage(file: memoryview) -> bool:
    """Whether a setup header is there."""
    return len(file) >= 0x210 and bp.HEADER.read(file) == bp.HDRS and bp.BOOT_FLAG.read(file) == bp.BOOT_FLAG_VALUE


def setup_header(file: memoryview) -> bytes:
    """The beginning of ``boot_params`` with the setup header in its place, and nothing else.

    :raises BootError: it is too old (boot protocol before 2.06), or cut off.
    """
    version = bp.VERSION.read(file)
    if version < _OLDEST:
        raise BootError(
            f"the kernel has boot protocol {version >> 8}.{version & 255:02}; 2.06 (Linux 2.6.22) or newer is needed"
        )
    # The jump at 0x200 leads over the header: its second byte says where that ends.
    end = min(0x202 + file[0x201], bp.HEADER_LIMIT)
    if end < bp.CMDLINE_SIZE.offset + bp.CMDLINE_SIZE.size or len(file) < bp.HEADER_LIMIT:
        raise BootError("the bzImage is damaged: its setup header is cut off")
    return bytes(bp.SETUP_SECTS.offset) + bytes(file[bp.SETUP_SECTS.offset : end])


def unpack(file: memoryview, limit: int) -> bytes:
    """The ELF file (``vmlinux``) in a bzImage, of at most ``limit`` bytes.

    :raises BootError: there is none (boot protocol before 2.08), it is damaged, packed in a way that cannot be unpacked
        here, or larger.
    """
    if bp.VERSION.read(file) < 0x208:
        raise BootError("the bzImage does not say where its kernel is (boot protocol before 2.08); give its vmlinux")
    start = ((bp.SETUP_SECTS.read(file) or 4) + 1) * _SECTOR + bp.PAYLOAD_OFFSET.read(file)
    length = bp.PAYLOAD_LENGTH.read(file)
    if length < 16 or start + length > len(file):
        raise BootError("the bzImage is damaged or cut off: its kernel lies outside of the file")
    payload = file[start : start + length]
    if payload[:4] == ELFMAG:
        kernel = bytes(payload)
    else:
        (size,) = _U32.unpack(payload[-4:])
        if size > limit:
            raise BootError(
                f"the kernel does not fit: unpacked it has {size >> 20} MiB, the machine {limit >> 20} MiB of memory"
            )
        kernel = _unpack(payload, size)
        if len(kernel) != size:
            raise BootError(
                f"the bzImage is damaged: its kernel has {len(kernel)} bytes unpacked and should have {size}"
            )
    if kernel[:4] != ELFMAG:
        raise BootError("what is packed in the bzImage is no ELF file")
    return kernel


def _unpack(payload: memoryview, size: int) -> bytes:
    """Unpack ``size`` bytes; what says that there are more gives one more."""
    for magic, name, function in _METHODS:
        if payload[: len(magic)] == magic:
            if function is None:
                raise BootError(f"the kernel is packed with {name}, which cannot be unpacked here; give its vmlinux")
            try:
                return function(payload, size + 1)
            except _DAMAGED as error:
                raise BootError(f"the bzImage is damaged: its kernel cannot be unpacked ({name}: {error})") from error
    raise BootError(f"the bzImage's kernel is packed in an unknown way (it begins with {payload[:4].hex(' ')})")


_DAMAGED = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, lz4.block.LZ4BlockError, zstandard.ZstdError)


def _gzip(payload: memoryview, limit: int) -> bytes:
    return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS).decompress(payload, limit)


def _bzip2(payload: memoryview, limit: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(payload, limit)


def _xz(payload: memoryview, limit: int) -> bytes:
    # FORMAT_AUTO knows both .xz and the older .lzma.
    return lzma.LZMADecompressor(lzma.FORMAT_AUTO, _XZ_MEMORY_LIMIT).decompress(payload, limit)


def _zstd(payload: memoryview, limit: int) -> bytes:
    # A stream, because a frame may promise any size. It minds what comes after the last frame.
    result = bytearray()
    with zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT).stream_reader(payload[:-4]) as stream:
        while len(result) < limit and (chunk := stream.read(min(_CHUNK, limit - len(result)))):
            result += chunk
    return bytes(result)


def _lz4(payload: memoryview, limit: int) -> bytes:
    result = bytearray()
    at, end = 4, len(payload) - 4
    while at < end and len(result) < limit:
        (size,) = _U32.unpack_from(payload, at)
        at += 4
        if size == _LZ4_MAGIC:  # another frame
            continue
        if not 0 < size <= end - at:
            raise ValueError("a block that lies outside")
        result += lz4.block.decompress(payload[at : at + size], min(_LZ4_BLOCK, limit - len(result)))
        at += size
    return bytes(result)


_METHODS: tuple[tuple[bytes, str, Callable[[memoryview, int], bytes] | None], ...] = (
    (b"\x1f\x8b", "gzip", _gzip),
    (b"BZh", "bzip2", _bzip2),
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"\x5d\0\0", "lzma", _xz),
    (_U32.pack(_LZ4_MAGIC), "lz4", _lz4),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
    (b"\x89LZO", "lzo", None),
)
