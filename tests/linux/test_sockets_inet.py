"""TCP and UDP on the loopback interface, on the host and in a guest."""

import struct
from typing import Any

from tests.linux import socket_scenarios as s
from tests.linux.vfs_scenarios import Machine, as_on_the_host, iovec, read, write

pytestmark = s.needs_ipv6


@as_on_the_host
def test_a_connection_carries_bytes_both_ways(m: Machine) -> Any:
    seen = []
    for domain in (s.INET, s.INET6):
        a, b = s.connection(m, domain)
        seen += [s.send(m, a, b"hello"), s.send(m, a, b" there"), s.receive(m, b, 3), s.receive(m, b), s.receive(m, b)]
        seen += [write(m, b, b"back"), read(m, a), m.call("ioctl", b, 0x541B, m.buffer), m.peek(m.buffer, 4)]
    return seen


@as_on_the_host
def test_both_ends_agree_on_their_addresses(m: Machine) -> Any:
    seen = []
    for domain in (s.INET, s.INET6):
        a, b = s.connection(m, domain)
        names = [s.name(m, end, call) for end in (a, b) for call in ("getsockname", "getpeername")]
        seen += [names[0] == names[3], names[1] == names[2], [n[:2] + n[4:] for n in names], len(set(names))]
    return seen


@as_on_the_host
def test_accept_tells_the_address_and_cuts_it(m: Machine) -> Any:
    fd, address = s.listener(m)
    seen = []
    for room in (16, 4, 0, 128):
        client = s.socket(m, s.INET, s.STREAM)
        s.connect(m, client, address)
        length = m.place(struct.pack("<I", room))
        m.call("accept", fd, m.buffer, length)
        seen.append((m.peek(length, 4), m.peek(m.buffer, min(room, 2))))
    client = s.socket(m, s.INET, s.STREAM)
    s.connect(m, client, address)
    wrong = m.call("accept", fd, m.buffer, m.place(struct.pack("<i", -1)))
    return seen, wrong, m.call("dup", 0), s.receive(m, client)


@as_on_the_host
def test_the_end_of_a_connection_step_by_step(m: Machine) -> Any:
    a, b = s.connection(m)
    seen = [s.poll(m, a), s.poll(m, b), s.send(m, a, b"last"), m.call("shutdown", a, 1), s.poll(m, a), s.poll(m, b)]
    seen += [s.send(m, a, b"no", s.NOSIGNAL), s.receive(m, b), s.receive(m, b), s.poll(m, b), s.send(m, b, b"answer")]
    seen += [s.poll(m, a), s.receive(m, a), m.call("shutdown", b, 1), s.receive(m, a), s.poll(m, a), s.poll(m, b)]
    seen += [s.name(m, a, "getpeername"), m.call("shutdown", a, 2), m.call("shutdown", b, 2), s.receive(m, b)]
    return seen, s.send(m, b, b"no", s.NOSIGNAL), s.error(m, a), s.error(m, b)


@as_on_the_host
def test_writing_to_who_has_closed(m: Machine) -> Any:
    a, b = s.connection(m)
    m.call("close", b)
    seen = [s.poll(m, a), s.send(m, a, b"one", s.NOSIGNAL), s.poll(m, a), s.send(m, a, b"two", s.NOSIGNAL)]
    return seen, s.receive(m, a), s.receive(m, a), s.error(m, a), s.poll(m, a)


@as_on_the_host
def test_closing_with_unread_data_is_a_reset(m: Machine) -> Any:
    a, b = s.connection(m)
    s.send(m, a, b"unread")
    s.send(m, b, b"waiting")
    m.call("close", b)
    seen = [s.poll(m, a), s.receive(m, a, 3), s.receive(m, a), s.receive(m, a), s.receive(m, a), s.poll(m, a)]
    return seen, s.send(m, a, b"x", s.NOSIGNAL), s.error(m, a)


