"""Timers and signals as files, on the host and in a guest."""

import struct
from typing import Any

from tests.linux.vfs_guest import Guest
from tests.linux.vfs_scenarios import MINUS_ONE, O_CLOEXEC, O_NONBLOCK, Machine, as_on_the_host, pipe, read, write

MONOTONIC, REALTIME, BOOTTIME = 1, 0, 7
ABSTIME, CANCEL_ON_SET = 1, 2


def spec(interval_ns: int, value_ns: int) -> bytes:
    return struct.pack("<4q", *divmod(interval_ns, 10**9), *divmod(value_ns, 10**9))


def set_timer(m: Machine, fd: int, interval_ns: int, value_ns: int, flags: int = 0, old: int = 0) -> int:
    return int(m.call("timerfd_settime", fd, flags, m.place(spec(interval_ns, value_ns)), old))


def setting(m: Machine, fd: int) -> tuple[int, bool]:
    """The interval, and whether it will ring."""
    assert m.call("timerfd_gettime", fd, m.buffer) == 0
    seconds, rest, *left = struct.unpack("<4q", m.peek(m.buffer, 32))
    return seconds * 10**9 + rest, any(left)


@as_on_the_host
def test_a_timer_that_was_not_set_never_rings(m: Machine) -> Any:
    fd = m.call("timerfd_create", MONOTONIC, O_NONBLOCK)
    at = m.place(struct.pack("<ihh", fd, 1, 0))
    return (
        read(m, fd, 8),
        setting(m, fd),
        m.call("poll", at, 1, 0),
        set_timer(m, fd, 5, 0),
        read(m, fd, 8),
        setting(m, fd),
    )


@as_on_the_host
def test_a_timer_whose_time_is_past_has_rung(m: Machine) -> Any:
    results = []
    for clock in (MONOTONIC, REALTIME, BOOTTIME):
        fd = m.call("timerfd_create", clock, O_NONBLOCK)
        set_timer(m, fd, 0, 1, ABSTIME)
        at = m.place(struct.pack("<ihh", fd, 5, 0))
        results += [
            m.call("poll", at, 1, 0),
            m.peek(at, 8),
            read(m, fd, 7),
            setting(m, fd),
            read(m, fd, 8),
            read(m, fd, 8),
        ]
    return results


@as_on_the_host
def test_a_timer_far_away_can_be_set_and_taken_back(m: Machine) -> Any:
    fd = m.call("timerfd_create", REALTIME, O_NONBLOCK)
    far = [set_timer(m, fd, 7, 10**18, flags) for flags in (0, ABSTIME, ABSTIME | CANCEL_ON_SET, CANCEL_ON_SET)]
    before = setting(m, fd)
    old = set_timer(m, fd, 0, 0, 0, m.buffer), struct.unpack("<4q", m.peek(m.buffer, 32))[:2]
    return far, before, old, setting(m, fd), read(m, fd, 8)


@as_on_the_host
def test_what_timers_refuse(m: Machine) -> Any:
    fd, (r, _) = m.call("timerfd_create", MONOTONIC, 0), pipe(m)
    refused = [m.call("timerfd_create", clock, 0) for clock in (2, 3, 4, 5, 8, 9, 11, 12, MINUS_ONE)]
    refused += [m.call("timerfd_create", MONOTONIC, flags) for flags in (1, 2, MINUS_ONE)]
    refused += [set_timer(m, fd, 0, 5, flags) for flags in (4, 8, MINUS_ONE)]
    odd = [(0, -1, 0, 0), (0, 0, 0, 10**9), (-1, 0, 1, 0), (0, 10**9, 1, 0), (1 << 62, 0, 1 << 62, 0)]
    refused += [m.call("timerfd_settime", fd, 0, m.place(struct.pack("<4q", *fields)), 0) for fields in odd]
    refused += [m.call("timerfd_settime", fd, 0, m.nowhere, 0), m.call("timerfd_settime", 99, 0, m.nowhere, 0)]
    refused += [set_timer(m, other, 0, 5) for other in (r, 99)] + [set_timer(m, fd, 0, 5, 0, m.nowhere)]
    refused += [m.call("timerfd_gettime", other, m.buffer) for other in (r, 99)] + [
        m.call("timerfd_gettime", fd, m.nowhere)
    ]
    flags = [
        m.call("fcntl", m.call("timerfd_create", MONOTONIC, O_CLOEXEC | O_NONBLOCK), command, 0) for command in (1, 3)
    ]
    return refused, flags, write(m, fd, bytes(8)), m.call("lseek", fd, 3, 0), m.call("pread64", fd, m.buffer, 8, 0)


