"""Sockets under arguments that no program means, and under too much of everything."""

import struct
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyvmm.linux.limits import Limits
from tests.linux import socket_scenarios as s
from tests.linux.vfs_guest import BASE, SIZE, Deadlock, Guest

_ADDRESS = st.one_of(
    st.sampled_from([0, 1, BASE, BASE + SIZE // 2, BASE + SIZE - 1, BASE + SIZE, 0x666_0000, 1 << 47, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)
_NUMBER = st.one_of(
    st.integers(0, 64),
    st.sampled_from([128, 129, 255, 1024, 1025, 4096, 65507, 65536, 1 << 18, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 32]),
    st.integers(0, (1 << 64) - 1),
)
_FD = st.integers(-1, 14)
_FLAGS = st.one_of(st.sampled_from([0, 0x40, 0x42, 0x142, 0x60, 0x2040, 0x41]), st.integers(0, (1 << 32) - 1))
_BYTES = st.binary(max_size=160)
_SOCKADDR = st.one_of(
    _BYTES,
    st.builds(s.inet, st.integers(0, 65535), st.sampled_from([bytes(4), s.LOOPBACK, b"\xff" * 4, b"\xe0\0\0\1"])),
    st.builds(s.inet6, st.integers(0, 65535), st.sampled_from([bytes(16), bytes(15) + b"\1", b"\xfe\x80" + bytes(14)])),
    st.builds(s.unix, st.sampled_from([b"", b"name", b"\0abstract", b"x" * 108, b"/etc/passwd", b"/tmp/deep/er"])),
)
_CONTROL = st.lists(
    st.builds(s.cmsg, st.sampled_from([0, 1, 41, 255]), st.integers(0, 80), st.binary(max_size=40)), max_size=4
).map(b"".join)

_CALLS = st.one_of(
    st.tuples(st.just("socket"), st.sampled_from([1, 2, 10, 16]), st.integers(1, 5), st.sampled_from([0, 6, 17, 136])),
    st.tuples(st.just("socket"), _NUMBER, _NUMBER, _NUMBER),
    st.tuples(st.just("socketpair"), st.just(1), st.integers(1, 5), st.just(0), st.just(BASE + SIZE // 2)),
    st.tuples(st.just("socketpair"), _NUMBER, _NUMBER, _NUMBER, _ADDRESS),
    st.tuples(st.just("listen"), _FD, _NUMBER),
    st.tuples(st.sampled_from(["accept", "getsockname", "getpeername"]), _FD, _ADDRESS, _ADDRESS),
    st.tuples(st.just("accept4"), _FD, _ADDRESS, _ADDRESS, _FLAGS),
    st.tuples(st.just("shutdown"), _FD, st.integers(-1, 4)),
    st.tuples(st.just("close"), st.integers(3, 14)),
    st.tuples(st.just("ioctl"), _FD, st.integers(0x8900, 0x8940), _ADDRESS),
    st.tuples(st.just("ioctl"), _FD, st.sampled_from([0x5411, 0x541B, 0x5421]), _ADDRESS),
    st.tuples(st.just("setsockopt"), _FD, st.sampled_from([0, 1, 6, 17, 41, 136, 270]), _NUMBER, _ADDRESS, _NUMBER),
    st.tuples(st.just("getsockopt"), _FD, st.sampled_from([0, 1, 6, 17, 41, 136, 270]), _NUMBER, _ADDRESS, _ADDRESS),
    st.tuples(st.just("sendto"), _FD, _ADDRESS, _NUMBER, _FLAGS, _ADDRESS, _NUMBER),
    st.tuples(st.just("recvfrom"), _FD, _ADDRESS, _NUMBER, _FLAGS, _ADDRESS, _ADDRESS),
    st.tuples(st.sampled_from(["sendmsg", "recvmsg"]), _FD, _ADDRESS, _FLAGS),
    st.tuples(st.just("sendmmsg"), _FD, _ADDRESS, _NUMBER, _FLAGS),
    st.tuples(st.just("recvmmsg"), _FD, _ADDRESS, _NUMBER, _FLAGS, _ADDRESS),
    st.tuples(st.sampled_from(["read", "write"]), _FD, _ADDRESS, _NUMBER),
    st.tuples(st.sampled_from(["bind", "connect"]), _FD, _SOCKADDR, st.none()),
    st.tuples(st.sampled_from(["bind", "connect"]), _FD, _SOCKADDR, _NUMBER),
    st.tuples(st.just("message"), _FD, _BYTES, _CONTROL, _FLAGS),
    st.tuples(st.just("setting"), _FD, st.integers(0, 1), st.integers(0, 60), st.integers(-(1 << 31), (1 << 31) - 1)),
)


def _make(guest: Guest, call: tuple[Any, ...]) -> int:
    name, *arguments = call
    if name == "message":
        fd, data, control, flags = arguments
        return s.send_message(guest, fd, data, control, flags)
    if name == "setting":
        return s.set_option(guest, *arguments)
    if name in ("bind", "connect"):
        fd, address, length = arguments
        return guest.call(name, fd, guest.place(address), len(address) if length is None else length)
    return guest.call(name, *arguments)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_CALLS, max_size=40))
def test_wild_sequences_give_errors_and_leave_nothing_behind(calls: list[tuple[Any, ...]]) -> None:
    guest = Guest()
    used = guest.vfs.store.quota.bytes_used
    # Descriptors 3 to 14 are sockets of all kinds, some of them connected, one with a name.
    for kind in (s.STREAM, s.DGRAM, s.SEQPACKET):
        s.pair(guest, kind)
    s.connection(guest)
    for domain, kind in ((1, 1), (2, 1), (10, 2), (16, 3)):
        s.socket(guest, domain, kind)
    s.bind(guest, 9, s.unix(b"/tmp/name"))
    for call in calls:
        with suppress(Deadlock):
            assert _make(guest, call) >= -133
    for fd in guest.files.numbers():
        guest.call("close", fd)
    network = guest.kernel.network
    if not network.rights_in_flight:
        assert not network.sockets() and not network.abstract and not network.by_inode
        assert not list(network.tcp) and not list(network.udp) and not list(network.udplite)
        named = guest.vfs.store.quota.inodes_used
        assert named or guest.vfs.store.quota.bytes_used == used


@settings(max_examples=200, deadline=None)
@given(_BYTES)
def test_wild_netlink_requests_are_answered_or_ignored(data: bytes) -> None:
    guest = Guest()
    fd = s.socket(guest, 16, 3)
    assert s.send(guest, fd, data) == len(data)
    for _ in range(64):
        if isinstance(s.receive(guest, fd), int):
            return
    raise AssertionError("the answers do not end")


def test_what_is_in_flight_counts_as_memory_of_the_sandbox():
    guest = Guest(limits=Limits(file_bytes=4 << 20, inodes=1000))
    sent = []
    for _ in range(100):
        a, _ = s.pair(guest)
        while (count := s.send(guest, a, bytes(65536), s.DONTWAIT)) > 0:
            sent.append(count)
        if count != -11:
            break
    assert count == -105 and 2 << 20 < sum(sent) < 4 << 20
    for fd in guest.files.numbers()[3:]:
        guest.call("close", fd)
    assert s.send(guest, s.pair(guest)[0], bytes(65536), s.DONTWAIT) == 65536


def test_tiny_messages_cost_what_they_take_of_the_monitors_memory():
    guest = Guest()
    a, _ = s.pair(guest)
    count = 0
    while s.send(guest, a, b"x", s.DONTWAIT) == 1:
        count += 1
    assert count < 1000


def test_sockets_that_nobody_accepts_count_as_memory_of_the_sandbox():
    guest = Guest(limits=Limits(file_bytes=1 << 20, inodes=1000))
    _, address = s.listener(guest, backlog=4096)
    results = set()
    for _ in range(2000):
        client = s.socket(guest, s.INET, s.STREAM | s.NONBLOCK)
        if client < 0:
            results.add(client)
            break
        results.add(s.connect(guest, client, address))
        guest.call("close", client)
    assert results <= {-115, -105, -111} and -105 in results


def test_no_more_descriptors_are_in_flight_than_a_process_may_have():
    guest = Guest()
    a, b = s.pair(guest)
    control = s.cmsg(1, 1, struct.pack("<i", 0) * 253)
    results = [s.send_message(guest, a, b"x", control, s.DONTWAIT) for _ in range(6)]
    assert results == [1, 1, 1, 1, -109, -109]
    guest.call("close", b)
    c, _ = s.pair(guest)
    assert s.send_message(guest, c, b"x", control) == 1


def test_sockets_in_flight_inside_themselves_are_found_when_room_is_needed():
    guest = Guest()
    for _ in range(600):
        a, b = s.pair(guest)
        assert s.send_message(guest, a, b"x", s.cmsg(1, 1, struct.pack("<ii", a, b))) == 1
        guest.call("close", a)
        guest.call("close", b)
    assert len(guest.kernel.network.sockets()) <= 1100


def test_a_long_chain_of_sockets_in_flight_is_closed_without_recursion():
    guest = Guest()
    a, b = s.pair(guest)
    for _ in range(1000):
        c, d = s.pair(guest)
        assert s.send_message(guest, c, b"x", s.cmsg(1, 1, struct.pack("<ii", a, b))) == 1
        guest.call("close", a)
        guest.call("close", b)
        a, b = c, d
        if guest.kernel.network.rights_in_flight > 1000:
            break
    guest.call("close", a)
    guest.call("close", b)
    assert not guest.kernel.network.sockets() and not guest.kernel.network.rights_in_flight


def test_all_ephemeral_ports_can_be_in_use():
    guest = Guest(limits=Limits(file_bytes=1 << 30, inodes=1000, nofile=1 << 16))
    for _ in range(60999 - 32768 + 1):
        fd = s.socket(guest, s.INET, s.DGRAM)
        assert s.bind(guest, fd, s.inet(0)) == 0
    one, other = s.socket(guest, s.INET, s.DGRAM), s.socket(guest, s.INET, s.STREAM)
    assert s.bind(guest, one, s.inet(0)) == -98
    assert s.send(guest, one, b"x", 0, s.inet(9)) == -99
    assert s.bind(guest, other, s.inet(0)) == 0
