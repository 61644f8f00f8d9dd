"""Copying between files, times, modes, devices, links of proc, limits; on the host and in a guest."""

import struct
from typing import Any

from pyvmm.linux.abi.stat import STATX
from tests.linux.vfs_scenarios import AT_FDCWD, O_CREAT, O_RDWR, Machine, as_on_the_host, make, pipe, read, write


@as_on_the_host
def test_sendfile_copies_and_moves(m: Machine) -> Any:
    source, target = make(m, b"f", b"0123456789"), make(m, b"g")
    offset = m.place(struct.pack("<q", 4))
    first = m.call("sendfile", target, source, 0, 3), m.call("lseek", source, 0, 1)
    second = m.call("sendfile", target, source, offset, 100), m.peek(offset, 8), m.call("lseek", source, 0, 1)
    r, w = pipe(m)
    third = m.call("sendfile", w, source, 0, 5), read(m, r)
    errors = (
        m.call("sendfile", target, r, 0, 1),
        m.call("sendfile", target, r, offset, 1),
        m.call("sendfile", 99, source, 0, 1),
    )
    m.call("lseek", target, 0, 0)
    return first, second, third, errors, read(m, target), m.call("sendfile", target, source, m.nowhere, 1)


@as_on_the_host
def test_copy_file_range_copies(m: Machine) -> Any:
    source, target = make(m, b"f", b"0123456789"), make(m, b"g", b"abc")
    at = m.place(struct.pack("<q", 2))
    first = m.call("copy_file_range", source, at, target, 0, 4, 0), m.peek(at, 8)
    r, _ = pipe(m)
    errors = [
        m.call("copy_file_range", source, 0, source, 0, 4, 0),
        m.call("copy_file_range", r, 0, target, 0, 4, 0),
        m.call("copy_file_range", source, 0, target, 0, 4, 1),
        m.call("copy_file_range", 99, 0, target, 0, 4, 0),
    ]
    m.call("lseek", target, 0, 0)
    return first, errors, read(m, target)


@as_on_the_host
def test_times_are_set_and_shown_to_the_nanosecond(m: Machine) -> Any:
    fd = make(m, b"f")
    m.call("utimensat", fd, 0, m.place(struct.pack("<4q", 11, 22, 33, 44)), 0)
    m.call("statx", AT_FDCWD, b"f", 0, 0x7FF, m.buffer)
    fields = STATX.unpack(m.peek(m.buffer, STATX.size))
    odd = [
        m.call("utimensat", AT_FDCWD, 0, 0, 0),
        m.call("utimensat", fd, 0, 0, 0x100),
        m.call("utimensat", 99, 0, 0, 0),
        m.call("utimes", b"f", m.place(struct.pack("<4q", 1, 1_000_000, 0, 0))),
        m.call("utimes", b"f", m.nowhere),
        m.call("utime", b"f", m.place(struct.pack("<2q", 5, 6))),
        m.call("utimensat", AT_FDCWD, b"missing", 0, 0),
    ]
    m.call("statx", AT_FDCWD, b"f", 0, 0x7FF, m.buffer)
    return fields[11:13], fields[17:19], odd, STATX.unpack(m.peek(m.buffer, STATX.size))[17:19]


@as_on_the_host
def test_statx_and_fstatat_check_their_flags(m: Machine) -> Any:
    make(m, b"f")
    return [
        m.call("statx", AT_FDCWD, b"f", 0x6000, 0, m.buffer),
        m.call("statx", AT_FDCWD, b"f", 0, 1 << 31, m.buffer),
        m.call("statx", AT_FDCWD, b"f", 1, 0, m.buffer),
        m.call("statx", AT_FDCWD, b"", 0, 0, m.buffer),
        m.call("statx", AT_FDCWD, b"", 0x1000, 0, m.buffer),
        m.call("newfstatat", AT_FDCWD, b"f", m.buffer, 1),
        m.call("newfstatat", AT_FDCWD, b"", m.buffer, 0),
        m.call("newfstatat", 0, b"", m.buffer, 0x1000),
        m.call("newfstatat", AT_FDCWD, b"f", m.nowhere, 0),
        m.call("newfstatat", 99, b"f", m.buffer, 0),
        m.call("newfstatat", 99, b"/etc", m.buffer, 0),
        m.call("newfstatat", AT_FDCWD, m.nowhere, m.buffer, 0),
    ]


@as_on_the_host
def test_writing_takes_the_set_user_id_bit_away(m: Machine) -> Any:
    fd = make(m, b"f", b"x", 0o755)
    m.call("fchmod", fd, 0o6755)
    write(m, fd, b"y")
    m.call("fstat", fd, m.buffer)
    return struct.unpack("<I", m.peek(m.buffer + 24, 4))


@as_on_the_host
def test_chown_takes_the_set_user_id_bit_away_and_gives_to_nobody_else(m: Machine) -> Any:
    make(m, b"f", b"x", 0o755)
    m.call("chmod", b"f", 0o6755)
    results = [m.call("chown", b"f", uid, gid) for uid, gid in ((0, -1), (-1, 0), (1000, 1000), (-1, -1))]
    m.call("stat", b"f", m.buffer)
    return results, struct.unpack("<I", m.peek(m.buffer + 24, 4))


