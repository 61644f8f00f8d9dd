"""Making sockets, their options, and what is no socket; on the host and in a guest."""

import struct
from typing import Any

from tests.linux import socket_scenarios as s
from tests.linux.vfs_scenarios import Machine, as_on_the_host, make, pipe

pytestmark = s.needs_ipv6

#: Options whose values Linux takes from the host's settings, or that need not be told alike.
_SOCKET_OPTIONS = [number for number in range(1, 50) if number not in (7, 8, 16, 17, 26, 27, 28, 31, 34, 46, 47, 49)]


@as_on_the_host
def test_families_types_and_protocols_that_are_not_there(m: Machine) -> Any:
    cases = [
        (-1, 1, 0), (46, 1, 0), (0, 1, 0), (1, 0, 0), (1, 3, 0), (1, 4, 0), (1, 6, 0), (1, 10, 0), (1, 11, 0),
        (1, 1, 1),
        (1, 1, 2), (1, 1, 6), (2, 0, 0), (2, 1, 6), (2, 1, 17), (2, 2, 6), (2, 2, 17), (2, 2, 1), (10, 2, 58),
        (2, 3, 0),
        (2, 3, 1), (2, 3, 255), (2, 4, 0), (2, 5, 0), (2, 5, 132), (2, 1, 132), (2, 1, -1), (2, 1, 300), (10, 1, 6),
        (10, 2, 6), (17, 3, 0), (17, 2, 3), (38, 5, 0), (16, 1, 0), (16, 3, 99), (2, 1 | 0o4000 | 0o2000000, 0),
        (2, 1 | 0x20, 0), (1, 2 | 1 << 30, 0), (29, 3, 1), (21, 5, 0),
    ]  # fmt: skip
    return [min(m.call("socket", *case), 0) for case in cases]


@as_on_the_host
def test_flags_of_a_new_socket(m: Machine) -> Any:
    fd = s.socket(m, s.INET, s.STREAM | s.NONBLOCK | s.CLOEXEC)
    m.call("fstat", fd, m.buffer)
    mode, uid, gid = struct.unpack("<III", m.peek(m.buffer + 24, 12))
    return m.call("fcntl", fd, 1, 0), m.call("fcntl", fd, 3, 0), mode, uid, gid


@as_on_the_host
def test_pairs_that_cannot_be_made(m: Machine) -> Any:
    seen = [
        m.call("socketpair", *case, m.buffer) for case in ((2, 1, 0), (2, 2, 0), (1, 4, 0), (1, 1, 5), (1, 1 | 0x20, 0))
    ]
    return seen, m.call("socketpair", 1, 1, 0, m.nowhere), m.call("dup", 0)


@as_on_the_host
def test_what_is_no_socket(m: Machine) -> Any:
    seen = []
    for fd in (make(m, b"file"), pipe(m)[0], 99, -1):
        for call, arguments in (
            ("bind", (m.buffer, 16)), ("listen", (1,)), ("accept", (0, 0)), ("accept4", (0, 0, 0)),
            ("connect", (m.buffer, 16)),
            ("getsockname", (m.buffer, m.buffer)), ("getpeername", (m.buffer, m.buffer)), ("shutdown", (0,)),
            ("setsockopt", (1, 2, m.buffer, 4)), ("getsockopt", (1, 2, m.buffer, m.buffer)),
            ("sendto", (m.buffer, 1, 0, 0, 0)),
            ("recvfrom", (m.buffer, 1, 0, 0, 0)), ("sendmsg", (m.buffer, 0)), ("recvmsg", (m.buffer, 0)),
            ("sendmmsg", (m.buffer, 1, 0)), ("recvmmsg", (m.buffer, 1, 0, 0)),
        ):  # fmt: skip
            seen.append(m.call(call, fd, *arguments))
    return seen


@as_on_the_host
def test_options_as_they_are_at_first(m: Machine) -> Any:
    seen = {}
    for domain, kind in ((1, 1), (1, 2), (1, 5), (2, 1), (2, 2), (10, 1), (10, 2)):
        fd = s.socket(m, domain, kind)
        for option in _SOCKET_OPTIONS:
            seen[domain, kind, option] = s.get_option(m, fd, 1, option)
    return sorted(seen.items())


@as_on_the_host
def test_options_after_they_were_set(m: Machine) -> Any:
    seen = []
    for domain, kind in ((1, 1), (2, 1), (10, 2)):
        fd = s.socket(m, domain, kind)
        for option in (1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 15, 19, 29, 30, 32, 33, 35, 36, 38, 39, 40, 43, 45, 99):
            for value in (0, 1, 5, -1):
                seen.append(
                    (domain, option, value, s.set_option(m, fd, 1, option, value), s.get_option(m, fd, 1, option))
                )
    return seen


@as_on_the_host
def test_buffer_sizes_are_doubled_and_bounded(m: Machine) -> Any:
    fd = s.socket(m, s.UNIX, s.STREAM)
    seen = []
    for option in (7, 8):
        for value in (0, 1, 4096, 100_000):
            seen.append((s.set_option(m, fd, 1, option, value), s.get_option(m, fd, 1, option)))
    return seen


