"""inotify(7), on the host and in a guest."""

import os
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linux.vfs_guest import Guest, run_in_guest
from tests.linux.vfs_native import run_natively
from tests.linux.vfs_scenarios import (
    AT_FDCWD,
    MINUS_ONE,
    O_NONBLOCK,
    O_PATH,
    Machine,
    as_on_the_host,
    make,
    pipe,
    read,
    write,
)

ALL = 0xFFF
ONLYDIR, DONT_FOLLOW, MASK_CREATE, MASK_ADD, ONESHOT = 1 << 24, 1 << 25, 1 << 28, 1 << 29, 1 << 31


def events(m: Machine, fd: int) -> Any:
    """(watch, mask, whether there is a cookie, name) of each event that waits."""
    data = read(m, fd, 65536)
    if isinstance(data, int):
        return data
    found = []
    at = 0
    while at < len(data):
        number, mask, cookie, length = struct.unpack_from("<iIII", data, at)
        found.append((number, mask, bool(cookie), data[at + 16 : at + 16 + length].rstrip(b"\0"), length))
        at += 16 + length
    return found


def watching(m: Machine, *paths: bytes, mask: int = ALL) -> int:
    fd = m.call("inotify_init1", O_NONBLOCK)
    for path in paths:
        m.call("inotify_add_watch", fd, path, mask)
    return int(fd)


@as_on_the_host
def test_a_directory_tells_what_is_done_in_it(m: Machine) -> Any:
    fd = watching(m, b".")
    results = []
    f = make(m, b"file", b"text")
    results.append(events(m, fd))
    read(m, f)
    m.call("ftruncate", f, 2)
    results.append(events(m, fd))
    m.call("close", f)
    m.call("chmod", b"file", 0o600)
    results.append(events(m, fd))
    steps: list[tuple[Any, ...]] = [
        ("mkdir", b"folder", 0o755), ("symlink", b"file", b"link"), ("link", b"file", b"other"),
        ("rename", b"file", b"new"), ("rename", b"new", b"other"), ("rename", b"other", b"folder/in"),
        ("rename", b"folder/in", b"out"), ("unlink", b"out"), ("unlink", b"link"),
        ("mknod", b"fifo", 0o010644, 0), ("unlink", b"fifo"), ("rmdir", b"folder"), ("open", b"none", 0),
    ]  # fmt: skip
    for step in steps:
        results.append((m.call(*step), events(m, fd)))
    return results


@as_on_the_host
def test_a_file_tells_of_its_own_end(m: Machine) -> Any:
    f = make(m, b"file")
    m.call("mkdir", b"folder", 0o755)
    fd = watching(m, b"file", b"folder")
    results = [m.call("link", b"file", b"second"), events(m, fd), m.call("unlink", b"second"), events(m, fd)]
    results += [m.call("rename", b"file", b"renamed"), events(m, fd), m.call("unlink", b"renamed"), events(m, fd)]
    results += [m.call("close", f), events(m, fd), m.call("rmdir", b"folder"), events(m, fd)]
    return results, m.call("inotify_rm_watch", fd, 1)


@as_on_the_host
def test_both_a_file_and_its_directory_are_told(m: Machine) -> Any:
    m.call("close", make(m, b"file"))
    m.call("mkdir", b"folder", 0o755)
    fd = watching(m, b"file", b".", b"folder")
    f = m.call("openat", AT_FDCWD, b"file", 1, 0)
    write(m, f, b"x")
    m.call("close", f)
    folder = m.call("openat", AT_FDCWD, b"folder", 0, 0)
    m.call("close", folder)
    place = m.call("openat", AT_FDCWD, b"file", O_PATH, 0)
    m.call("close", place)
    first = events(m, fd)
    m.call("close", make(m, b"over"))
    m.call("rename", b"over", b"file")
    return first, events(m, fd)


@as_on_the_host
def test_what_is_wanted_can_be_changed(m: Machine) -> Any:
    fd = watching(m)
    numbers = [m.call("inotify_add_watch", fd, b".", mask) for mask in (0x100, 0x200 | MASK_ADD, 0x100 | MASK_CREATE)]
    m.call("close", make(m, b"a"))
    m.call("unlink", b"a")
    first = events(m, fd)
    again = m.call("inotify_add_watch", fd, b".", 0x200)
    m.call("close", make(m, b"b"))
    m.call("unlink", b"b")
    second = events(m, fd), m.call("inotify_rm_watch", fd, again), events(m, fd), m.call("inotify_rm_watch", fd, again)
    once = m.call("inotify_add_watch", fd, b".", 0x100 | ONESHOT)
    m.call("close", make(m, b"c"))
    m.call("close", make(m, b"d"))
    return numbers, first, second, once, events(m, fd), m.call("inotify_rm_watch", fd, once)


