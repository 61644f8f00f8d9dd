"""Reading and writing: buffers, vectors, positions, sizes; on the host and in a guest."""

from typing import Any

from tests.linux.vfs_scenarios import (
    AT_FDCWD,
    MINUS_ONE,
    O_APPEND,
    O_RDWR,
    O_WRONLY,
    Machine,
    as_on_the_host,
    iovec,
    make,
    read,
    write,
)


@as_on_the_host
def test_a_read_delivers_what_lies_before_the_fault(m: Machine) -> Any:
    fd = make(m, b"f", b"0123456789" * 10)
    got = m.call("read", fd, m.nowhere - 7, 50)
    return got, m.peek(m.nowhere - 7, 7), m.call("lseek", fd, 0, 1)


@as_on_the_host
def test_a_read_into_nowhere_faults_and_leaves_the_position(m: Machine) -> Any:
    fd = make(m, b"f", b"0123456789")
    return m.call("read", fd, m.nowhere, 5), m.call("lseek", fd, 0, 1)


@as_on_the_host
def test_a_read_at_the_end_does_not_touch_the_buffer(m: Machine) -> Any:
    return m.call("read", make(m, b"f"), m.nowhere, 5)


@as_on_the_host
def test_a_write_takes_what_lies_before_the_fault(m: Machine) -> Any:
    fd = make(m, b"f")
    done = m.call("write", fd, m.nowhere - 9, 100)
    return done, m.call("lseek", fd, 0, 2)


@as_on_the_host
def test_a_write_from_nowhere_faults(m: Machine) -> Any:
    return m.call("write", make(m, b"f"), m.nowhere, 5), m.call("pwrite64", 3, m.nowhere, 5, 0)


@as_on_the_host
def test_a_bad_descriptor_comes_before_a_bad_buffer(m: Machine) -> Any:
    calls = ("read", "write", "readv", "writev", "pread64", "pwrite64", "getdents64")
    return [m.call(name, 77, m.nowhere, 10, 0) for name in calls]


@as_on_the_host
def test_nothing_is_transferred_with_a_length_of_zero(m: Machine) -> Any:
    fd = make(m, b"f", b"x")
    return [m.call(name, fd, m.nowhere, 0, 0) for name in ("read", "write", "pread64", "pwrite64", "readv", "writev")]


@as_on_the_host
def test_the_open_mode_decides_who_may_read_and_write(m: Machine) -> Any:
    make(m, b"f", b"content")
    found = []
    for flags in (0, O_WRONLY, O_RDWR, 3):
        fd = m.call("openat", AT_FDCWD, b"f", flags, 0)
        found += [
            m.call(name, fd, m.buffer, 0, 0) for name in ("read", "write", "pread64", "pwrite64", "readv", "writev")
        ]
        found += [m.call("ftruncate", fd, 3), m.call("fallocate", fd, 0, 0, 10), m.call("fcntl", fd, 3, 0)]
    return found


@as_on_the_host
def test_lengths_that_leave_the_address_space_fault(m: Machine) -> Any:
    fd = make(m, b"f", b"abc")
    return [m.call("read", fd, m.buffer, length) for length in (1 << 63, MINUS_ONE, 1 << 48)]


@as_on_the_host
def test_a_vector_is_filled_piece_by_piece(m: Machine) -> Any:
    fd = make(m, b"f", b"abcdefghij")
    vector = iovec(m, (m.buffer, 3), (m.buffer + 100, 0), (m.buffer + 10, 4), (m.buffer + 20, 50))
    return m.call("readv", fd, vector, 4), m.peek(m.buffer, 30)


@as_on_the_host
def test_a_vector_is_written_in_order(m: Machine) -> Any:
    fd = make(m, b"f")
    done = m.call("writev", fd, iovec(m, (m.place(b"one"), 3), (m.place(b"--"), 2), (m.place(b"two"), 3)), 3)
    return done, m.call("lseek", fd, 0, 0), read(m, fd)


@as_on_the_host
def test_a_vector_stops_at_the_fault(m: Machine) -> Any:
    fd = make(m, b"f", b"abcdefghij")
    read_ = m.call("readv", fd, iovec(m, (m.buffer, 3), (m.nowhere, 4), (m.buffer + 20, 3)), 3)
    written = m.call("pwritev", fd, iovec(m, (m.place(b"XY"), 2), (m.nowhere, 4)), 2, 0, 0)
    return read_, m.call("lseek", fd, 0, 1), written


