"""Advisory locks, on the host and in a guest."""

import os
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linux.vfs_guest import Guest, run_in_guest
from tests.linux.vfs_native import run_natively
from tests.linux.vfs_scenarios import AT_FDCWD, MINUS_ONE, O_WRONLY, Machine, as_on_the_host, make, pipe

GETLK, SETLK, SETLKW, OFD_GETLK, OFD_SETLK, OFD_SETLKW = 5, 6, 7, 36, 37, 38
READ, WRITE, UNLOCK = 0, 1, 2
SHARED, EXCLUSIVE, NONBLOCK, RELEASE = 1, 2, 4, 8


def lock(
    m: Machine, fd: int, command: int, kind: int, start: int = 0, count: int = 0, whence: int = 0, pid: int = 0
) -> Any:
    """What the call gives; for a question, the answer, with whether the pid is the caller's."""
    at = m.place(struct.pack("<hh4xqqi4x", kind, whence, start, count, pid))
    result = m.call("fcntl", fd, command, at)
    if result or command not in (GETLK, OFD_GETLK):
        return result
    kind, whence, start, count, pid = struct.unpack("<hh4xqqi4x", m.peek(at, 32))
    return kind, whence, start, count, pid == m.call("getpid") or pid


def opened(m: Machine, count: int = 3) -> list[int]:
    first = make(m, b"file", b"0123456789")
    return [first, *(m.call("openat", AT_FDCWD, b"file", 2, 0) for _ in range(count - 1))]


@as_on_the_host
def test_locks_of_open_files_exclude_each_other(m: Machine) -> Any:
    a, b, c = opened(m)
    given = [lock(m, a, OFD_SETLK, READ, 0, 10), lock(m, b, OFD_SETLK, READ, 5, 10), lock(m, c, OFD_SETLK, WRITE, 2, 1)]
    given += [
        lock(m, b, OFD_SETLK, WRITE, 10, 5),
        lock(m, b, OFD_SETLK, WRITE, 9, 1),
        lock(m, c, OFD_GETLK, WRITE, 9, 4),
    ]
    given += [
        m.call("close", a),
        lock(m, b, OFD_SETLK, WRITE, 0, 10),
        lock(m, c, OFD_GETLK, READ),
        lock(m, b, OFD_GETLK, READ),
    ]
    return given, lock(m, b, OFD_GETLK, UNLOCK, 3, 1), lock(m, c, GETLK, WRITE, 3), lock(m, c, SETLK, WRITE, 3, 1)


@as_on_the_host
def test_locks_of_a_process_go_when_it_closes_any_descriptor_of_the_file(m: Machine) -> Any:
    a, b, c = opened(m)
    given = lock(m, a, SETLK, WRITE, 0, 5), lock(m, b, SETLK, WRITE, 3, 9), lock(m, c, OFD_GETLK, READ)
    closed = m.call("close", b), lock(m, c, OFD_GETLK, READ)
    again = lock(m, a, SETLK, WRITE), m.call("dup2", 0, m.call("dup", a)), lock(m, c, OFD_GETLK, READ)
    return given, closed, again


@as_on_the_host
def test_locks_are_split_and_joined(m: Machine) -> Any:
    a, b, _ = opened(m)
    steps = [
        (WRITE, 0, 100),
        (UNLOCK, 10, 10),
        (READ, 30, 10),
        (WRITE, 10, 5),
        (READ, 15, 5),
        (UNLOCK, 50, 0),
        (WRITE, 200, 0),
    ]
    answers = []
    for kind, start, count in steps:
        answers.append(lock(m, a, OFD_SETLK, kind, start, count))
        at = 0
        while (found := lock(m, b, OFD_GETLK, WRITE, at))[0] != UNLOCK:
            answers.append(found)
            if not found[3]:
                break
            at = found[2] + found[3]
    return answers