@as_on_the_host
def test_events_that_say_the_same_are_told_once(m: Machine) -> Any:
    f = make(m, b"file")
    fd = watching(m, b"file")
    for _ in range(3):
        write(m, f, b"x")
    waiting = m.call("ioctl", fd, 0x541B, m.buffer), m.peek(m.buffer, 4)
    at = m.place(struct.pack("<ihh", fd, 5, 0))
    polled = m.call("poll", at, 1, 0), m.peek(at, 8)
    return (
        waiting,
        polled,
        read(m, fd, 15),
        events(m, fd),
        m.call("poll", at, 1, 0),
        write(m, fd, b"x"),
        m.call("lseek", fd, 1, 0),
    )


@as_on_the_host
def test_what_watching_refuses(m: Machine) -> Any:
    m.call("close", make(m, b"file"))
    m.call("close", make(m, b"secret", mode=0))
    m.call("symlink", b"none", b"broken")
    fd, (r, _) = watching(m), pipe(m)
    refused = [m.call("inotify_init1", flags) for flags in (1, 2, MINUS_ONE)]
    pairs = [
        (b".", 0),
        (b"none", ALL),
        (b"file", ALL | ONLYDIR),
        (b"secret", ALL),
        (b"broken", ALL),
        (b"broken", ALL | DONT_FOLLOW),
    ]
    pairs += [
        (b"", ALL),
        (b"file/", ALL),
        (b".", MASK_ADD),
        (b".", ALL | MASK_ADD | MASK_CREATE),
        (b"file", ALL | MASK_CREATE),
    ]
    refused += [m.call("inotify_add_watch", fd, path, mask) for path, mask in pairs]
    refused += [m.call("inotify_add_watch", other, b".", mask) for other in (r, 99) for mask in (ALL, 0)]
    refused += [m.call("inotify_add_watch", fd, m.nowhere, ALL)]
    refused += [m.call("inotify_rm_watch", other, 1) for other in (r, 99)] + [
        m.call("inotify_rm_watch", fd, n) for n in (0, 77, MINUS_ONE)
    ]
    return refused


def test_watches_and_events_are_bounded_and_given_back() -> None:
    guest = Guest()
    guest.call("chdir", b"/tmp")
    f, g = make(guest, b"f"), make(guest, b"g")
    quota = guest.vfs.store.quota
    used = quota.bytes_used
    fd = watching(guest, b"f", b"g")
    assert quota.bytes_used > used
    for _ in range(20_000):
        guest.call("ftruncate", f, 0)
        guest.call("ftruncate", g, 0)
    found = []
    while isinstance(some := events(guest, fd), list):
        found += some
    assert len(found) == 16384 + 1
    assert found[-1][:2] == (-1, 0x4000)
    guest.call("ftruncate", f, 0)
    guest.call("close", fd)
    assert quota.bytes_used == used
    assert guest.vfs.store.watched == 0


_names = st.sampled_from((b"a", b"b", b"d", b"d/a", b"d/e"))
_operation = st.one_of(
    st.tuples(st.just("mkdir"), _names, st.just(0o755)),
    st.tuples(st.just("rmdir"), _names),
    st.tuples(st.just("unlink"), _names),
    st.tuples(st.just("rename"), _names, _names),
    st.tuples(st.just("link"), _names, _names),
    st.tuples(st.just("symlink"), st.just(b"a"), _names),
    st.tuples(st.just("chmod"), _names, st.just(0o700)),
    st.tuples(st.just("truncate"), _names, st.just(3)),
    st.tuples(st.just("touch"), _names, st.sampled_from((0o102, 0o1102, 0, 1, 0o302))),
    st.tuples(st.just("watch"), _names, st.sampled_from((ALL, 0x300, ALL | ONESHOT))),
)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes user 1000, which only root can")
@settings(max_examples=50)
@given(st.lists(_operation, min_size=1, max_size=25))
def test_any_sequence_of_changes_is_told_as_on_the_host(operations: list[Any]) -> None:
    def program(m: Machine) -> Any:
        m.call("mkdir", b"d", 0o755)
        m.call("close", make(m, b"a"))
        fd = watching(m, b".", b"d", b"a")
        results: list[Any] = []
        for name, *rest in operations:
            if name == "touch":
                opened = m.call("openat", AT_FDCWD, rest[0], rest[1], 0o644)
                results.append(opened)
                if opened >= 0:
                    results += [write(m, opened, b"xyz"), m.call("read", opened, m.buffer, 3), m.call("close", opened)]
            elif name == "watch":
                results.append(m.call("inotify_add_watch", fd, *rest))
            else:
                results.append(m.call(name, *rest))
            results.append(events(m, fd))
        return results

    assert run_in_guest(program) == run_natively(program)