@as_on_the_host
def test_lingering_for_no_time_is_a_reset(m: Machine) -> Any:
    a, b = s.connection(m)
    s.set_option(m, b, 1, 13, struct.pack("<ii", 1, 0))
    m.call("close", b)
    return s.poll(m, a), s.send(m, a, b"x", s.NOSIGNAL), s.send(m, a, b"x", s.NOSIGNAL), s.receive(m, a)


@as_on_the_host
def test_shutting_down_the_reading_side_only(m: Machine) -> Any:
    a, b = s.connection(m)
    seen = [m.call("shutdown", a, 0), s.poll(m, a), s.receive(m, a), s.send(m, b, b"still"), s.receive(m, a)]
    return seen, s.receive(m, a), s.send(m, a, b"works"), s.receive(m, b)


@as_on_the_host
def test_sockets_that_are_not_connected(m: Machine) -> Any:
    a = s.socket(m, s.INET, s.STREAM)
    seen = [s.send(m, a, b"x", s.NOSIGNAL), s.receive(m, a), m.call("shutdown", a, 2), s.name(m, a)]
    seen += [s.name(m, a, "getpeername"), m.call("accept", a, 0, 0), s.poll(m, a)]
    fd, _ = s.listener(m)
    seen += [s.send(m, fd, b"x", s.NOSIGNAL), s.receive(m, fd), s.poll(m, fd), s.name(m, fd, "getpeername")]
    seen += [m.call("ioctl", fd, 0x541B, m.buffer), m.call("shutdown", fd, 1), s.poll(m, fd), m.call("shutdown", fd, 0)]
    return seen, s.poll(m, fd), m.call("accept", fd, 0, 0), m.call("listen", fd, 1)


@as_on_the_host
def test_nobody_listens(m: Machine) -> Any:
    fd, address = s.listener(m)
    m.call("close", fd)
    a = s.socket(m, s.INET, s.STREAM)
    seen = [
        s.connect(m, a, address),
        s.poll(m, a),
        s.error(m, a),
        s.connect(m, a, address),
        s.name(m, a, "getpeername"),
    ]
    b = s.socket(m, s.INET, s.STREAM | s.NONBLOCK)
    seen += [s.connect(m, b, address), s.poll(m, b), s.error(m, b), s.error(m, b), s.poll(m, b)]
    c = s.socket(m, s.INET, s.STREAM | s.NONBLOCK)
    return seen, s.connect(m, c, address), s.connect(m, c, address), s.connect(m, c, address)


@as_on_the_host
def test_connecting_without_waiting(m: Machine) -> Any:
    _, address = s.listener(m)
    a = s.socket(m, s.INET, s.STREAM | s.NONBLOCK)
    seen = [s.connect(m, a, address), s.poll(m, a), s.error(m, a), s.connect(m, a, address), s.connect(m, a, address)]
    b = s.socket(m, s.INET, s.STREAM | s.NONBLOCK)
    return seen, s.connect(m, b, address), s.send(m, b, b"x"), s.connect(m, b, address), s.connect(m, b, address)


@as_on_the_host
def test_connections_that_nobody_accepted_are_reset(m: Machine) -> Any:
    fd, address = s.listener(m)
    a = s.socket(m, s.INET, s.STREAM)
    seen = [s.connect(m, a, address), s.send(m, a, b"early"), s.poll(m, fd), m.call("close", fd), s.poll(m, a)]
    return seen, s.receive(m, a), s.receive(m, a), s.send(m, a, b"x", s.NOSIGNAL)


@as_on_the_host
def test_data_sent_before_accept_and_end_before_accept(m: Machine) -> Any:
    fd, address = s.listener(m)
    a = s.socket(m, s.INET, s.STREAM)
    s.connect(m, a, address)
    s.send(m, a, b"early")
    m.call("close", a)
    b = m.call("accept4", fd, 0, 0, s.NONBLOCK | s.CLOEXEC)
    flags = m.call("fcntl", b, 1, 0), m.call("fcntl", b, 3, 0) & s.NONBLOCK
    return flags, s.poll(m, b), s.receive(m, b), s.receive(m, b), s.poll(m, b)