@as_on_the_host
def test_memory_devices(m: Machine) -> Any:
    null, zero, full = (
        m.call("openat", AT_FDCWD, path, O_RDWR, 0) for path in (b"/dev/null", b"/dev/zero", b"/dev/full")
    )
    return (
        read(m, null),
        write(m, null, b"abc"),
        read(m, zero, 10),
        write(m, zero, b"abc"),
        read(m, full, 5),
        write(m, full, b"abc"),
        m.call("lseek", null, 5, 0),
        m.call("lseek", zero, 5, 0),
        m.call("ioctl", null, 0x5401, m.buffer),
        m.call("ftruncate", null, 0),
        m.call("pread64", zero, m.buffer, 3, 9),
        m.call("read", zero, m.nowhere - 3, 10),
        m.call("read", zero, m.nowhere, 10),
        m.call("getdents64", null, m.buffer, 10),
        m.call("openat", AT_FDCWD, b"/dev/null/x", 0, 0),
    )


@as_on_the_host
def test_random_devices_fill_the_buffer(m: Machine) -> Any:
    fd = m.call("openat", AT_FDCWD, b"/dev/urandom", O_RDWR, 0)
    data = read(m, fd, 4000)
    return (
        len(data),
        len(set(data)) > 100,
        data != read(m, fd, 4000),
        m.call("read", fd, m.nowhere - 3, 10),
        write(m, fd, b"abc"),
    )


@as_on_the_host
def test_a_new_file_has_no_extended_attributes(m: Machine) -> Any:
    fd = make(m, b"f")
    return (
        m.call("getxattr", b"f", b"user.none", m.buffer, 10),
        m.call("listxattr", b"f", m.buffer, 10),
        m.call("flistxattr", fd, m.buffer, 0),
        m.call("getxattr", b"missing", b"user.none", m.buffer, 10),
    )


@as_on_the_host
def test_links_of_proc_self(m: Machine) -> Any:
    make(m, b"f", b"abc")
    fd = m.call("openat", AT_FDCWD, b"f", 0, 0)
    m.call("lseek", fd, 2, 0)
    again = m.call("openat", AT_FDCWD, b"/proc/self/fd/%d" % fd, 0, 0)
    found = [read(m, again), read(m, fd)]
    m.call("unlink", b"f")
    count = m.call("readlink", b"/proc/self/fd/%d" % fd, m.buffer, 1000)
    found.append(m.peek(m.buffer, count)[-12:])
    found.append(read(m, m.call("openat", AT_FDCWD, b"/proc/self/fd/%d" % fd, 0, 0)))
    found.append(m.call("linkat", AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, b"again", 0x400))
    found.append(m.call("openat", AT_FDCWD, b"/proc/self/fd/77", 0, 0))
    return found


@as_on_the_host
def test_a_renamed_file_is_found_by_its_descriptor(m: Machine) -> Any:
    fd = make(m, b"f")
    m.call("mkdir", b"d", 0o755)
    m.call("rename", b"f", b"d/g")
    count = m.call("readlink", b"/proc/self/fd/%d" % fd, m.buffer, 1000)
    return m.peek(m.buffer, count)[-4:]


@as_on_the_host
def test_readlink_cuts_and_refuses(m: Machine) -> Any:
    m.call("symlink", b"abcdef", b"l")
    make(m, b"f")
    cut = m.call("readlink", b"l", m.buffer, 3), m.peek(m.buffer, 3)
    return (
        cut,
        [m.call("readlink", b"l", m.buffer, size) for size in (0, -1)],
        m.call("readlink", b"f", m.buffer, 9),
        m.call("readlink", b"l", m.nowhere, 9),
        m.call("symlink", b"", b"x"),
        m.call("symlink", b"x", b""),
    )


@as_on_the_host
def test_the_limit_of_descriptors_holds(m: Machine) -> Any:
    make(m, b"f")
    m.call("prlimit64", 0, 7, m.place(struct.pack("<QQ", 20, 20)), 0)
    opened = [m.call("openat", AT_FDCWD, b"f", 0, 0) for _ in range(30)]
    return (
        opened,
        m.call("openat", AT_FDCWD, b"new", O_CREAT | 1, 0o644),
        m.call("access", b"new", 0),
        m.call("dup", 0),
        m.call("pipe2", m.buffer, 0),
        m.call("fcntl", 0, 0, 20),
        m.call("dup2", 0, 20),
        m.call("poll", m.nowhere, 21, 0),
    )


@as_on_the_host
def test_the_limit_of_file_sizes_holds(m: Machine) -> Any:
    fd = make(m, b"f", b"12345")
    m.call("prlimit64", 0, 1, m.place(struct.pack("<QQ", 10, 10)), 0)
    # SIGXFSZ is ignored by the host's child as SIGPIPE is: Python does that at its start.
    return (
        [m.call("pwrite64", fd, m.place(b"abcdef"), 6, at) for at in (3, 7)],
        m.call("lseek", fd, 0, 2),
        m.call("ftruncate", fd, 10),
    )
