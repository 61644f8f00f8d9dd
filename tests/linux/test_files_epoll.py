"""epoll(7), on the host and in a guest."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linux.vfs_guest import Guest, run_in_guest
from tests.linux.vfs_native import run_natively
from tests.linux.vfs_scenarios import MINUS_ONE, O_CLOEXEC, O_NONBLOCK, Machine, as_on_the_host, make, pipe, read, write

ADD, DEL, MOD = 1, 2, 3
IN, PRI, OUT, ERR, HUP, RDHUP = 1, 2, 4, 8, 16, 0x2000
EXCLUSIVE, ONESHOT, ET = 1 << 28, 1 << 30, 1 << 31


def new_set(m: Machine) -> int:
    return int(m.call("epoll_create1", 0))


def control(m: Machine, epoll: int, operation: int, fd: int, events: int = IN, data: int | None = None) -> int:
    return int(
        m.call("epoll_ctl", epoll, operation, fd, m.place(struct.pack("<IQ", events, fd if data is None else data)))
    )


def ready(m: Machine, epoll: int, count: int = 16, timeout: int = 0) -> Any:
    found = m.call("epoll_wait", epoll, m.buffer, count, timeout & MINUS_ONE)
    return found if found < 0 else list(struct.iter_unpack("<IQ", m.peek(m.buffer, found * 12)))


@as_on_the_host
def test_a_set_tells_what_is_ready_until_it_is_no_longer(m: Machine) -> Any:
    r, w = pipe(m)
    e = new_set(m)
    added = control(m, e, ADD, r), control(m, e, ADD, w, OUT, data=(1 << 64) - 1)
    before = ready(m, e)
    write(m, w, b"x")
    return added, before, ready(m, e), ready(m, e), read(m, r), ready(m, e)


@as_on_the_host
def test_edge_triggered_news_are_told_once(m: Machine) -> Any:
    r, w = pipe(m, O_NONBLOCK)
    e = new_set(m)
    control(m, e, ADD, r, IN | ET)
    control(m, e, ADD, w, OUT | ET)
    told = [ready(m, e), ready(m, e)]
    write(m, w, b"x")
    told += [ready(m, e), ready(m, e)]
    write(m, w, b"x")
    told += [ready(m, e)]
    read(m, r, 1)
    told += [ready(m, e)]
    filled = write(m, w, b"z" * 70000), write(m, w, b"z")
    told += [ready(m, e), read(m, r, 1) == b"x", ready(m, e), len(read(m, r)), ready(m, e), ready(m, e)]
    return told, filled


@as_on_the_host
def test_one_shot_news_are_told_again_when_armed_again(m: Machine) -> Any:
    r, w = pipe(m)
    e = new_set(m)
    control(m, e, ADD, r, IN | ONESHOT)
    write(m, w, b"x")
    told = [ready(m, e), ready(m, e)]
    write(m, w, b"x")
    told += [ready(m, e), control(m, e, MOD, r, IN | ONESHOT), ready(m, e), ready(m, e)]
    m.call("close", w)
    return told, ready(m, e), control(m, e, MOD, r, ONESHOT), ready(m, e)


@as_on_the_host
def test_changing_an_entry_tells_what_is_ready_already(m: Machine) -> Any:
    r, w = pipe(m)
    e = new_set(m)
    write(m, w, b"x")
    told = [control(m, e, ADD, r, 0), ready(m, e), control(m, e, MOD, r, IN | ET, data=7), ready(m, e), ready(m, e)]
    return told, control(m, e, MOD, r, IN | ET, data=8), ready(m, e), ready(m, e)


@as_on_the_host
def test_an_entry_goes_with_the_description_not_with_the_descriptor(m: Machine) -> Any:
    r, w = pipe(m)
    e = new_set(m)
    other = m.call("dup", r)
    control(m, e, ADD, r)
    write(m, w, b"x")
    closed = m.call("close", r), ready(m, e), control(m, e, DEL, r), control(m, e, DEL, other)
    again = m.call("dup2", other, r), control(m, e, ADD, other), len(ready(m, e))
    return closed, again, m.call("close", other), ready(m, e), m.call("close", r), ready(m, e)


@as_on_the_host
def test_what_a_set_refuses(m: Machine) -> Any:
    r, w = pipe(m)
    e = new_set(m)
    file, null = make(m, b"file"), m.call("openat", -100, b"/dev/null", 0)
    folder = m.call("openat", -100, b".", 0o200000)
    path = m.call("openat", -100, b".", 0o10200000)
    refused = [control(m, e, ADD, fd) for fd in (file, null, folder, path, e, 99, -1 & MINUS_ONE)]
    refused += [control(m, r, ADD, w), control(m, 99, ADD, w), control(m, file, ADD, r), control(m, file, ADD, file)]
    refused += [control(m, e, MOD, r), control(m, e, DEL, r), control(m, e, ADD, r), control(m, e, ADD, r)]
    refused += [control(m, e, operation, r) for operation in (0, 4, 1 << 31, MINUS_ONE)]
    refused += [m.call("epoll_ctl", e, operation, r, m.nowhere) for operation in (ADD, MOD, DEL)]
    refused += [m.call("epoll_ctl", 99, operation, 99, m.nowhere) for operation in (ADD, DEL)]
    refused += [control(m, e, ADD, w, OUT | EXCLUSIVE | bit) for bit in (ONESHOT, PRI, RDHUP, ET)]
    refused += [control(m, e, MOD, w, OUT), control(m, e, MOD, w, OUT | EXCLUSIVE), control(m, e, DEL, w, 0)]
    refused += [m.call("epoll_create", size) for size in (0, MINUS_ONE)]
    refused += [m.call("epoll_create1", flags) for flags in (1, O_NONBLOCK, MINUS_ONE)]
    made = [m.call("epoll_create", 1), m.call("epoll_create1", O_CLOEXEC)]
    flags = [m.call("fcntl", fd, command, 0) for fd in (e, *made) for command in (1, 3)]
    return refused, made, flags, read(m, e), write(m, e, b"x"), m.call("lseek", e, 5, 0), m.call("ftruncate", e, 0)


@as_on_the_host
def test_what_waiting_refuses(m: Machine) -> Any:
    r, w = pipe(m)
    e = new_set(m)
    control(m, e, ADD, w, OUT)
    most = 0x7FFF_FFFF // 12
    refused = [ready(m, e, count) for count in (0, MINUS_ONE, 1 << 31, most + 1)]
    refused += [ready(m, r), ready(m, 99), m.call("epoll_wait", 99, m.nowhere, 0, 0)]
    refused += [m.call("epoll_wait", e, m.nowhere, 1, 0), m.call("epoll_wait", e, MINUS_ONE, 1, 0)]
    refused += [m.call("epoll_wait", e, m.nowhere - 12, 4, 0), ready(m, e, most)]
    mask, past = m.place(bytes(8)), m.place(struct.pack("<qq", 0, 1_000_000_000))
    refused += [m.call("epoll_pwait", e, m.buffer, 1, 0, mask, size) for size in (8, 4, 16)]
    refused += [
        m.call("epoll_pwait", e, m.buffer, 1, 0, m.nowhere, 8),
        m.call("epoll_pwait2", e, m.buffer, 1, past, 0, 8),
    ]
    refused += [
        m.call("epoll_pwait2", e, m.buffer, 1, timeout, mask, 8) for timeout in (0, m.nowhere, m.place(bytes(16)))
    ]
    refused += [m.call("epoll_pwait2", e, m.buffer, 1, m.place(struct.pack("<qq", -1, 0)), mask, 8)]
    return refused


@as_on_the_host
def test_a_one_shot_event_that_could_not_be_written_is_not_lost(m: Machine) -> Any:
    r, w = pipe(m)
    e = new_set(m)
    control(m, e, ADD, w, OUT | ONESHOT)
    control(m, e, ADD, r, IN | ONESHOT)
    write(m, w, b"x")
    cut = m.call("epoll_wait", e, m.nowhere - 12, 4, 0), m.call("epoll_wait", e, m.nowhere, 4, 0)
    return cut, ready(m, e), ready(m, e)


@as_on_the_host
def test_all_ready_files_have_their_turn(m: Machine) -> Any:
    e = new_set(m)
    for number in range(5):
        control(m, e, ADD, m.call("eventfd2", 1, 0), data=number)
    return [ready(m, e, 2) for _ in range(6)]


@as_on_the_host
def test_the_end_of_a_pipe_is_always_told(m: Machine) -> Any:
    r, w = pipe(m)
    e = new_set(m)
    control(m, e, ADD, r, 0)
    control(m, e, ADD, w, ET)
    before = ready(m, e)
    other = pipe(m)
    control(m, e, ADD, other[1], 0)
    m.call("close", other[0])
    m.call("close", w)
    return before, sorted(ready(m, e)), sorted(ready(m, e))


@as_on_the_host
def test_sets_in_sets(m: Machine) -> Any:
    r, w = pipe(m)
    inner, outer, edge = new_set(m), new_set(m), new_set(m)
    control(m, outer, ADD, inner)
    control(m, edge, ADD, inner, IN | ET)
    control(m, inner, ADD, r)
    before = ready(m, outer), ready(m, edge)
    write(m, w, b"x")
    told = [ready(m, outer), ready(m, edge), ready(m, edge), ready(m, inner), ready(m, outer)]
    write(m, w, b"x")
    told += [ready(m, edge)]
    read(m, r)
    return (
        before,
        told,
        ready(m, outer),
        ready(m, edge),
        m.call("poll", m.place(struct.pack("<ihh", inner, 1, 0)), 1, 0),
    )


@as_on_the_host
def test_sets_may_neither_lie_in_a_circle_nor_too_deep(m: Machine) -> Any:
    r, w = pipe(m)
    sets = [new_set(m) for _ in range(8)]
    down = [control(m, sets[n], ADD, sets[n + 1]) for n in range(7)]
    circle = [control(m, sets[n], ADD, sets[0]) for n in range(8)]
    leaf = [control(m, each, ADD, r) for each in sets]
    tops = [new_set(m) for _ in range(6)]
    up = [control(m, tops[n + 1], ADD, tops[n]) for n in range(5)]
    return down, circle, leaf, up, control(m, tops[0], ADD, w, OUT)


@as_on_the_host
def test_a_file_has_only_so_many_ways_up(m: Machine) -> Any:
    r, _ = pipe(m)
    inner = [new_set(m) for _ in range(30)]
    for each in inner:
        control(m, each, ADD, r)
    middle = new_set(m)
    first = [control(m, middle, ADD, each) for each in inner]
    outer = [new_set(m) for _ in range(5)]
    return first, [control(m, each, ADD, middle) for each in outer]


def test_entries_cost_room() -> None:
    guest = Guest()
    quota = guest.vfs.store.quota
    before = quota.bytes_used
    e, event = new_set(guest), guest.call("eventfd2", 0, 0)
    assert control(guest, e, ADD, event) == 0
    assert quota.bytes_used > before
    guest.call("close", event)
    assert quota.bytes_used == before
    again = guest.call("eventfd2", 0, 0)
    quota.max_bytes = quota.bytes_used
    assert control(guest, e, ADD, again) == -28


def test_a_set_and_what_it_watches_are_part_of_a_snapshot() -> None:
    guest = Guest()
    r, w = pipe(guest, O_NONBLOCK)
    event, e = guest.call("eventfd2", 5, 0), new_set(guest)
    outer, unread = new_set(guest), pipe(guest, O_NONBLOCK)
    write(guest, unread[1], b"in flight")
    assert control(guest, e, ADD, r, IN | ET, data=1) == control(guest, e, ADD, unread[0], IN | ET, data=2) == 0
    assert control(guest, e, ADD, event, IN | ONESHOT, data=3) == control(guest, outer, ADD, e, IN, data=4) == 0
    assert ready(guest, e, 1) == [(IN, 2)]
    forks = [Guest(state=guest.save()) for _ in range(2)]
    for fork in forks:
        assert ready(fork, outer) == [(IN, 4)]
        assert ready(fork, e) == [(IN, 3)]
        assert ready(fork, outer) == ready(fork, e) == []
        write(fork, w, b"x")
        assert ready(fork, outer) == [(IN, 4)]
        assert ready(fork, e) == [(IN, 1)]
        assert read(fork, unread[0]) == b"in flight"
        assert read(fork, event, 8) == struct.pack("<Q", 5)
        fork.call("close", w)
        assert ready(fork, e) == [(IN | HUP, 1)]
        assert fork.vfs.store.quota.bytes_used == guest.vfs.store.quota.bytes_used - len(b"in flight") + 1


def test_news_are_not_missed_by_a_set_that_nobody_has_asked_for_since_the_snapshot() -> None:
    guest = Guest()
    r, w = pipe(guest, O_NONBLOCK)
    e = new_set(guest)
    control(guest, e, ADD, r, IN | ET)
    guest.call("dup2", r, 50)
    fork = Guest(state=guest.save())
    write(fork, w, b"x")
    assert ready(fork, e) == [(IN, r)]
    assert fork.call("close", r) == 0
    assert read(fork, 50) == b"x"


def test_a_set_that_watches_what_no_descriptor_has_cannot_be_saved() -> None:
    guest = Guest()
    e, event = new_set(guest), guest.call("eventfd2", 0, 0)
    control(guest, e, ADD, event)
    kept = guest.files.get(event).acquire()
    guest.call("close", event)
    with pytest.raises(ValueError, match="has not open"):
        guest.save()
    kept.release()


# ------------------------------------------------------------------------------------------------------------ sequences

_PIPES, _EVENTS, _SETS = 2, 2, 3
_slot = st.integers(0, 2 * _PIPES + _EVENTS + _SETS - 1)
_set = st.integers(0, _SETS - 1)
_bits = st.lists(st.sampled_from((IN, OUT, PRI, RDHUP, HUP, ET, ET, ONESHOT, 0x40, 0x100)), max_size=3).map(
    lambda bits: sum(set(bits))
)
_operation = st.one_of(
    st.tuples(st.just("ctl"), _set, st.sampled_from((ADD, ADD, ADD, MOD, DEL)), _slot, _bits),
    st.tuples(st.just("wait"), _set, st.integers(1, 4)),
    st.tuples(st.just("wait"), _set, st.just(16)),
    st.tuples(st.just("write"), st.integers(0, _PIPES - 1), st.sampled_from((0, 1, 100, 4096, 5000, 65536, 70000))),
    st.tuples(st.just("read"), st.integers(0, _PIPES - 1), st.sampled_from((0, 1, 4096, 65536, 70000))),
    st.tuples(st.just("add"), st.integers(0, _EVENTS - 1), st.sampled_from((0, 1, (1 << 64) - 2, (1 << 64) - 1))),
    st.tuples(st.just("take"), st.integers(0, _EVENTS - 1)),
    st.tuples(st.just("close"), _slot),
    st.tuples(st.just("dup"), _slot),
    st.tuples(st.just("poll"), _slot),
    st.tuples(st.just("size"), st.integers(0, _PIPES - 1), st.sampled_from((4096, 8192, 65536))),
)


def _play(m: Machine, operations: list[Any]) -> list[Any]:
    """Make the calls; what each gave."""
    fds: list[int] = []
    for _ in range(_PIPES):
        fds += pipe(m, O_NONBLOCK)
    fds += [m.call("eventfd2", 0, O_NONBLOCK | number) for number in range(_EVENTS)]
    fds += [new_set(m) for _ in range(_SETS)]
    sets, events = fds[-_SETS:], fds[2 * _PIPES : 2 * _PIPES + _EVENTS]
    results: list[Any] = []
    for name, *rest in operations:
        if name == "ctl":
            results.append(control(m, sets[rest[0]], rest[1], fds[rest[2]], rest[3]))
        elif name == "wait":
            results.append(ready(m, sets[rest[0]], rest[1]))
        elif name == "write":
            results.append(m.call("write", fds[2 * rest[0] + 1], m.buffer, rest[1]))
        elif name == "read":
            results.append(m.call("read", fds[2 * rest[0]], m.buffer, rest[1]))
        elif name == "add":
            results.append(write(m, events[rest[0]], struct.pack("<Q", rest[1])))
        elif name == "take":
            results.append(read(m, events[rest[0]], 8))
        elif name == "close":
            results.append(m.call("close", fds[rest[0]]))
        elif name == "dup":
            results.append(m.call("dup2", fds[rest[0]], 50))
        elif name == "poll":
            at = m.place(struct.pack("<ihh", fds[rest[0]], -1, 0))
            results.append((m.call("poll", at, 1, 0), m.peek(at, 8)))
        else:
            results.append(m.call("fcntl", fds[2 * rest[0]], 1031, rest[1]))
    return results


@settings(max_examples=60)
@given(st.lists(_operation, min_size=1, max_size=40))
def test_any_sequence_of_calls_does_the_same_as_on_the_host(operations: list[Any]) -> None:
    def program(m: Machine) -> Any:
        return _play(m, operations)

    assert run_in_guest(program) == run_natively(program)
