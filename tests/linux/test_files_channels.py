"""Pipes, eventfds, memfds, and waiting for them; on the host and in a guest."""

import struct
from typing import Any

from tests.linux.vfs_scenarios import (
    AT_FDCWD,
    O_NONBLOCK,
    O_RDWR,
    O_WRONLY,
    Machine,
    as_on_the_host,
    make,
    pipe,
    read,
    write,
)


@as_on_the_host
def test_a_pipe_gives_what_was_written_and_then_the_end(m: Machine) -> Any:
    r, w = pipe(m)
    write(m, w, b"hello")
    first = read(m, r, 2)
    waiting = m.call("ioctl", r, 0x541B, m.buffer), m.peek(m.buffer, 4)
    m.call("close", w)
    return (r, w), first, waiting, read(m, r), read(m, r)


@as_on_the_host
def test_a_pipe_without_readers_breaks(m: Machine) -> Any:
    r, w = pipe(m)
    m.call("close", r)
    return write(m, w, b"x"), m.call("write", w, m.buffer, 0)


@as_on_the_host
def test_a_pipe_that_does_not_block_says_again(m: Machine) -> Any:
    r, w = pipe(m, O_NONBLOCK)
    empty = read(m, r)
    filled = write(m, w, b"x" * 65536), write(m, w, b"y")
    read(m, r, 4096)
    return empty, filled, write(m, w, b"z" * 4097 * 2), write(m, w, b"y")


@as_on_the_host
def test_a_pipe_cannot_be_sought_or_mapped_to_a_size(m: Machine) -> Any:
    r, w = pipe(m)
    refused = [m.call("lseek", r, 0, 0), m.call("pread64", r, m.buffer, 1, 0), m.call("pwrite64", w, m.buffer, 1, 0)]
    refused += [
        m.call("pread64", w, m.buffer, 1, 0),
        m.call("ftruncate", w, 0),
        m.call("fsync", w),
        m.call("fadvise64", r, 0, 0, 0),
    ]
    refused += [read(m, w), write(m, r, b"x"), m.call("fallocate", w, 0, 0, 1), m.call("ioctl", r, 0x5401, m.buffer)]
    return refused, m.call("pipe2", m.buffer, 1), m.call("pipe2", m.nowhere, 0), m.call("dup", 0)


@as_on_the_host
def test_a_pipe_read_into_nowhere_loses_nothing(m: Machine) -> Any:
    r, w = pipe(m)
    write(m, w, b"hello")
    return m.call("read", r, m.nowhere, 5), read(m, r)


@as_on_the_host
def test_the_capacity_of_a_pipe(m: Machine) -> Any:
    r, w = pipe(m)
    write(m, w, b"x" * 5000)
    sizes = [m.call("fcntl", r, 1031, size) for size in (1, 4096, 8192, 10000, 1 << 20, (1 << 31) + 1)]
    return m.call("fcntl", w, 1032, 0), sizes, m.call("fcntl", 0, 1, 0)


@as_on_the_host
def test_a_fifo_opened_both_ways_is_a_pipe(m: Machine) -> Any:
    made = m.call("mknod", b"p", 0o010644, 0)
    writer = m.call("openat", AT_FDCWD, b"p", O_WRONLY | O_NONBLOCK, 0)
    fd = m.call("openat", AT_FDCWD, b"p", O_RDWR, 0)
    late = m.call("openat", AT_FDCWD, b"p", O_WRONLY | O_NONBLOCK, 0)
    write(m, late, b"through")
    return made, writer, read(m, fd), m.call("lseek", fd, 0, 0)


@as_on_the_host
def test_an_eventfd_counts(m: Machine) -> Any:
    fd = m.call("eventfd2", 3, O_NONBLOCK)
    semaphore = m.call("eventfd2", 2, O_NONBLOCK | 1)
    one = struct.pack("<Q", 5)
    return (
        write(m, fd, one),
        read(m, fd, 8),
        read(m, fd, 8),
        read(m, fd, 4),
        write(m, fd, b"abc"),
        write(m, fd, b"\xff" * 8),
        read(m, semaphore, 8),
        read(m, semaphore, 8),
        read(m, semaphore, 8),
        m.call("eventfd2", 0, 2),
    )


