"""AF_UNIX sockets, on the host and in a guest."""

import struct
from typing import Any

from tests.linux import socket_scenarios as s
from tests.linux.vfs_scenarios import AT_FDCWD, Machine, as_on_the_host, make, pipe, read, write


@as_on_the_host
def test_a_pair_carries_bytes_both_ways(m: Machine) -> Any:
    a, b = s.pair(m)
    return (
        s.send(m, a, b"hello"), s.receive(m, b, 3), s.receive(m, b), s.receive(m, b), write(m, b, b"back"), read(m, a),
        s.name(m, a), s.name(m, a, "getpeername"),
    )  # fmt: skip


@as_on_the_host
def test_what_a_pair_says_to_poll(m: Machine) -> Any:
    seen = []
    for kind in (s.STREAM, s.DGRAM, s.SEQPACKET):
        a, b = s.pair(m, kind)
        seen.append((s.poll(m, a), s.poll(m, a, 0x2000 | 1)))
        s.send(m, b, b"x")
        seen.append((s.poll(m, a), s.poll(m, b)))
        m.call("shutdown", b, 1)
        seen.append((s.poll(m, a), s.poll(m, b), s.poll(m, a, 0x2000)))
        m.call("close", b)
        seen.append((s.poll(m, a), s.receive(m, a), s.receive(m, a), s.send(m, a, b"y", s.NOSIGNAL), s.poll(m, a)))
    return seen


@as_on_the_host
def test_a_fresh_socket_says_to_poll(m: Machine) -> Any:
    kinds = [(d, k) for d in (s.UNIX, s.INET, s.INET6) for k in (s.STREAM, s.DGRAM)]
    kinds.append((s.UNIX, s.SEQPACKET))
    return [s.poll(m, s.socket(m, *kind)) for kind in kinds]


@as_on_the_host
def test_closing_with_unread_data_resets_the_other_end(m: Machine) -> Any:
    seen = []
    for kind in (s.STREAM, s.SEQPACKET):
        a, b = s.pair(m, kind)
        s.send(m, a, b"unread")
        s.send(m, b, b"waiting")
        m.call("close", b)
        seen.append((s.poll(m, a), s.receive(m, a), s.receive(m, a), s.receive(m, a), s.send(m, a, b"z", s.NOSIGNAL)))
    return seen


@as_on_the_host
def test_shutting_down_one_direction(m: Machine) -> Any:
    a, b = s.pair(m)
    s.send(m, a, b"before")
    seen = [m.call("shutdown", a, 1), s.send(m, a, b"after", s.NOSIGNAL), s.receive(m, b), s.receive(m, b)]
    seen += [s.send(m, b, b"still"), s.receive(m, a), m.call("shutdown", a, 0), s.send(m, b, b"no", s.NOSIGNAL)]
    seen += [m.call("shutdown", a, 3), m.call("shutdown", a, -1), m.call("shutdown", a, 2), m.call("shutdown", 0, 2)]
    return seen, m.call("shutdown", s.socket(m, s.UNIX, s.STREAM), 2)


@as_on_the_host
def test_peeking_leaves_the_data(m: Machine) -> Any:
    seen = []
    for kind in (s.STREAM, s.DGRAM):
        a, b = s.pair(m, kind)
        s.send(m, a, b"one")
        s.send(m, a, b"two")
        flags = s.PEEK | s.DONTWAIT
        seen.append((s.receive(m, b, 2, flags), s.receive(m, b, 99, flags), s.receive(m, b, 99), s.receive(m, b, 99)))
    return seen


@as_on_the_host
def test_messages_keep_their_boundaries_and_are_cut(m: Machine) -> Any:
    seen = []
    for kind in (s.DGRAM, s.SEQPACKET):
        a, b = s.pair(m, kind)
        for data in (b"first", b"", b"second", b"third"):
            seen.append(s.send(m, a, data))
        seen += [s.receive(m, b, 3), s.receive(m, b, 9), m.call("recvfrom", b, m.buffer, 2, s.TRUNC, 0, 0)]
        seen += [s.receive_message(m, b, 2), s.receive(m, b), m.call("ioctl", b, 0x541B, m.buffer)]
    return seen