@as_on_the_host
def test_odd_vectors_are_refused(m: Machine) -> Any:
    fd = make(m, b"f", b"abc")
    wide = iovec(m, *[(m.buffer, 1)] * 1025)
    return [
        m.call("readv", fd, wide, 1025),
        m.call("readv", fd, wide, 1024),
        m.call("readv", fd, wide, -1),
        m.call("readv", fd, wide, 0),
        m.call("writev", fd, iovec(m, (m.buffer, 1 << 63)), 1),
        m.call("writev", fd, iovec(m, (m.buffer, MINUS_ONE)), 1),
        m.call("readv", fd, m.nowhere, 1),
    ]


@as_on_the_host
def test_positioned_vectors_leave_the_position(m: Machine) -> Any:
    fd = make(m, b"f", b"abcdefghij")
    got = m.call("preadv", fd, iovec(m, (m.buffer, 3)), 1, 4, 0)
    return got, m.peek(m.buffer, 3), m.call("lseek", fd, 0, 1), m.call("preadv", fd, iovec(m, (m.buffer, 3)), 1, -1, 0)


@as_on_the_host
def test_preadv2_at_minus_one_uses_the_position(m: Machine) -> Any:
    fd = make(m, b"f", b"abcdefghij")
    return m.call("preadv2", fd, iovec(m, (m.buffer, 3)), 1, -1, 0, 0), m.call("lseek", fd, 0, 1)


@as_on_the_host
def test_appending_writes_go_to_the_end_wherever_the_position_is(m: Machine) -> Any:
    make(m, b"f", b"start")
    fd = m.call("openat", AT_FDCWD, b"f", O_RDWR | O_APPEND, 0)
    m.call("lseek", fd, 1, 0)
    write(m, fd, b"-end")
    position = m.call("lseek", fd, 0, 1)
    at = m.call("pwrite64", fd, m.place(b"++"), 2, 0)
    m.call("lseek", fd, 0, 0)
    return position, at, read(m, fd)


@as_on_the_host
def test_a_write_past_the_end_leaves_a_hole_of_zeros(m: Machine) -> Any:
    fd = make(m, b"f", b"ab")
    m.call("lseek", fd, 70000, 0)
    write(m, fd, b"z")
    return m.call("pread64", fd, m.buffer, 6, 69997), m.peek(m.buffer, 4), m.call("lseek", fd, 0, 2)


@as_on_the_host
def test_truncating_up_and_down_reads_zeros(m: Machine) -> Any:
    fd = make(m, b"f", b"abcdef" * 20000)
    results = [m.call("ftruncate", fd, size) for size in (3, 100, 65536, 65530, 65540)]
    m.call("pread64", fd, m.buffer, 200, 0)
    return results, m.peek(m.buffer, 200), m.call("lseek", fd, 0, 2)


@as_on_the_host
def test_a_huge_sparse_file_costs_nothing(m: Machine) -> Any:
    fd = make(m, b"f", b"a")
    return m.call("ftruncate", fd, 1 << 40), m.call("pread64", fd, m.buffer, 10, 1 << 39), m.peek(m.buffer, 10)


@as_on_the_host
def test_negative_sizes_and_offsets_are_refused(m: Machine) -> Any:
    fd = make(m, b"f", b"abc")
    return [
        m.call("ftruncate", fd, -1),
        m.call("truncate", b"f", -1),
        m.call("truncate", b"missing", -1),
        m.call("pread64", fd, m.buffer, 1, -1),
        m.call("pread64", 99, m.buffer, 1, -1),
        m.call("lseek", fd, -1, 0),
        m.call("lseek", fd, -4, 2),
        m.call("lseek", fd, 0, 9),
        m.call("fallocate", fd, 0, -1, 5),
        m.call("fallocate", fd, 0, 0, 0),
    ]


@as_on_the_host
def test_seeking_to_data_and_past_the_end(m: Machine) -> Any:
    fd = make(m, b"f", b"abc")
    return [m.call("lseek", fd, offset, whence) for whence in (3, 4) for offset in (0, 2, 3, 4, -1)]


@as_on_the_host
def test_fallocate_extends_and_keeps(m: Machine) -> Any:
    fd = make(m, b"f", b"abc")
    first = m.call("fallocate", fd, 1, 0, 5000), m.call("lseek", fd, 0, 2)
    second = m.call("fallocate", fd, 0, 0, 5000), m.call("lseek", fd, 0, 2)
    odd = [m.call("fallocate", fd, mode, 0, 10) for mode in (2, 0x80, 0x12)]
    return first, second, odd


@as_on_the_host
def test_a_punched_hole_reads_as_zeros(m: Machine) -> Any:
    fd = make(m, b"f", b"x" * 20000)
    done = m.call("fallocate", fd, 3, 4096, 8192)
    m.call("pread64", fd, m.buffer, 20000, 0)
    return done, m.peek(m.buffer, 20000), m.call("lseek", fd, 0, 2)