def test_a_timer_counts_what_it_has_missed() -> None:
    guest = Guest()
    fd = guest.call("timerfd_create", MONOTONIC, O_NONBLOCK)
    set_timer(guest, fd, 10**9, 10**9)
    guest.clock.now += 3_500_000_000
    assert read(guest, fd, 8) == struct.pack("<Q", 3)
    assert guest.kernel.scheduler.timers.next_time() is not None
    guest.clock.now += 500_000_000
    assert read(guest, fd, 8) == struct.pack("<Q", 1)


def test_timers_are_part_of_a_snapshot() -> None:
    guest = Guest()
    fds = [guest.call("timerfd_create", clock, O_NONBLOCK) for clock in (MONOTONIC, REALTIME)]
    for fd in fds:
        set_timer(guest, fd, 10**9, 2 * 10**9)
    mask = guest.call("signalfd4", MINUS_ONE, guest.place((1 << 9).to_bytes(8, "little")), 8, O_NONBLOCK)
    fork = Guest(state=guest.save())
    assert [read(fork, fd, 8) for fd in fds] == [-11, -11]
    fork.clock.now = guest.clock.now + 2 * 10**9
    assert [read(fork, fd, 8) for fd in fds] == [struct.pack("<Q", 1)] * 2
    assert fork.files.get(mask).mask == 1 << 9  # type: ignore[attr-defined]


@as_on_the_host
def test_what_signal_files_refuse(m: Machine) -> Any:
    none, (r, _) = m.place(bytes(8)), pipe(m)
    refused = [m.call("signalfd4", MINUS_ONE, none, size, 0) for size in (0, 4, 16)]
    refused += [m.call("signalfd4", MINUS_ONE, none, 8, flags) for flags in (1, MINUS_ONE)]
    refused += [m.call("signalfd4", fd, none, 8, 0) for fd in (r, 99, MINUS_ONE - 1)] + [
        m.call("signalfd4", r, m.nowhere, 8, 0)
    ]
    fd = m.call("signalfd4", MINUS_ONE, none, 8, O_NONBLOCK | O_CLOEXEC)
    flags = [m.call("fcntl", fd, command, 0) for command in (1, 3)]
    at = m.place(struct.pack("<ihh", fd, 5, 0))
    odd = read(m, fd, 127), read(m, fd, 128), m.call("poll", at, 1, 0), write(m, fd, bytes(128))
    return refused, flags, odd, m.call("signalfd4", fd, m.place(b"\xff" * 8), 8, 0) == fd, read(m, fd, 128)


@as_on_the_host
def test_what_process_files_refuse(m: Machine) -> Any:
    me, (r, _) = m.call("getpid"), pipe(m)
    refused = [m.call("pidfd_open", pid, 0) for pid in (0, MINUS_ONE, 4_000_000)]
    refused += [m.call("pidfd_open", me, flags) for flags in (1, 2, MINUS_ONE)]
    fd = m.call("pidfd_open", me, O_NONBLOCK)
    flags = [m.call("fcntl", fd, command, 0) & 0o4003 for command in (1, 3)]
    at = m.place(struct.pack("<ihh", fd, 5, 0))
    odd = read(m, fd, 128), m.call("poll", at, 1, 0), write(m, fd, b"x")
    refused += [m.call("pidfd_send_signal", fd, signo, 0, 0) for signo in (65, MINUS_ONE, 0)]
    refused += [m.call("pidfd_send_signal", other, 0, 0, 0) for other in (r, 99)]
    refused += [m.call("pidfd_send_signal", fd, 0, 0, flags) for flags in (3, 8, 1)]
    refused += [m.call("pidfd_send_signal", fd, 10, address, 0) for address in (m.place(bytes(128)), m.nowhere)]
    refused += [m.call("pidfd_getfd", fd, other, 0) == 99 for other in (99, r)] + [m.call("pidfd_getfd", r, 0, 0)]
    refused += [
        m.call("pidfd_getfd", fd, 0, 1),
        m.call("waitid", 3, r, m.buffer, 4, 0),
        m.call("waitid", 3, fd, m.buffer, 4, 0),
    ]
    return flags, odd, refused, m.call("waitid", 3, MINUS_ONE, m.buffer, 4, 0)