@as_on_the_host
def test_a_message_that_is_too_long(m: Machine) -> Any:
    seen = []
    for kind in (s.DGRAM, s.SEQPACKET):
        a, _ = s.pair(m, kind)
        s.set_option(m, a, s.SOL_SOCKET, 7, 4096)
        seen += [s.send(m, a, bytes(8192 - 32), s.DONTWAIT), s.send(m, a, bytes(8192 - 31), s.DONTWAIT)]
    udp = s.socket(m, s.INET, s.DGRAM)
    seen += [s.send(m, udp, bytes(65508), 0, s.inet(9)), s.send(m, udp, bytes(70000), 0, s.inet(9))]
    return seen


@as_on_the_host
def test_names_of_all_sorts(m: Machine) -> Any:
    seen = []
    for address in (
        s.unix(b"path"),
        s.unix(b"nul\0after"),
        s.unix(b"\0abstract" + str(m.base).encode() if False else b"x" * 108),
    ):
        fd = s.socket(m, s.UNIX, s.STREAM)
        seen += [s.name(m, fd), s.bind(m, fd, address), s.name(m, fd), s.bind(m, fd, s.unix(b"other"))]
    fd = s.socket(m, s.UNIX, s.STREAM)
    seen += [
        s.bind(m, fd, s.unix(b"path")),
        s.bind(m, fd, s.unix(b"y" * 109)),
        s.bind(m, fd, b"\1"),
        s.bind(m, fd, b""),
    ]
    seen += [s.bind(m, fd, s.inet(1)), s.bind(m, fd, s.unix(b"no/where")), s.bind(m, fd, s.unix(b"path/below"))]
    seen.append(s.bind(m, fd, s.unix(b"")))
    auto = s.name(m, fd)
    return seen, len(auto), auto[:3]


@as_on_the_host
def test_an_abstract_name_is_free_when_its_socket_is_closed(m: Machine) -> Any:
    a, b, c = (s.socket(m, s.UNIX, s.STREAM) for _ in range(3))
    s.bind(m, a, s.unix(b""))
    address = s.name(m, a)
    seen = [s.bind(m, b, address), m.call("listen", a, 1), s.connect(m, c, address), m.call("close", a)]
    return seen, s.bind(m, b, address), s.connect(m, s.socket(m, s.UNIX, s.STREAM), address)


@as_on_the_host
def test_the_name_in_the_file_system_is_a_socket_that_stays(m: Machine) -> Any:
    m.call("umask", 0o027)
    fd = s.socket(m, s.UNIX, s.STREAM)
    s.bind(m, fd, s.unix(b"path"))
    m.call("newfstatat", AT_FDCWD, b"path", m.buffer, 0)
    mode = struct.unpack("<I", m.peek(m.buffer + 24, 4))
    m.call("fstat", fd, m.buffer)
    own_mode = struct.unpack("<I", m.peek(m.buffer + 24, 4))
    opened = m.call("openat", AT_FDCWD, b"path", 2, 0)
    m.call("listen", fd, 1)
    client = s.socket(m, s.UNIX, s.STREAM)
    m.call("close", fd)
    seen = [s.connect(m, client, s.unix(b"path")), s.bind(m, client, s.unix(b"path")), m.call("unlink", b"path")]
    return mode, own_mode, opened, seen, s.connect(m, client, s.unix(b"path")), s.bind(m, client, s.unix(b"path"))


@as_on_the_host
def test_who_may_not_write_to_the_name_may_not_connect(m: Machine) -> Any:
    _, address = s.listener(m, s.UNIX)
    client = s.socket(m, s.UNIX, s.STREAM)
    m.call("chmod", b"listener", 0o500)
    refused = s.connect(m, client, address)
    m.call("close", make(m, b"file"))
    return (
        refused,
        s.connect(m, client, s.unix(b"file")),
        s.connect(m, client, s.unix(b"nothing")),
        s.connect(m, client, s.unix(b"")),
    )