@as_on_the_host
def test_what_range_locks_refuse(m: Machine) -> Any:
    a, _, _ = opened(m)
    r, w = pipe(m)
    reading, writing = (m.call("openat", AT_FDCWD, b"file", mode, 0) for mode in (0, O_WRONLY))
    nothing = m.call("openat", AT_FDCWD, b"file", 3, 0)
    path = m.call("openat", AT_FDCWD, b"file", 0o10000000, 0)
    refused = [
        lock(m, fd, SETLK, kind) for fd in (reading, writing, nothing, path, r, w, 99) for kind in (READ, WRITE, UNLOCK)
    ]
    refused += [
        lock(m, a, command, kind) for command in (GETLK, SETLK, OFD_GETLK, OFD_SETLK) for kind in (3, 4, -1, UNLOCK)
    ]
    refused += [lock(m, a, SETLK, READ, 0, 0, whence) for whence in (3, -1)]
    big = (1 << 63) - 1
    for start, count, whence in (
        (-1, 0, 0),
        (0, -1, 0),
        (5, -6, 0),
        (5, -5, 0),
        (big, 1, 0),
        (big, 2, 0),
        (big, big, 0),
        (1, big, 0),
        (2, big, 0),
    ):
        refused.append(lock(m, a, OFD_SETLK, READ, start, count, whence))
    refused += [
        lock(m, a, OFD_SETLK, READ, start, count, 2)
        for start, count in ((-11, 0), (-10, 5), (big, 0), (0, -10), (0, -11))
    ]
    refused += [lock(m, a, command, READ, pid=7) for command in (OFD_GETLK, OFD_SETLK, OFD_SETLKW, GETLK, SETLK)]
    return refused, [m.call("fcntl", a, command, m.nowhere) for command in (GETLK, SETLK, SETLKW)]


@as_on_the_host
def test_flock_locks_the_open_file(m: Machine) -> Any:
    a, b, c = opened(m)
    again = m.call("dup", a)
    steps = [
        (a, SHARED),
        (b, SHARED),
        (c, EXCLUSIVE),
        (a, EXCLUSIVE),
        (c, SHARED),
        (b, RELEASE),
        (c, RELEASE),
        (again, EXCLUSIVE),
    ]
    given = [m.call("flock", fd, operation | NONBLOCK) for fd, operation in steps]
    given += [m.call("flock", b, SHARED | NONBLOCK), m.call("close", a), m.call("flock", b, SHARED | NONBLOCK)]
    given += [m.call("close", again), m.call("flock", b, SHARED), lock(m, c, OFD_SETLK, WRITE)]
    nothing = m.call("openat", AT_FDCWD, b"file", 3, 0)
    return given, [
        m.call("flock", nothing, operation) for operation in (RELEASE, SHARED | NONBLOCK, 32, 0, 3, MINUS_ONE)
    ]


def test_locks_are_bounded_and_given_back() -> None:
    guest = Guest()
    fd = make(guest, b"/tmp/file")
    used = guest.vfs.store.quota.bytes_used
    results = [lock(guest, fd, SETLK, WRITE, 2 * number, 1) for number in range(8200)]
    assert results.count(0) == 8192
    assert set(results[8192:]) == {-37}
    guest.call("close", fd)
    assert guest.vfs.store.quota.bytes_used == used
    fd = make(guest, b"/tmp/file")
    guest.vfs.store.quota.max_bytes = guest.vfs.store.quota.bytes_used
    assert lock(guest, fd, SETLK, WRITE) == guest.call("flock", fd, EXCLUSIVE) == -37


def test_a_locked_file_cannot_be_part_of_a_snapshot() -> None:
    guest = Guest()
    fd = make(guest, b"/tmp/file")
    guest.call("flock", fd, EXCLUSIVE)
    with pytest.raises(ValueError, match="lock is held"):
        guest.save()
    guest.call("flock", fd, RELEASE)
    guest.save()


_operation = st.one_of(
    st.tuples(
        st.just("lock"), st.integers(0, 2), st.sampled_from((GETLK, SETLK, OFD_GETLK, OFD_SETLK)),
        st.sampled_from((READ, WRITE, UNLOCK)), st.integers(0, 20), st.integers(-5, 12),
        st.sampled_from((0, 0, 0, 1, 2)),
    ),
    st.tuples(st.just("flock"), st.integers(0, 2), st.sampled_from((SHARED, EXCLUSIVE, RELEASE))),
    st.tuples(st.just("dup"), st.integers(0, 2)),
)  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes user 1000, which only root can")
@settings(max_examples=50)
@given(st.lists(_operation, min_size=1, max_size=30))
def test_any_sequence_of_locks_does_the_same_as_on_the_host(operations: list[Any]) -> None:
    def program(m: Machine) -> Any:
        fds, results = opened(m), []
        m.call("lseek", fds[1], 4, 0)
        for name, which, *rest in operations:
            if name == "lock":
                results.append(lock(m, fds[which], *rest))
            elif name == "flock":
                results.append(m.call("flock", fds[which], rest[0] | NONBLOCK))
            else:
                results.append(m.call("dup2", fds[which], 30))
        return results

    assert run_in_guest(program) == run_natively(program)
