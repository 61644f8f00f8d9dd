"""Names, directories and permissions; on the host and in a guest."""

import struct
from typing import Any

from tests.linux.vfs_scenarios import (
    AT_FDCWD,
    O_APPEND,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOFOLLOW,
    O_PATH,
    O_RDWR,
    O_TMPFILE,
    O_TRUNC,
    Machine,
    as_on_the_host,
    make,
    read,
    write,
)


@as_on_the_host
def test_a_directory_is_neither_read_nor_written(m: Machine) -> Any:
    m.call("mkdir", b"d", 0o755)
    fd = m.call("openat", AT_FDCWD, b"d", 0, 0)
    reads = [m.call(name, fd, m.buffer, 10, 0) for name in ("read", "write", "pread64", "pwrite64", "ftruncate")]
    opens = [
        m.call("openat", AT_FDCWD, b"d", flags, 0o644) for flags in (1, 2, O_CREAT, O_TRUNC, O_CREAT | O_DIRECTORY)
    ]
    return reads, opens, m.call("truncate", b"d", 0), m.call("fsync", fd), m.call("fallocate", fd, 0, 0, 1)


@as_on_the_host
def test_getdents_of_a_file_leaves_the_buffer_alone(m: Machine) -> Any:
    fd = make(m, b"f")
    m.place(b"")
    return m.call("getdents64", fd, m.buffer, 100), m.call("getdents64", fd, m.nowhere, 100)


@as_on_the_host
def test_getdents_needs_room_for_one_entry(m: Machine) -> Any:
    m.call("mkdir", b"d", 0o755)
    fd = m.call("openat", AT_FDCWD, b"d", 0, 0)
    return [m.call("getdents64", fd, m.buffer, size) for size in (0, 10, 23, 24)]


@as_on_the_host
def test_a_removed_directory_has_no_entries_and_takes_none(m: Machine) -> Any:
    m.call("mkdir", b"d", 0o755)
    fd = m.call("openat", AT_FDCWD, b"d", 0, 0)
    m.call("chdir", b"d")
    gone = m.call("rmdir", b"../d")
    return (
        gone,
        m.call("getdents64", fd, m.buffer, 1000),
        m.call("openat", fd, b"x", O_CREAT | 1, 0o644),
        m.call("mkdirat", fd, b"x", 0o755),
        m.call("getcwd", m.buffer, 100),
        m.call("openat", AT_FDCWD, b".", 0, 0) > 0,
        m.call("openat", AT_FDCWD, b"x", 0, 0),
    )


@as_on_the_host
def test_getcwd_wants_enough_room(m: Machine) -> Any:
    return m.call("getcwd", m.buffer, 1), m.call("getcwd", m.nowhere, 4096)


@as_on_the_host
def test_unlinkat_and_rmdir_tell_files_from_directories(m: Machine) -> Any:
    make(m, b"f")
    m.call("mkdir", b"d", 0o755)
    make(m, b"d/x")
    return [
        m.call("unlinkat", AT_FDCWD, b"d", 0),
        m.call("unlinkat", AT_FDCWD, b"f", 0x200),
        m.call("unlinkat", AT_FDCWD, b"d", 0x200),
        m.call("rmdir", b"d/."),
        m.call("rmdir", b"d/.."),
        m.call("unlink", b"d/."),
        m.call("unlink", b"f/"),
        m.call("unlink", b"d/"),
        m.call("rmdir", b"/"),
        m.call("unlink", b"/"),
        m.call("mkdir", b"/", 0o755),
        m.call("mkdir", b"d/.", 0o755),
    ]


@as_on_the_host
def test_a_directory_cannot_be_moved_into_itself(m: Machine) -> Any:
    m.call("mkdir", b"d", 0o755)
    m.call("mkdir", b"d/e", 0o755)
    return [
        m.call("rename", b"d", b"d/x"),
        m.call("rename", b"d", b"d/e/x"),
        m.call("rename", b"d/e", b"d"),
        m.call("rename", b"d", b"d"),
        m.call("rename", b".", b"x"),
        m.call("rename", b"d/..", b"x"),
        m.call("rename", b"d", b"."),
    ]


@as_on_the_host
def test_exchange_swaps_two_names(m: Machine) -> Any:
    make(m, b"f", b"file")
    m.call("mkdir", b"d", 0o755)
    m.call("mkdir", b"d/e", 0o755)
    done = m.call("renameat2", AT_FDCWD, b"f", AT_FDCWD, b"d/e", 2)
    return done, m.call("rmdir", b"f"), read(m, m.call("openat", AT_FDCWD, b"d/e", 0, 0))