@as_on_the_host
def test_connecting_where_it_cannot_be(m: Machine) -> Any:
    fd, address = s.listener(m, s.UNIX)
    bound = s.socket(m, s.UNIX, s.STREAM)
    s.bind(m, bound, s.unix(b"bound"))
    stream, datagram = s.socket(m, s.UNIX, s.STREAM), s.socket(m, s.UNIX, s.DGRAM)
    seen = [s.connect(m, stream, s.unix(b"bound")), s.connect(m, datagram, address), s.connect(m, fd, address)]
    seen += [s.connect(m, stream, address), s.connect(m, stream, address), s.connect(m, stream, s.inet(80))]
    seen += [m.call("listen", stream, 1), m.call("listen", datagram, 1), m.call("accept", stream, 0, 0)]
    seen += [m.call("accept", datagram, 0, 0), m.call("accept4", fd, 0, 0, 1), m.call("accept", 0, 0, 0)]
    return seen, m.call("listen", s.socket(m, s.UNIX, s.STREAM), 1)


@as_on_the_host
def test_a_full_queue_of_connections(m: Machine) -> Any:
    fd, address = s.listener(m, s.UNIX, 1)
    clients = [s.socket(m, s.UNIX, s.STREAM | s.NONBLOCK) for _ in range(4)]
    return (
        [s.connect(m, client, address) for client in clients],
        s.poll(m, fd),
        s.poll(m, clients[0]),
        s.poll(m, clients[3]),
    )


@as_on_the_host
def test_connections_that_nobody_accepted_are_reset(m: Machine) -> Any:
    fd, address = s.listener(m, s.UNIX)
    client = s.socket(m, s.UNIX, s.STREAM)
    s.connect(m, client, address)
    sent = s.send(m, client, b"early")
    m.call("close", fd)
    return sent, s.poll(m, client), s.error(m, client), s.receive(m, client), s.send(m, client, b"x", s.NOSIGNAL)


@as_on_the_host
def test_an_accepted_connection_has_addresses_and_credentials(m: Machine) -> Any:
    fd, address = s.listener(m, s.UNIX)
    client = s.socket(m, s.UNIX, s.STREAM)
    before = s.get_option(m, client, 1, 17, 12)
    s.connect(m, client, address)
    s.send(m, client, b"data before accept")
    length = m.place(struct.pack("<I", 128))
    server = m.call("accept", fd, m.buffer, length)
    told = m.peek(length, 4), m.peek(m.buffer, 2)
    names = [s.name(m, end, call) for end in (client, server) for call in ("getsockname", "getpeername")]
    pid = m.call("getpid")
    creds = [struct.unpack("<iII", s.get_option(m, end, 1, 17, 12)) for end in (client, server)]
    return before, told, names, [(p == pid, u, g) for p, u, g in creds], s.receive(m, server)


@as_on_the_host
def test_datagrams_tell_who_sent_them(m: Machine) -> Any:
    receiver, sender = s.socket(m, s.UNIX, s.DGRAM), s.socket(m, s.UNIX, s.DGRAM)
    s.bind(m, receiver, s.unix(b"receiver"))
    seen = [s.send(m, sender, b"nameless", 0, s.unix(b"receiver")), s.receive_from(m, receiver)]
    s.bind(m, sender, s.unix(b"sender"))
    seen += [s.send(m, sender, b"named", 0, s.unix(b"receiver")), s.receive_from(m, receiver)]
    seen += [s.send(m, sender, b"x"), s.connect(m, sender, s.unix(b"receiver")), s.send(m, sender, b"connected")]
    seen += [s.receive_from(m, receiver), s.name(m, sender, "getpeername"), s.name(m, receiver, "getpeername")]
    third = s.socket(m, s.UNIX, s.DGRAM)
    seen += [s.connect(m, receiver, s.unix(b"sender")), s.send(m, third, b"x", 0, s.unix(b"receiver"))]
    seen += [s.connect(m, third, s.unix(b"receiver")), s.connect(m, receiver, struct.pack("<H", 0) + bytes(14))]
    return seen, s.connect(m, third, s.unix(b"receiver"))