@as_on_the_host
def test_nowhere_but_here(m: Machine) -> Any:
    seen = []
    for kind in (s.STREAM, s.DGRAM):
        fd, six = s.socket(m, s.INET, kind), s.socket(m, s.INET6, kind)
        seen += [
            s.bind(m, fd, s.inet(0, b"\x08\x08\x08\x08")),
            s.bind(m, fd, s.inet(80)),
            s.bind(m, six, s.inet6(1023)),
        ]
        seen += [s.bind(m, six, s.inet6(0, b"\x20\x01" + bytes(14)))]
    return seen


@as_on_the_host
def test_addresses_of_the_wrong_family_or_length(m: Machine) -> Any:
    seen = []
    for kind in (s.STREAM, s.DGRAM):
        fd, six = s.socket(m, s.INET, kind), s.socket(m, s.INET6, kind)
        for address in (b"", b"\2\0", s.inet(0)[:15], s.inet6(0)[:23], s.unix(b"path" + bytes(20)), s.inet6(0)):
            seen.append((s.bind(m, fd, address), s.connect(m, fd, address), s.connect(m, six, address)))
        seen.append((s.bind(m, six, s.inet(0)), s.bind(m, fd, bytes(2) + s.inet(0)[2:]), s.bind(m, fd, bytes(16))))
        seen.append(
            (m.call("bind", six, m.nowhere, 28), m.call("bind", six, m.buffer, 129), m.call("bind", six, m.buffer, -1))
        )
    return seen


@as_on_the_host
def test_who_may_share_a_port(m: Machine) -> Any:
    any4, any6 = bytes(4), bytes(16)
    seen = []
    for kind in (s.STREAM, s.DGRAM):
        for first in ((s.INET, any4), (s.INET, s.LOOPBACK), (s.INET6, any6)):
            for option in (0, 2, 15):
                one = s.socket(m, first[0], kind)
                if option:
                    s.set_option(m, one, 1, option, 1)
                address = s.inet if first[0] == s.INET else s.inet6
                s.bind(m, one, address(0, first[1]))
                port = s.port_of(m, one)
                row = []
                for domain, ip in ((s.INET, any4), (s.INET, s.LOOPBACK), (s.INET, b"\x7f\0\0\2"), (s.INET6, any6)):
                    other = s.socket(m, domain, kind)
                    if option:
                        s.set_option(m, other, 1, option, 1)
                    row.append(s.bind(m, other, (s.inet if domain == s.INET else s.inet6)(port, ip)))
                    if kind == s.STREAM:
                        row.append(m.call("listen", other, 1))
                    m.call("close", other)
                seen.append(row)
                m.call("close", one)
    return seen


@as_on_the_host
def test_a_port_is_taken_while_a_connection_has_it(m: Machine) -> Any:
    fd, address = s.listener(m)
    a = s.socket(m, s.INET, s.STREAM)
    s.connect(m, a, address)
    m.call("accept", fd, 0, 0)
    m.call("close", fd)
    again, reusing = s.socket(m, s.INET, s.STREAM), s.socket(m, s.INET, s.STREAM)
    s.set_option(m, reusing, 1, 2, 1)
    return s.bind(m, again, address), s.bind(m, reusing, address), s.bind(m, again, s.name(m, a))


@as_on_the_host
def test_binding_twice(m: Machine) -> Any:
    seen = []
    for kind in (s.STREAM, s.DGRAM):
        fd = s.socket(m, s.INET, kind)
        seen += [s.bind(m, fd, s.inet(0)), s.bind(m, fd, s.inet(0))]
    a, _ = s.connection(m)
    return seen, s.bind(m, a, s.inet(0)), m.call("listen", a, 1)