@as_on_the_host
def test_a_memfd_is_a_file_that_can_be_sealed(m: Machine) -> Any:
    fd = m.call("memfd_create", b"x", 2)
    write(m, fd, b"abc")
    seals = [m.call("fcntl", fd, 1034, 0), m.call("fcntl", fd, 1033, 2 | 4), m.call("fcntl", fd, 1034, 0)]
    sealed = (
        m.call("ftruncate", fd, 1),
        m.call("ftruncate", fd, 9),
        write(m, fd, b"d"),
        m.call("pwrite64", fd, m.place(b"X"), 1, 0),
    )
    more = (
        m.call("fcntl", fd, 1033, 8),
        m.call("pwrite64", fd, m.place(b"X"), 1, 0),
        m.call("fcntl", fd, 1033, 1),
        m.call("fcntl", fd, 1033, 2),
    )
    plain = m.call("memfd_create", b"y", 0)
    return (
        seals,
        sealed,
        more,
        m.call("fcntl", plain, 1034, 0),
        m.call("fcntl", plain, 1033, 2),
        m.call("memfd_create", b"n" * 250, 0),
        m.call("memfd_create", b"z", 0x100),
    )


@as_on_the_host
def test_poll_says_what_is_ready(m: Machine) -> Any:
    f = make(m, b"f")
    r, w = pipe(m)
    entries = [(f, 5), (r, 1), (w, 4), (-1, 1), (99, 1), (r, 4)]

    def go(timeout: int = 0) -> Any:
        at = m.place(b"".join(struct.pack("<ihh", fd, events, 99) for fd, events in entries))
        return m.call("poll", at, len(entries), timeout), m.peek(at, 8 * len(entries))

    first = go()
    write(m, w, b"x")
    second = go(-1)
    m.call("close", w)
    third = go(0)
    return (
        first,
        second,
        third,
        m.call("poll", m.nowhere, 1, 0),
        m.call("poll", m.nowhere, 0, 0),
        m.call("poll", m.buffer, 1 << 30, 0),
    )


@as_on_the_host
def test_poll_waits_for_its_time(m: Machine) -> Any:
    r, _ = pipe(m)
    at = m.place(struct.pack("<ihh", r, 1, 0))
    odd = [
        m.call("ppoll", at, 1, m.place(struct.pack("<qq", *time)), 0, 8)
        for time in ((0, -1), (-1, 0), (0, 10**9), (0, 1000))
    ]
    return (
        m.call("poll", at, 1, 20),
        odd,
        m.call("ppoll", at, 1, m.nowhere, 0, 8),
        m.call("ppoll", at, 1, m.place(bytes(16)), m.buffer, 4),
    )


@as_on_the_host
def test_select_marks_bits(m: Machine) -> Any:
    f = make(m, b"f")
    r, w = pipe(m)
    bits = 1 << f | 1 << r | 1 << w

    def go(count: int, wanted: int = bits) -> Any:
        sets = [m.place(wanted.to_bytes(16, "little")) for _ in range(3)]
        result = m.call("select", count, *sets, m.place(bytes(16)))
        return result, [m.peek(at, 16) for at in sets]

    first = go(64)
    write(m, w, b"x")
    return first, go(64), go(64, 1 << 60), go(-1), go(0), m.call("select", 64, m.nowhere, 0, 0, m.place(bytes(16)))


@as_on_the_host
def test_select_refuses_negative_times(m: Machine) -> Any:
    return [
        m.call("select", 0, 0, 0, 0, m.place(struct.pack("<qq", *time)))
        for time in ((-1, 0), (0, -1), (0, 2_000), (1 << 62, 0))[:3]
    ]