@as_on_the_host
def test_a_datagram_to_who_is_gone(m: Machine) -> Any:
    receiver, sender = s.socket(m, s.UNIX, s.DGRAM), s.socket(m, s.UNIX, s.DGRAM)
    s.bind(m, receiver, s.unix(b"receiver"))
    s.connect(m, sender, s.unix(b"receiver"))
    m.call("close", receiver)
    return s.send(m, sender, b"x"), s.send(m, sender, b"x"), s.send(m, sender, b"x", 0, s.unix(b"receiver"))


@as_on_the_host
def test_a_stream_does_not_take_a_destination(m: Machine) -> Any:
    a, _ = s.pair(m)
    fresh = s.socket(m, s.UNIX, s.STREAM)
    to = s.unix(b"there")
    return s.send(m, a, b"x", 0, to), s.send(m, fresh, b"x", 0, to), s.send(m, fresh, b"x"), s.receive(m, fresh)


@as_on_the_host
def test_descriptors_are_passed(m: Machine) -> Any:
    a, b = s.pair(m)
    r, w = pipe(m)
    seen = [s.send_message(m, a, b"with a pipe", s.cmsg(1, 1, struct.pack("<ii", r, w)))]
    m.call("close", r)
    m.call("close", w)
    data, control, told = s.receive_message(m, b)
    length, level, kind = struct.unpack("<Qii", control[:16])
    r, w = struct.unpack("<ii", control[16:24])
    write(m, w, b"through it")
    seen += [data, len(control), told, length, level, kind, read(m, r), m.call("fcntl", r, 1, 0)]
    s.send_message(m, a, b"x", s.cmsg(1, 1, struct.pack("<i", w)))
    _, control, told = s.receive_message(m, b, flags=0x40000000)
    return seen, told, m.call("fcntl", struct.unpack("<i", control[16:20])[0], 1, 0)


@as_on_the_host
def test_descriptors_for_which_there_is_no_room(m: Machine) -> Any:
    a, b = s.pair(m)
    seen = []
    for room in (0, 8, 16, 20, 24, 28):
        s.send_message(m, a, b"x", s.cmsg(1, 1, struct.pack("<iii", 0, 0, 0)))
        data, control, told = s.receive_message(m, b, room=room)
        seen.append((data, len(control), told, m.call("dup", 0)))
    s.send_message(m, a, b"xy", s.cmsg(1, 1, struct.pack("<i", 0)))
    return seen, read(m, b, 1), s.receive_message(m, b), m.call("dup", 0)


@as_on_the_host
def test_control_messages_that_are_wrong(m: Machine) -> Any:
    a, _ = s.pair(m)
    tcp, _ = s.connection(m)
    controls = [
        s.cmsg(1, 1, struct.pack("<i", 99)), s.cmsg(1, 1, struct.pack("<i", -1)), s.cmsg(1, 1, bytes(4 * 254)),
        s.cmsg(1, 2, bytes(8)), s.cmsg(1, 2, struct.pack("<iII", 1, 0, 0)), s.cmsg(1, 99, b""), s.cmsg(7, 1, b"data"),
        struct.pack("<Qii", 15, 1, 1), struct.pack("<Qii", 1 << 40, 1, 1), struct.pack("<Qii", 0, 1, 1), bytes(4),
    ]  # fmt: skip
    return [(s.send_message(m, a, b"x", control), s.send_message(m, tcp, b"x", control)) for control in controls]


@as_on_the_host
def test_credentials_are_told_to_who_asks(m: Machine) -> Any:
    a, b = s.pair(m)
    seen = [s.set_option(m, b, 1, 16, 1), s.get_option(m, b, 1, 16)]
    s.send(m, a, b"x")
    data, control, told = s.receive_message(m, b)
    pid, uid, gid = struct.unpack("<iII", control[16:28])
    seen += [data, told, len(control), control[:16], pid == m.call("getpid"), uid, gid]
    s.send_message(m, a, b"y", s.cmsg(1, 2, struct.pack("<iII", m.call("getpid"), 1000, 1000)))
    data, control, told = s.receive_message(m, b, room=20)
    return seen, data, len(control), told