@as_on_the_host
def test_both_families_on_one_socket(m: Machine) -> Any:
    seen = []
    for only in (0, 1):
        fd = s.socket(m, s.INET6, s.STREAM)
        seen += [s.set_option(m, fd, 41, 26, only), s.bind(m, fd, s.inet6(0, bytes(16))), m.call("listen", fd, 4)]
        seen += [s.set_option(m, fd, 41, 26, only)]
        port = s.port_of(m, fd)
        four, six = s.socket(m, s.INET, s.STREAM), s.socket(m, s.INET6, s.STREAM)
        mapped = s.socket(m, s.INET6, s.STREAM)
        seen += [s.connect(m, four, s.inet(port)), s.connect(m, six, s.inet6(port))]
        seen += [s.connect(m, mapped, s.inet6(port, bytes(10) + b"\xff\xff" + s.LOOPBACK))]
        for _ in range(1 if only else 3):
            server = m.call("accept", fd, 0, 0)
            seen += [s.name(m, server)[8:], s.name(m, server, "getpeername")[8:]]
        seen += [s.name(m, mapped)[8:]]
    return seen


@as_on_the_host
def test_connecting_to_the_unspecified_address_means_this_host(m: Machine) -> Any:
    _, address = s.listener(m)
    port = int.from_bytes(address[2:4], "big")
    a, b = s.socket(m, s.INET, s.STREAM), s.socket(m, s.INET, s.DGRAM)
    seen = [s.connect(m, a, s.inet(port, bytes(4))), s.name(m, a, "getpeername")[4:], s.name(m, a)[4:]]
    return seen, s.connect(m, b, s.inet(9, bytes(4))), s.name(m, b, "getpeername"), s.name(m, b)[4:]


@as_on_the_host
def test_disconnecting(m: Machine) -> Any:
    a, b = s.connection(m)
    nothing = bytes(16)
    seen = [s.connect(m, a, nothing), s.name(m, a, "getpeername"), s.name(m, a)[4:], s.receive(m, b), s.poll(m, a)]
    u = s.socket(m, s.INET, s.DGRAM)
    seen += [s.connect(m, u, s.inet(9)), s.connect(m, u, nothing), s.name(m, u), s.name(m, u, "getpeername")]
    return seen


@as_on_the_host
def test_datagrams_go_and_come(m: Machine) -> Any:
    seen = []
    for domain, address in ((s.INET, s.inet), (s.INET6, s.inet6)):
        a, b = s.socket(m, domain, s.DGRAM), s.socket(m, domain, s.DGRAM)
        s.bind(m, a, address(0))
        there = s.name(m, a)
        seen += [s.send(m, b, b"one", 0, there), s.send(m, b, b"", 0, there), s.send(m, b, b"three", 0, there)]
        first = s.receive_from(m, a)
        seen += [first[0], first[1] == s.name(m, b)[:4] + first[1][4:], first[1][4:], s.poll(m, a), s.receive(m, a)]
        seen += [m.call("ioctl", a, 0x541B, m.buffer), m.peek(m.buffer, 4), s.receive(m, a, 2), s.receive(m, a)]
        seen += [s.send(m, b, b"x"), s.receive(m, b), s.send(m, b, b"x", 0, address(0)), m.call("listen", a, 1)]
        seen += [m.call("accept", a, 0, 0), m.call("shutdown", a, 2), s.poll(m, a), s.receive(m, a)]
    return seen


@as_on_the_host
def test_a_connected_datagram_socket_hears_its_peer_only(m: Machine) -> Any:
    a, b, c = (s.socket(m, s.INET, s.DGRAM) for _ in range(3))
    for fd in (a, b, c):
        s.bind(m, fd, s.inet(0))
    seen = [s.connect(m, a, s.name(m, b)), s.send(m, c, b"stranger", 0, s.name(m, a)), s.receive(m, a)]
    seen += [s.send(m, b, b"peer", 0, s.name(m, a)), s.receive(m, a), s.send(m, a, b"to peer"), s.receive(m, b)]
    return seen, s.send(m, a, b"elsewhere", 0, s.name(m, c)), s.receive(m, c)


