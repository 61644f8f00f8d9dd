"""The same sequences of system calls on the host and in a guest: results, errnos and bytes are equal."""

import os
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyvmm.linux.abi.stat import STAT
from tests.linux.vfs_guest import run_in_guest
from tests.linux.vfs_native import run_natively

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes user 1000, which only root can")

AT_FDCWD = -100
NAMES = (b"a", b"b", b"d", b"d/a", b"d/b", b"d/e", b"s", b"s/a", b"d/e/f")
ODD = (
    b"",
    b"a/",
    b"d/",
    b"./a",
    b"d/.",
    b"d/..",
    b"d/../a",
    b"s/",
    b"d//b",
    b"a/b",
    b"x" * 256,
    b"d/" + b"y" * 255,
    b".",
    b"/",
)
FLAGS = (0, 1, 2, 3)
EXTRA = (0o100, 0o200, 0o1000, 0o2000, 0o200000, 0o400000, 0o10000000, 0o20200000)


def look(machine: Any, result: int) -> Any:
    """A stat buffer, without what may differ between file systems."""
    if result:
        return result
    fields = STAT.unpack(machine.peek(machine.buffer, STAT.size))
    mode, size = fields[3], fields[7]
    kind = mode & 0o170000
    return mode, fields[2] if kind != 0o040000 else "dir", fields[4:6], size if kind == 0o100000 else kind


def listing(machine: Any, fd: int) -> Any:
    names = []
    for _ in range(100):
        count = machine.call("getdents64", fd, machine.buffer, 4096)
        if count <= 0:
            return sorted(names) if count == 0 else count
        data, at = machine.peek(machine.buffer, count), 0
        while at < count:
            length, kind = struct.unpack_from("<HB", data, at + 16)
            names.append((data[at + 19 : at + length].split(b"\0")[0], kind))
            at += length
    raise AssertionError("a directory without end")


def perform(machine: Any, step: tuple[Any, ...]) -> Any:
    name, *arguments = step
    if name in ("stat", "lstat"):
        return look(machine, machine.call(name, arguments[0], machine.buffer))
    if name == "fstat":
        return look(machine, machine.call(name, arguments[0], machine.buffer))
    if name in ("read", "pread64"):
        fd, count, *rest = arguments
        result = machine.call(name, fd, machine.buffer, count, *rest)
        return result if result < 0 else machine.peek(machine.buffer, result)
    if name in ("write", "pwrite64"):
        fd, data, *rest = arguments
        return machine.call(name, fd, machine.place(data), len(data), *rest)
    if name == "readlink":
        result = machine.call(name, arguments[0], machine.buffer, 100)
        return result if result < 0 else machine.peek(machine.buffer, result)
    if name == "utimensat":
        times = struct.pack("<4q", *arguments[2])
        return machine.call(name, AT_FDCWD, arguments[0], machine.place(times), arguments[1])
    if name == "getdents64":
        return listing(machine, arguments[0])
    return machine.call(name, *arguments)


def perform_all(steps: list[tuple[Any, ...]]) -> Any:
    return lambda machine: [perform(machine, step) for step in steps]


def assert_same(steps: list[tuple[Any, ...]]) -> None:
    expected = run_natively(perform_all(steps))
    got = run_in_guest(perform_all(steps))
    for number, step in enumerate(steps):
        assert got[number] == expected[number], (
            f"step {number} {step}: guest {got[number]!r}, host {expected[number]!r}; so far "
            f"{list(zip(steps[:number], expected[:number], strict=True))}"
        )


PATHS = st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(NAMES + ODD))
FDS = st.integers(2, 8).map(lambda fd: 99 if fd == 2 else fd)
MODES = st.sampled_from((0o644, 0o600, 0o755, 0o700, 0o444, 0o000, 0o200, 0o4755, 0o2755, 0o1777))
OFFSETS = st.one_of(st.integers(-3, 40), st.sampled_from((4096, 65535, 65536, 70000, 1 << 20, -(1 << 63))))
TIMES = ((1, 2, 3, 4), (0, -1, 0, 0), (0, 10**9, 0, 0), (0, (1 << 30) - 1, 5, (1 << 30) - 2))
DATA = st.one_of(st.binary(max_size=12), st.integers(0, 5).map(lambda n: b"z" * (n * 20000)))