@as_on_the_host
def test_sticky_and_unwritable_directories(m: Machine) -> Any:
    m.call("mkdir", b"d", 0o755)
    make(m, b"d/x", b"x")
    m.call("chmod", b"d", 0o555)
    closed = [
        m.call("unlink", b"d/x"),
        m.call("openat", AT_FDCWD, b"d/new", O_CREAT | 1, 0o644),
        m.call("openat", AT_FDCWD, b"d/x", 2, 0) > 0,
        m.call("rename", b"d/x", b"d/y"),
        m.call("mkdir", b"d/z", 0o755),
    ]
    m.call("chmod", b"d", 0o666)
    blind = [
        m.call("openat", AT_FDCWD, b"d/x", 0, 0),
        m.call("access", b"d/x", 0),
        m.call("openat", AT_FDCWD, b"d", 0, 0) > 0,
    ]
    m.call("chmod", b"d", 0o755)
    return closed, blind


@as_on_the_host
def test_nobody_may_touch_what_is_roots(m: Machine) -> Any:
    return (
        [m.call("openat", AT_FDCWD, b"/etc/passwd", flags, 0) for flags in (1, 2, O_TRUNC, O_APPEND | 1)],
        m.call("unlink", b"/etc/passwd"),
        m.call("chmod", b"/etc/passwd", 0o777),
        m.call("chown", b"/etc/passwd", 1000, -1),
        m.call("truncate", b"/etc/passwd", 0),
        m.call("link", b"/etc/passwd", b"mine"),
        m.call("access", b"/etc/passwd", 2),
        m.call("access", b"/etc/passwd", 1),
    )


@as_on_the_host
def test_a_file_that_may_not_be_written_is_not_cut_off(m: Machine) -> Any:
    make(m, b"f", b"keep", 0o444)
    refused = [
        m.call("openat", AT_FDCWD, b"f", flags, 0o644) for flags in (O_TRUNC, O_TRUNC | O_CREAT, O_TRUNC | O_RDWR)
    ]
    return refused, read(m, m.call("openat", AT_FDCWD, b"f", 0, 0))


@as_on_the_host
def test_exclusive_creation_does_not_follow_links(m: Machine) -> Any:
    m.call("symlink", b"nowhere", b"l")
    return [
        m.call("openat", AT_FDCWD, b"l", O_CREAT | O_EXCL | 1, 0o644),
        m.call("openat", AT_FDCWD, b"l", O_CREAT | O_NOFOLLOW | 1, 0o644),
        m.call("openat", AT_FDCWD, b"l", O_CREAT | 1, 0o600),
        m.call("access", b"nowhere", 0),
        m.call("mkdir", b"l", 0o755),
    ]


@as_on_the_host
def test_too_many_links_are_a_loop(m: Machine) -> Any:
    make(m, b"l0", b"end")
    for number in range(1, 43):
        m.call("symlink", b"l%d" % (number - 1), b"l%d" % number)
    m.call("symlink", b"self", b"self")
    return [m.call("openat", AT_FDCWD, b"l%d" % number, 0, 0) > 0 for number in (39, 40, 41)], [
        m.call("openat", AT_FDCWD, path, 0, 0) for path in (b"l42", b"self", b"self/x", b"l1/")
    ]


@as_on_the_host
def test_a_nameless_file_can_be_given_a_name(m: Machine) -> Any:
    fd = m.call("openat", AT_FDCWD, b".", O_TMPFILE | O_RDWR, 0o600)
    write(m, fd, b"late")
    linked = m.call("linkat", AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, b"named", 0x400)
    odd = [
        m.call("openat", AT_FDCWD, b".", flags, 0o600) for flags in (O_TMPFILE, 0o20000000 | 2, O_TMPFILE | 2 | O_CREAT)
    ]
    return (
        linked,
        read(m, m.call("openat", AT_FDCWD, b"named", 0, 0)),
        odd,
        m.call("openat", AT_FDCWD, b"named", O_TMPFILE | 2, 0),
    )


@as_on_the_host
def test_openat2_checks_its_arguments_and_confines(m: Machine) -> Any:
    m.call("mkdir", b"d", 0o755)
    make(m, b"d/f", b"in")
    make(m, b"f", b"out")
    m.call("symlink", b"/d/f", b"d/abs")
    m.call("symlink", b"../f", b"d/up")
    d = m.call("openat", AT_FDCWD, b"d", O_PATH, 0)

    def go(path: bytes, resolve: int = 0, flags: int = 0, mode: int = 0, size: int = 24) -> int:
        result = m.call("openat2", d, path, m.place(struct.pack("<QQQQ", flags, mode, resolve, 0)), size)
        return min(int(result), 0)

    return [
        go(b"f", 8),
        go(b"../f", 8),
        go(b"abs", 8),
        go(b"up", 8),
        go(b"/f", 8),
        go(b"abs", 16),
        go(b"up", 16),
        go(b"/f", 16),
        go(b"../../../f", 16),
        go(b"abs", 4),
        go(b"up", 4),
        go(b"f", 4),
        go(b"f", 0x100),
        go(b"f", 24),
        go(b"f", 0, 1 << 40),
        go(b"f", 0, 0, 0o644),
        go(b"f", size=8),
        go(b"f", size=32),
        go(b"f", size=8192),
        go(b"f", 0, O_CREAT, 0o70000),
    ]
