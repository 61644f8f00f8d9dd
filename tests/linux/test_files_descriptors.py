"""Descriptors and what they refer to; on the host and in a guest."""

import struct
from typing import Any

from tests.linux.vfs_scenarios import (
    AT_FDCWD,
    MINUS_ONE,
    O_APPEND,
    O_CLOEXEC,
    O_CREAT,
    O_NOFOLLOW,
    O_NONBLOCK,
    O_PATH,
    O_RDWR,
    O_TRUNC,
    O_WRONLY,
    Machine,
    as_on_the_host,
    make,
)


@as_on_the_host
def test_the_lowest_free_descriptor_is_given(m: Machine) -> Any:
    make(m, b"f")
    fds = [m.call("openat", AT_FDCWD, b"f", 0, 0) for _ in range(4)]
    m.call("close", fds[1])
    m.call("close", fds[0])
    return fds, m.call("dup", fds[2]), m.call("dup", fds[2]), m.call("dup", fds[2])


@as_on_the_host
def test_duplicates_share_position_and_status_flags_but_not_cloexec(m: Machine) -> Any:
    fd = make(m, b"f", b"abcdef")
    other = m.call("fcntl", fd, 1030, 20)
    m.call("lseek", fd, 3, 0)
    m.call("fcntl", other, 4, O_APPEND)
    flags = [m.call("fcntl", number, 3, 0) & O_APPEND for number in (fd, other)]
    return other, m.call("lseek", other, 0, 1), flags, m.call("fcntl", fd, 1, 0), m.call("fcntl", other, 1, 0)


@as_on_the_host
def test_dup2_onto_itself_and_onto_nonsense(m: Machine) -> Any:
    fd = make(m, b"f")
    pairs = ((fd, fd), (99, 99), (99, 5), (fd, -1), (fd, 1 << 30), (fd, 10))
    return [m.call("dup2", *pair) for pair in pairs], m.call("dup3", fd, fd, 0), m.call("dup3", fd, 11, 1)


@as_on_the_host
def test_close_range_closes_and_marks(m: Machine) -> Any:
    fd = make(m, b"f")
    for number in range(10, 16):
        m.call("dup2", fd, number)
    marked = m.call("close_range", 14, MINUS_ONE & 0xFFFFFFFF & 150, 4), m.call("fcntl", 15, 1, 0)
    closed = m.call("close_range", 10, 12, 0), [m.call("fcntl", number, 1, 0) for number in range(10, 16)]
    return marked, closed, m.call("close_range", 5, 4, 0), m.call("close_range", 1, 2, 8)


@as_on_the_host
def test_fcntl_refuses_what_it_does_not_know(m: Machine) -> Any:
    fd = make(m, b"f")
    return [m.call("fcntl", fd, command, argument) for command, argument in ((77, 0), (0, -1), (0, 1 << 20), (1032, 0))]


@as_on_the_host
def test_flags_that_open_takes_are_shown_by_f_getfl(m: Machine) -> Any:
    make(m, b"f")
    found = []
    for flags in (
        0,
        O_CLOEXEC,
        O_APPEND | O_WRONLY,
        O_NONBLOCK,
        O_RDWR | O_TRUNC | O_CREAT,
        O_NOFOLLOW,
        O_PATH | O_RDWR,
    ):
        fd = m.call("openat", AT_FDCWD, b"f", flags, 0)
        found.append((m.call("fcntl", fd, 3, 0), m.call("fcntl", fd, 1, 0)))
    return found


@as_on_the_host
def test_locks_of_ones_own_never_conflict(m: Machine) -> Any:
    fd = make(m, b"f", b"abc")
    reader = m.call("openat", AT_FDCWD, b"f", 0, 0)
    whole = [struct.pack("<hh4xqqi4x", kind, 0, 0, 0, 0) for kind in (0, 1, 2, 5)]
    results = [m.call("fcntl", fd, 6, m.place(lock)) for lock in whole]
    results += [m.call("fcntl", reader, 6, m.place(lock)) for lock in whole]
    odd = [
        struct.pack("<hh4xqqi4x", 1, whence, start, length, 0)
        for whence, start, length in ((9, 0, 0), (0, -1, 0), (0, 1, -5))
    ]
    results += [m.call("fcntl", fd, 6, m.place(lock)) for lock in odd]
    query = m.place(struct.pack("<hh4xqqi4x", 1, 0, 2, 3, 9))
    return results, m.call("fcntl", fd, 5, query), m.peek(query, 32), m.call("fcntl", fd, 6, m.nowhere)


@as_on_the_host
def test_flock_takes_its_operations_only(m: Machine) -> Any:
    fd = make(m, b"f")
    return [m.call("flock", fd, operation) for operation in (1, 2, 8, 6, 0, 3, 16)], m.call("flock", 99, 2)


@as_on_the_host
def test_ioctls_of_a_file(m: Machine) -> Any:
    fd = make(m, b"f", b"abcdef")
    m.call("lseek", fd, 2, 0)
    terminal = [m.call("ioctl", fd, request, m.buffer) for request in (0x5401, 0x5413, 0x1234)]
    waiting = m.call("ioctl", fd, 0x541B, m.buffer), m.peek(m.buffer, 4)
    flags = [
        m.call("ioctl", fd, 0x5451, 0),
        m.call("fcntl", fd, 1, 0),
        m.call("ioctl", fd, 0x5450, 0),
        m.call("fcntl", fd, 1, 0),
    ]
    block = m.call("ioctl", fd, 0x5421, m.place(struct.pack("<i", 1))), m.call("fcntl", fd, 3, 0)
    return terminal, waiting, flags, block, m.call("ioctl", 99, 0x5401, 0), m.call("ioctl", fd, 0x5421, m.nowhere)


@as_on_the_host
def test_a_path_descriptor_only_names_a_place(m: Machine) -> Any:
    make(m, b"f", b"abc")
    fd = m.call("openat", AT_FDCWD, b"f", O_PATH, 0)
    refused = [m.call(name, fd, m.buffer, 1, 0) for name in ("read", "write", "lseek", "fchmod", "ioctl", "pread64")]
    refused += [
        m.call("fcntl", fd, 4, 0),
        m.call("ftruncate", fd, 0),
        m.call("fsync", fd),
        m.call("getdents64", fd, m.buffer, 100),
    ]
    allowed = [m.call("fstat", fd, m.buffer), m.call("dup", fd) > 0, m.call("fcntl", fd, 1, 0), m.call("close", fd)]
    return refused, allowed


@as_on_the_host
def test_a_symbolic_link_can_be_held_by_o_path_and_nofollow(m: Machine) -> Any:
    m.call("symlink", b"target", b"l")
    fd = m.call("openat", AT_FDCWD, b"l", O_PATH | O_NOFOLLOW, 0)
    count = m.call("readlinkat", fd, b"", m.buffer, 100)
    return count, m.peek(m.buffer, count), m.call("openat", AT_FDCWD, b"l", O_NOFOLLOW, 0)