@st.composite
def open_steps(draw: st.DrawFn) -> tuple[Any, ...]:
    flags = draw(st.sampled_from(FLAGS))
    for extra in draw(st.lists(st.sampled_from(EXTRA), max_size=3)):
        flags |= extra
    return "openat", AT_FDCWD, draw(PATHS), flags | 0o100 * draw(st.booleans()), draw(MODES)


STEPS = st.one_of(
    open_steps(),
    open_steps(),
    open_steps(),
    st.tuples(st.just("openat"), FDS, PATHS, st.sampled_from((0, 0o102)), MODES),
    st.tuples(st.just("close"), FDS),
    st.tuples(st.just("read"), FDS, st.integers(0, 70000)),
    st.tuples(st.just("write"), FDS, DATA),
    st.tuples(st.just("pread64"), FDS, st.integers(0, 100), OFFSETS),
    st.tuples(st.just("pwrite64"), FDS, DATA, OFFSETS),
    st.tuples(st.just("lseek"), FDS, OFFSETS, st.sampled_from((0, 1, 2, 5))),
    st.tuples(st.just("ftruncate"), FDS, OFFSETS),
    st.tuples(st.just("truncate"), PATHS, OFFSETS),
    st.tuples(st.just("stat"), PATHS),
    st.tuples(st.just("lstat"), PATHS),
    st.tuples(st.just("fstat"), FDS),
    st.tuples(st.just("mkdir"), PATHS, MODES),
    st.tuples(st.just("mkdir"), st.sampled_from((b"d", b"d/e", b"s")), st.sampled_from((0o755, 0o700, 0o777))),
    st.tuples(st.just("rmdir"), PATHS),
    st.tuples(st.just("unlink"), PATHS),
    st.tuples(st.just("unlinkat"), FDS, PATHS, st.sampled_from((0, 0x200, 1))),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("renameat2"), st.just(AT_FDCWD), PATHS, st.just(AT_FDCWD), PATHS, st.integers(0, 3)),
    st.tuples(st.just("link"), PATHS, PATHS),
    st.tuples(st.just("symlink"), PATHS, PATHS),
    st.tuples(st.just("readlink"), PATHS),
    st.tuples(st.just("access"), PATHS, st.integers(0, 8)),
    st.tuples(st.just("chmod"), PATHS, MODES),
    st.tuples(st.just("fchmod"), FDS, MODES),
    st.tuples(st.just("chown"), PATHS, st.sampled_from((-1, 0, 1000)), st.sampled_from((-1, 0, 1000))),
    st.tuples(st.just("mknod"), PATHS, st.sampled_from((0o644, 0o100600, 0o040755, 0o020644, 0o170000)), st.just(0)),
    st.tuples(st.just("dup"), FDS),
    st.tuples(st.just("dup2"), FDS, FDS),
    st.tuples(st.just("dup3"), FDS, FDS, st.sampled_from((0, 0o2000000, 1))),
    st.tuples(st.just("fcntl"), FDS, st.sampled_from((1, 3, 0, 1030, 77)), st.integers(0, 5)),
    st.tuples(st.just("fcntl"), FDS, st.just(4), st.sampled_from((0, 0o2000, 0o4000, 0o6001))),
    st.tuples(st.just("fcntl"), FDS, st.just(2), st.integers(0, 3)),
    st.tuples(st.just("ioctl"), FDS, st.sampled_from((0x5401, 0x5450, 0x5451)), st.just(0)),
    st.tuples(st.just("chdir"), st.sampled_from((b"d", b"d/e", b"a", b"s", b"."))),
    st.tuples(st.just("getdents64"), FDS),
    st.tuples(st.just("umask"), st.sampled_from((0o022, 0o077, 0))),
    st.tuples(st.just("fsync"), FDS),
    st.tuples(st.just("utimensat"), PATHS, st.sampled_from((0, 0x100, 1)), st.sampled_from(TIMES)),
)  # fmt: skip


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=3, max_size=30))
def test_any_sequence_gives_what_the_host_gives(steps: list[tuple[Any, ...]]) -> None:
    assert_same(steps)
