"""ACPI Machine Language, as much as a table of devices needs: ACPI 6.4, chapter 20, and 6.4 for resources.

Every function gives the bytes of one term; terms are joined by putting them one after the other.
"""

import struct

_ZERO, _ONE = b"\x00", b"\x01"
_BYTE, _WORD, _DWORD, _QWORD, _STRING = b"\x0a", b"\x0b", b"\x0c", b"\x0e", b"\x0d"
_NAME, _SCOPE, _BUFFER, _PACKAGE, _METHOD = b"\x08", b"\x10", b"\x11", b"\x12", b"\x14"
_DEVICE, _NOTIFY = b"\x5b\x82", b"\x86"
_DUAL_NAME, _MULTI_NAME = b"\x2e", b"\x2f"
_SERIALIZED = 1 << 3
_END_TAG = b"\x79\x00"  # a checksum of zero counts as right


def name(path: str) -> bytes:
    r"""A NameString: ``_HID``, ``\_SB.VGEN``; segments shorter than four characters are filled up."""
    root, rest = (b"\\", path[1:]) if path.startswith("\\") else (b"", path)
    segments = [segment.ljust(4, "_").encode("ascii") for segment in rest.split(".")]
    prefix = (b"", _DUAL_NAME, _MULTI_NAME + bytes([len(segments)]))[min(len(segments), 3) - 1]
    return root + prefix + b"".join(segments)


def integer(value: int) -> bytes:
    """An integer of up to 64 bits, in its shortest form."""
    if value < 2:
        return (_ZERO, _ONE)[value]
    for prefix, size in (_BYTE, 1), (_WORD, 2), (_DWORD, 4):
        if value < 1 << 8 * size:
            return prefix + value.to_bytes(size, "little")
    return _QWORD + value.to_bytes(8, "little")


def string(text: str) -> bytes:
    """A string of ASCII characters."""
    return _STRING + text.encode("ascii") + b"\0"


def package(*elements: bytes) -> bytes:
    """A package of up to 255 elements."""
    return _PACKAGE + _with_length(bytes([len(elements)]) + b"".join(elements))


def buffer(data: bytes) -> bytes:
    """A buffer that holds ``data``."""
    return _BUFFER + _with_length(integer(len(data)) + data)


def named(path: str, value: bytes) -> bytes:
    """``Name(path, value)``."""
    return _NAME + name(path) + value


def scope(path: str, *terms: bytes) -> bytes:
    """``Scope(path) { terms }``."""
    return _SCOPE + _with_length(name(path) + b"".join(terms))


def device(path: str, *terms: bytes) -> bytes:
    """``Device(path) { terms }``."""
    return _DEVICE + _with_length(name(path) + b"".join(terms))


def method(path: str, arguments: int, *terms: bytes) -> bytes:
    """``Method(path, arguments, Serialized) { terms }``."""
    return _METHOD + _with_length(name(path) + bytes([arguments | _SERIALIZED]) + b"".join(terms))


def notify(path: str, value: int) -> bytes:
    """``Notify(path, value)``."""
    return _NOTIFY + name(path) + integer(value)


def resources(*descriptors: bytes) -> bytes:
    """A resource template, the value of ``_CRS``."""
    return buffer(b"".join(descriptors) + _END_TAG)


def memory32_fixed(address: int, size: int) -> bytes:
    """A range of memory-mapped registers (6.4.3.4), to be read and written."""
    return struct.pack("<BHBII", 0x86, 9, 1, address, size)


def io(port: int, size: int) -> bytes:
    """A range of ports (6.4.2.5); 16 bits of the address are decoded."""
    return struct.pack("<BBHHBB", 0x47, 1, port, port, 1, size)


def interrupt(gsi: int) -> bytes:
    """A global system interrupt (6.4.3.6): edge-triggered, active high, not shared."""
    consumer, edge = 1 << 0, 1 << 1
    return struct.pack("<BHBBI", 0x89, 6, consumer | edge, 1, gsi)


def _with_length(data: bytes) -> bytes:
    """``data`` after a PkgLength (20.2.4), which counts itself."""
    size = len(data) + 1
    if size < 1 << 6:
        return bytes([size]) + data
    for more in 1, 2, 3:
        size = len(data) + 1 + more
        if size < 1 << 4 + 8 * more:
            return bytes([more << 6 | size & 15]) + (size >> 4).to_bytes(more, "little") + data
    raise ValueError(f"an AML package of {len(data)} bytes")