@as_on_the_host
def test_time_outs_and_lingering(m: Machine) -> Any:
    fd = s.socket(m, s.INET, s.STREAM)
    seen = []
    for value in ((0, 0), (1, 500_000), (-1, 0), (0, 1_000_000), (0, -1), (1 << 40, 0)):
        seen.append(
            (s.set_option(m, fd, 1, 20, struct.pack("<qq", *value)), value[0] > 1000 or s.get_option(m, fd, 1, 20, 16))
        )
    seen.append(s.set_option(m, fd, 1, 20, b"short"))
    for pair in ((1, 5), (0, 7), (-3, 2)):
        seen.append((s.set_option(m, fd, 1, 13, struct.pack("<ii", *pair)), s.get_option(m, fd, 1, 13, 8)))
    return seen, s.set_option(m, fd, 1, 13, 1)


@as_on_the_host
def test_options_of_the_protocols(m: Machine) -> Any:
    seen = []
    tcp, udp = s.socket(m, s.INET, s.STREAM), s.socket(m, s.INET, s.DGRAM)
    tcp6, unix = s.socket(m, s.INET6, s.STREAM), s.socket(m, s.UNIX, s.STREAM)
    for level, options in (
        (6, (1, 3, 4, 5, 6, 12, 99)), (0, (1, 2, 8, 13, 10, 15, 33, 34, 55)),
        (41, (16, 18, 19, 26, 49, 51, 66, 67, 99)),
        (17, (99,)), (255, (1,)),
    ):  # fmt: skip
        for option in options:
            for fd in (tcp, udp, tcp6, unix):
                seen.append((level, option, s.get_option(m, fd, level, option)))
                for value in (0, 1, 5, 300, -2):
                    seen.append((level, option, value, s.set_option(m, fd, level, option, value)))
                seen.append((level, option, s.get_option(m, fd, level, option)))
    return seen


@as_on_the_host
def test_reading_and_writing_options_wrongly(m: Machine) -> Any:
    fd = s.socket(m, s.INET, s.STREAM)
    length = m.place(struct.pack("<I", 4))
    seen = [m.call("getsockopt", fd, 1, 3, m.nowhere, length), m.call("getsockopt", fd, 1, 3, m.buffer, m.nowhere)]
    seen += [m.call("getsockopt", fd, 1, 3, m.buffer, m.place(b"\xff" * 4)), s.get_option(m, fd, 1, 3, 2)]
    seen += [s.get_option(m, fd, 1, 3, 0), s.get_option(m, fd, 1, 3, 100), m.call("setsockopt", fd, 1, 2, m.nowhere, 4)]
    seen += [m.call("setsockopt", fd, 1, 2, m.buffer, 3), m.call("setsockopt", fd, 1, 2, m.buffer, -1)]
    return seen, m.call("setsockopt", fd, 6, 1, m.buffer, 2), m.call("setsockopt", fd, 6, 1, m.nowhere, 4)


@as_on_the_host
def test_message_headers_that_are_wrong(m: Machine) -> Any:
    a, b = s.pair(m, s.DGRAM)
    seen = []
    for name, namelen, vector, count, control, room in (
        (0, 0, m.nowhere, 1, 0, 0), (0, 0, m.buffer, 1025, 0, 0), (0, 0, m.buffer, 1 << 62, 0, 0),
        (0, 0, 0, 0, m.nowhere, 24),
        (0, 0, 0, 0, 0, 1 << 40), (m.nowhere, 16, 0, 0, 0, 0), (m.buffer, 1 << 31, 0, 0, 0, 0),
        (m.buffer, 200, 0, 0, 0, 0),
        (0, 0, 0, 0, m.buffer, 1 << 30),
    ):  # fmt: skip
        head = m.place(struct.pack("<QI4xQQQQI4x", name, namelen, vector, count, control, room, 0))
        seen.append(m.call("sendmsg", a, head, s.DONTWAIT))
        if control != m.nowhere:
            seen.append(min(m.call("recvmsg", b, head, s.DONTWAIT), 0))
    seen += [
        m.call("sendmsg", a, m.nowhere, 0),
        m.call("recvmsg", b, m.nowhere, 0),
        m.call("sendmsg", a, head, 1 << 31),
    ]
    return seen, m.call("recvmsg", b, head, 1 << 31), s.receive(m, b)


@as_on_the_host
def test_transfers_without_bytes_and_of_too_many(m: Machine) -> Any:
    a, b = s.pair(m)
    u, _ = s.pair(m, s.DGRAM)
    seen = [s.send(m, a, b""), m.call("write", a, m.nowhere, 0), m.call("read", b, m.nowhere, 0)]
    seen += [m.call("recvfrom", b, m.buffer, 1 << 63, s.DONTWAIT, 0, 0)]
    seen += [m.call("sendto", u, m.buffer, 1 << 30, 0, 0, 0), m.call("sendto", a, m.buffer, 1, 0, m.nowhere, 16)]
    return seen, m.call("sendto", a, m.buffer, 1, 0, m.buffer, 129)