@as_on_the_host
def test_a_datagram_to_nobody(m: Machine) -> Any:
    a, b, c = (s.socket(m, s.INET, s.DGRAM) for _ in range(3))
    s.bind(m, a, s.inet(0))
    nobody = s.name(m, a)
    m.call("close", a)
    seen = [s.send(m, b, b"x", 0, nobody), s.poll(m, b), s.send(m, b, b"x", 0, nobody), s.receive(m, b)]
    seen += [s.connect(m, c, nobody), s.send(m, c, b"x"), s.poll(m, c), s.receive(m, c), s.send(m, c, b"x")]
    return seen, s.send(m, c, b"x"), s.error(m, c), s.receive(m, c)


@as_on_the_host
def test_broadcast_needs_an_option(m: Machine) -> Any:
    fd = s.socket(m, s.INET, s.DGRAM)
    return s.send(m, fd, b"x", 0, s.inet(9, b"\xff\xff\xff\xff")), s.connect(m, fd, s.inet(9, b"\xff\xff\xff\xff"))


@as_on_the_host
def test_waiting_for_all_of_it(m: Machine) -> Any:
    a, b = s.connection(m)
    s.send(m, a, b"12345")
    flags = s.WAITALL | s.DONTWAIT
    seen = [s.receive(m, b, 3, flags), s.receive(m, b, 3, flags), s.receive(m, b, 3, flags)]
    s.send(m, a, b"12")
    m.call("shutdown", a, 1)
    return seen, s.receive(m, b, 3, s.WAITALL), s.receive(m, b, 3, s.WAITALL)


@as_on_the_host
def test_a_time_out_is_eagain(m: Machine) -> Any:
    a, b = s.connection(m)
    seen = [
        s.set_option(m, b, 1, 20, struct.pack("<qq", 0, 20_000)),
        s.get_option(m, b, 1, 20, 16),
        s.receive(m, b, 1, 0),
    ]
    fd, _ = s.listener(m)
    u = s.socket(m, s.INET, s.DGRAM)
    for waiting in (fd, u):
        s.set_option(m, waiting, 1, 20, struct.pack("<qq", 0, 20_000))
    seen += [m.call("accept", fd, 0, 0), s.receive(m, u, 1, 0), s.send(m, a, b"12"), s.receive(m, b, 3, s.WAITALL)]
    s.set_option(m, a, 1, 21, struct.pack("<qq", 0, 20_000))
    while (sent := s.send(m, a, bytes(200_000))) == 200_000:
        pass
    return seen, s.send(m, a, bytes(200_000)) if sent > 0 else sent


@as_on_the_host
def test_a_connection_fills_up(m: Machine) -> Any:
    a, b = s.connection(m)
    total = 0
    while (sent := s.send(m, a, bytes(100_000), s.DONTWAIT)) > 0:
        total += sent
    seen = [sent, s.poll(m, a, 4), total > 200_000]
    got = 0
    while isinstance(data := s.receive(m, b, 100_000), bytes):
        got += len(data)
    return seen, s.poll(m, a, 4), got == total


@as_on_the_host
def test_bytes_of_a_peer_that_is_gone_can_still_be_read(m: Machine) -> Any:
    a, b = s.connection(m)
    s.send(m, a, b"all of it")
    m.call("close", a)
    return s.poll(m, b), s.receive(m, b, 3), s.receive(m, b, 99, s.PEEK), s.receive(m, b), s.receive(m, b), s.poll(m, b)


@as_on_the_host
def test_several_messages_in_one_call(m: Machine) -> Any:
    a, b = s.socket(m, s.INET, s.DGRAM), s.socket(m, s.INET, s.DGRAM)
    s.bind(m, a, s.inet(0))
    s.connect(m, b, s.name(m, a))

    def headers(pieces: list[tuple[int, int]]) -> int:
        head = b"".join(struct.pack("<QI4xQQQQI4xI4x", 0, 0, iovec(m, piece), 1, 0, 0, 0, 0) for piece in pieces)
        return int(m.place(head))

    out = headers([(m.place(data), len(data)) for data in (b"first", b"", b"third one")])
    seen = [m.call("sendmmsg", b, out, 3, 0), [m.peek(out + 64 * index + 56, 4) for index in range(3)]]
    into = headers([(m.buffer + 100 * index, 6) for index in range(4)])
    seen += [m.call("recvmmsg", a, into, 4, 0x10000, 0), m.call("recvmmsg", a, into, 4, s.DONTWAIT, 0)]
    seen += [(m.peek(into + 64 * index + 48, 4), m.peek(into + 64 * index + 56, 4)) for index in range(3)]
    seen += [m.peek(m.buffer, 5), m.peek(m.buffer + 200, 6), m.call("recvmmsg", 0, into, 1, 0, 0)]
    wrong = m.place(struct.pack("<qq", 0, 1_000_000_000))
    return (
        seen,
        m.call("recvmmsg", a, into, 1, s.DONTWAIT, wrong),
        m.call("sendmmsg", b, m.nowhere, 1, 0),
        m.call("sendmmsg", b, out, 0, 0),
    )