@as_on_the_host
def test_messages_with_descriptors_end_a_read(m: Machine) -> Any:
    a, b = s.pair(m)
    s.send(m, a, b"plain ")
    s.send_message(m, a, b"with", s.cmsg(1, 1, struct.pack("<i", 0)))
    s.send(m, a, b" after")
    first = s.receive_message(m, b)
    return first[0], len(first[1]), s.receive(m, b)


@as_on_the_host
def test_peeked_descriptors_stay(m: Machine) -> Any:
    a, b = s.pair(m)
    s.send_message(m, a, b"x", s.cmsg(1, 1, struct.pack("<i", 0)))
    peeked = s.receive_message(m, b, flags=s.PEEK)
    return peeked, s.receive_message(m, b), m.call("dup", 0)


@as_on_the_host
def test_a_stream_fills_up(m: Machine) -> Any:
    a, b = s.pair(m, s.STREAM | s.NONBLOCK)
    total = 0
    while (sent := s.send(m, a, bytes(65536))) > 0:
        total += sent
    seen = [sent, s.poll(m, a, 4), total > 65536]
    while isinstance(s.receive(m, b, 65536), bytes):
        pass
    return seen, s.poll(m, a, 4)


@as_on_the_host
def test_datagrams_fill_up_their_receiver(m: Machine) -> Any:
    receiver, sender = s.socket(m, s.UNIX, s.DGRAM), s.socket(m, s.UNIX, s.DGRAM)
    s.bind(m, receiver, s.unix(b"receiver"))
    s.connect(m, sender, s.unix(b"receiver"))
    count = 0
    while (sent := s.send(m, sender, b"x", s.DONTWAIT)) == 1 and count < 1000:
        count += 1
    polled = s.poll(m, sender, 4)
    while isinstance(s.receive(m, receiver), bytes):
        pass
    return sent, polled, s.poll(m, sender, 4)


@as_on_the_host
def test_sockets_are_not_sought_truncated_or_mapped(m: Machine) -> Any:
    a, _ = s.pair(m)
    refused = [m.call("lseek", a, 0, 0), m.call("pread64", a, m.buffer, 1, 0), m.call("pwrite64", a, m.buffer, 1, 0)]
    refused += [m.call("ftruncate", a, 0), m.call("fsync", a), m.call("fallocate", a, 0, 0, 1)]
    refused += [m.call("ioctl", a, 0x5401, m.buffer), m.call("getdents64", a, m.buffer, 100), m.call("fchdir", a)]
    flags = m.call("fcntl", a, 3, 0), m.call("ioctl", a, 0x5421, m.place(b"\1\0\0\0")), m.call("fcntl", a, 3, 0)
    return refused, flags, read(m, a)


@as_on_the_host
def test_a_read_into_nowhere_loses_nothing_of_a_stream(m: Machine) -> Any:
    a, b = s.pair(m)
    c, d = s.pair(m, s.DGRAM)
    s.send(m, a, b"stream")
    s.send(m, c, b"datagram")
    seen = [m.call("read", b, m.nowhere, 5), s.receive(m, b), m.call("read", d, m.nowhere, 5), s.receive(m, d)]
    return seen, m.call("sendto", a, m.nowhere, 5, 0, 0, 0), m.call("sendto", c, m.nowhere, 5, 0, 0, 0)


@as_on_the_host
def test_a_long_write_is_one_message_or_none(m: Machine) -> Any:
    a, b = s.pair(m, s.DGRAM)
    u = s.socket(m, s.INET, s.DGRAM)
    s.connect(m, u, s.inet(9))
    seen = [m.call("write", a, m.buffer, 200_000), m.call("ioctl", b, 0x541B, m.buffer), m.peek(m.buffer, 4)]
    return seen, m.call("write", a, m.buffer, 500_000), m.call("write", u, m.buffer, 500_000), s.receive(m, b, 10)
