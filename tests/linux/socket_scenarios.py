"""What tests of sockets are written with: system calls on a guest or on the host."""

import socket as native
import struct
from typing import Any

import pytest

from tests.linux.vfs_scenarios import Machine, iovec

UNIX, INET, INET6 = 1, 2, 10
STREAM, DGRAM, SEQPACKET = 1, 2, 5
NONBLOCK, CLOEXEC = 0o4000, 0o2000000
OOB, PEEK, TRUNC, DONTWAIT, WAITALL, NOSIGNAL = 0x1, 0x2, 0x20, 0x40, 0x100, 0x4000
SOL_SOCKET, SO_ERROR = 1, 4
LOOPBACK = b"\x7f\0\0\x01"


def _has_ipv6() -> bool:
    try:
        with native.socket(native.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this host has no IPv6 loopback address to compare with")


def socket(m: Machine, domain: int, kind: int, protocol: int = 0) -> int:
    return int(m.call("socket", domain, kind, protocol))


def pair(m: Machine, kind: int = STREAM) -> tuple[int, int]:
    assert m.call("socketpair", UNIX, kind, 0, m.buffer) == 0
    return struct.unpack("<ii", m.peek(m.buffer, 8))  # type: ignore[return-value]


def inet(port: int, ip: bytes = LOOPBACK) -> bytes:
    return struct.pack("<H", INET) + port.to_bytes(2, "big") + ip + bytes(8)


def inet6(port: int, ip: bytes = bytes(15) + b"\x01") -> bytes:
    return struct.pack("<H", INET6) + port.to_bytes(2, "big") + bytes(4) + ip + bytes(4)


def unix(name: bytes) -> bytes:
    return struct.pack("<H", UNIX) + name


def bind(m: Machine, fd: int, address: bytes) -> int:
    return int(m.call("bind", fd, m.place(address), len(address)))


def connect(m: Machine, fd: int, address: bytes) -> int:
    return int(m.call("connect", fd, m.place(address), len(address)))


def name(m: Machine, fd: int, call: str = "getsockname") -> Any:
    """The address, or -errno."""
    length = m.place(struct.pack("<I", 128))
    result = m.call(call, fd, m.buffer, length)
    return result or m.peek(m.buffer, struct.unpack("<I", m.peek(length, 4))[0])


def port_of(m: Machine, fd: int) -> int:
    return int.from_bytes(name(m, fd)[2:4], "big")


def listener(m: Machine, domain: int = INET, backlog: int = 8, kind: int = STREAM) -> tuple[int, bytes]:
    """A listening socket and its address."""
    fd = socket(m, domain, kind)
    address = {INET: inet(0), INET6: inet6(0)}.get(domain, unix(b"listener"))
    assert bind(m, fd, address) == 0
    assert m.call("listen", fd, backlog) == 0
    return fd, name(m, fd)


def connection(m: Machine, domain: int = INET) -> tuple[int, int]:
    """Both ends of a new connection: client, server."""
    waiting, address = listener(m, domain)
    client = socket(m, domain, STREAM)
    assert connect(m, client, address) == 0
    server = m.call("accept", waiting, 0, 0)
    m.call("close", waiting)
    if domain == UNIX:
        m.call("unlink", b"listener")
    return client, int(server)


def send(m: Machine, fd: int, data: bytes, flags: int = 0, to: bytes = b"") -> int:
    address = m.place(to) if to else 0
    return int(m.call("sendto", fd, m.place(data), len(data), flags, address, len(to)))


def receive(m: Machine, fd: int, count: int = 4096, flags: int = DONTWAIT) -> Any:
    result = m.call("recvfrom", fd, m.buffer, count, flags, 0, 0)
    return result if result < 0 else m.peek(m.buffer, min(result, count))


def receive_from(m: Machine, fd: int, count: int = 4096, flags: int = DONTWAIT) -> Any:
    """(data, address) or -errno."""
    length = m.place(struct.pack("<I", 128))
    address = m.place(bytes(128))
    result = m.call("recvfrom", fd, m.buffer, count, flags, address, length)
    if result < 0:
        return result
    return m.peek(m.buffer, min(result, count)), m.peek(address, struct.unpack("<I", m.peek(length, 4))[0])


def poll(m: Machine, fd: int, events: int = 0x7FFF) -> int:
    """The bits that poll gives at once."""
    at = m.place(struct.pack("<ihh", fd, events, 0))
    assert m.call("poll", at, 1, 0) >= 0
    return int(struct.unpack("<ihH", m.peek(at, 8))[2])


def get_option(m: Machine, fd: int, level: int, option: int, room: int = 4) -> Any:
    length = m.place(struct.pack("<I", room))
    result = m.call("getsockopt", fd, level, option, m.buffer, length)
    return result or m.peek(m.buffer, struct.unpack("<I", m.peek(length, 4))[0])


def set_option(m: Machine, fd: int, level: int, option: int, value: int | bytes) -> int:
    data = struct.pack("<i", value) if isinstance(value, int) else value
    return int(m.call("setsockopt", fd, level, option, m.place(data), len(data)))


def error(m: Machine, fd: int) -> int:
    return int(struct.unpack("<i", get_option(m, fd, SOL_SOCKET, SO_ERROR))[0])


def cmsg(level: int, kind: int, data: bytes) -> bytes:
    return struct.pack("<Qii", 16 + len(data), level, kind) + data + bytes(-len(data) % 8)


def send_message(m: Machine, fd: int, data: bytes, control: bytes = b"", flags: int = 0) -> int:
    head = struct.pack("<QI4xQQQQI4x", 0, 0, iovec(m, (m.place(data), len(data))), 1, m.place(control), len(control), 0)
    return int(m.call("sendmsg", fd, m.place(head), flags))


def receive_message(m: Machine, fd: int, count: int = 4096, room: int = 256, flags: int = DONTWAIT) -> Any:
    """(data, control, flags) or -errno."""
    control = m.place(bytes(room + 8))
    head = m.place(struct.pack("<QI4xQQQQI4x", 0, 0, iovec(m, (m.buffer, count)), 1, control, room, 0))
    result = m.call("recvmsg", fd, head, flags)
    if result < 0:
        return result
    _, _, _, _, _, used, told = struct.unpack("<QI4xQQQQI4x", m.peek(head, 56))
    return m.peek(m.buffer, min(result, count)), m.peek(control, used), told