@as_on_the_host
def test_the_interface(m: Machine) -> Any:
    fd = s.socket(m, s.INET, s.DGRAM)
    lo = b"lo".ljust(40, b"\0")
    seen = []
    for request in (0x8913, 0x8915, 0x891B, 0x8921, 0x8927, 0x8933):
        at = m.place(lo)
        seen.append((m.call("ioctl", fd, request, at), m.peek(at, 24)))
    at = m.place(bytes(16) + struct.pack("<i", 1) + bytes(20))
    seen += [
        m.call("ioctl", fd, 0x8910, at),
        m.peek(at, 16),
        m.call("ioctl", fd, 0x8933, m.place(b"none".ljust(40, b"\0"))),
    ]
    return seen, m.call("ioctl", fd, 0x8910, m.place(bytes(16) + struct.pack("<i", 9999) + bytes(20)))


@as_on_the_host
def test_bytes_out_of_band(m: Machine) -> Any:
    seen = []
    for inline in (0, 1):
        a, b = s.connection(m)
        s.set_option(m, b, 1, 10, inline)
        seen += [s.receive(m, b, 1, s.OOB | s.DONTWAIT), s.send(m, a, b"before!", s.OOB), s.poll(m, b), s.poll(m, b, 2)]
        s.send(m, a, b"after")
        seen += [s.receive(m, b, 9, s.OOB | s.PEEK), s.receive(m, b, 9, s.OOB), s.poll(m, b)]
        seen += [m.call("ioctl", b, 0x8905, m.buffer), m.peek(m.buffer, 4), s.receive(m, b), s.poll(m, b)]
        seen += [m.call("ioctl", b, 0x8905, m.buffer), m.peek(m.buffer, 4), s.receive(m, b), s.receive(m, b)]
        seen += [s.poll(m, b), s.receive(m, b, 9, s.OOB), m.call("ioctl", b, 0x8905, m.buffer), m.peek(m.buffer, 4)]
    return seen


@as_on_the_host
def test_a_connection_that_was_reset_can_be_accepted(m: Machine) -> Any:
    fd, address = s.listener(m)
    a = s.socket(m, s.INET, s.STREAM)
    s.connect(m, a, address)
    s.send(m, a, b"lost")
    s.set_option(m, a, 1, 13, struct.pack("<ii", 1, 0))
    m.call("close", a)
    length = m.place(struct.pack("<I", 16))
    b = m.call("accept", fd, m.buffer, length)
    seen = (
        m.peek(m.buffer, 2),
        m.peek(length, 4),
        s.name(m, b, "getpeername"),
        s.poll(m, b),
        s.send(m, b, b"x", s.NOSIGNAL),
    )
    return seen, s.receive(m, b), s.receive(m, b)


@as_on_the_host
def test_clients_wait_for_room_at_the_listener(m: Machine) -> Any:
    fd, address = s.listener(m, backlog=0)
    clients = [s.socket(m, s.INET, s.STREAM | s.NONBLOCK) for _ in range(3)]
    seen = [s.connect(m, client, address) for client in clients]
    return seen, s.poll(m, clients[0]), s.poll(m, clients[2]), s.connect(m, clients[2], address), s.poll(m, fd)
