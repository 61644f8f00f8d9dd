"""Sequences of system calls that Hypothesis makes up: the same results, errnos and bytes on the host and in a fork."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyvmm.linux.abi.unistd import NUMBERS

pytestmark = pytest.mark.kvm

_PROGRAM = (Path(__file__).parent / "sequences.py").read_text()
_SETTINGS = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))

Argument = st.SearchStrategy[Any]


def _call(name: str, *arguments: Argument | int) -> Argument:
    each = [argument if isinstance(argument, st.SearchStrategy) else st.just(argument) for argument in arguments]
    return st.tuples(st.just(NUMBERS[name]), st.tuples(*each).map(list)).map(list)


def _bytes(*choices: bytes) -> Argument:
    return st.sampled_from([["b", choice.decode("latin-1")] for choice in choices])


def _out(*sizes: int) -> Argument:
    return st.sampled_from([["o", size] for size in sizes])


def _of(*choices: int) -> Argument:
    return st.sampled_from(choices)


_FD = st.one_of(st.integers(3, 8), _of(-1, 99), st.integers(0, 5).map(lambda number: ["r", number]))
_PATH = _bytes(b"a", b"b", b"d", b"d/a", b"l", b"nowhere/a", b".", b"..", b"", b"a/", b"d/../a", b"x" * 256)
_SIZE = _of(0, 1, 2, 5, 100, 300)
_OFFSET = _of(0, 1, 3, 100, 4096, -1, 2**40, -(2**63))

# What depends on the host's file system (holes, directory offsets) or on being root (permission) is left out.
_FILES = st.one_of(
    _call("open", _PATH, _of(1, 2, 0o102, 0o301, 0o1002, 0o2001, 0o2000002), _of(0o600, 0o644)),
    _call("close", _FD),
    _call("write", _FD, _bytes(b"x" * 300, b"hello" * 60), _SIZE),
    _call("read", _FD, _out(8), _of(0, 1, 8)),
    _call("pwrite64", _FD, _bytes(b"y" * 300), _SIZE, _OFFSET),
    _call("pread64", _FD, _out(8), 1, _OFFSET),
    _call("lseek", _FD, _OFFSET, _of(0, 1, 2, 5)),
    _call("ftruncate", _FD, _of(0, 1, 10, 5000, -1)),
    _call("truncate", _PATH, _of(0, 3, -1)),
    _call("dup", _FD),
    _call("dup2", _FD, st.integers(3, 9)),
    _call("dup3", _FD, st.integers(3, 9), _of(0, 0o2000000, 1)),
    _call("fcntl", _FD, _of(0, 1, 2, 3, 4, 1030, 99), _of(0, 1, 5, 0o2000, 0o4000)),
    _call("mkdir", _PATH, 0o755),
    _call("rmdir", _PATH),
    _call("unlink", _PATH),
    _call("link", _PATH, _PATH),
    _call("symlink", _PATH, _PATH),
    _call("rename", _PATH, _PATH),
    _call("renameat2", -100, _PATH, -100, _PATH, _of(0, 1, 8)),
    _call("readlink", _PATH, _out(8), _of(0, 1, 8)),
    _call("access", _PATH, _of(0, 2, 4, 9)),
    _call("chdir", _PATH),
    _call("umask", _of(0o022, 0o077, 0)),
    _call("sendfile", _FD, _FD, 0, _SIZE),
)

_EVENT = st.builds(
    lambda events, data: ["b", (events.to_bytes(4, "little") + data.to_bytes(8, "little")).decode("latin-1")],
    _of(1, 4, 5, 1 | 1 << 31, 1 | 1 << 30, 0),
    st.integers(0, 5),
)
_POLLFD = st.builds(
    lambda fd, events: ["b", (fd.to_bytes(4, "little") + events.to_bytes(4, "little")).decode("latin-1")],
    st.integers(3, 9),
    _of(1, 4, 5, 0),
)
_CHANNELS = st.one_of(
    _call("pipe2", _out(8), _of(0o4000, 0o2004000, 1)),
    _call("eventfd2", st.integers(0, 3), _of(0o4000, 0o4001, 7)),
    _call("epoll_create1", _of(0, 0o2000000, 1)),
    _call("epoll_ctl", _FD, st.integers(0, 4), _FD, _EVENT),
    _call("epoll_wait", _FD, _out(36), _of(1, 3, 0, -1), 0),
    _call("poll", _POLLFD, 1, 0),
    _call("read", _FD, _out(8), _of(0, 1, 8)),
    _call("write", _FD, _bytes(b"\1\0\0\0\0\0\0\0", b"12345678", b"\xff" * 8), _of(0, 1, 8)),
    _call("close", _FD),
    _call("dup", _FD),
    _call("fcntl", _FD, _of(3, 4, 1031, 1032), _of(0, 0o4000, 4096, 1 << 20)),
    _call("ioctl", _FD, _of(0x541B, 0x5421), _out(4)),
)

_ADDRESS = st.integers(0, 12).map(lambda page: ["m", page * 4096])
_LENGTH = _of(0, 1, 4096, 8192, 12288)
#: More than there is. (For mprotect(2) that means all up to the first hole, and so what follows the arena, too.)
_ANY_LENGTH = st.one_of(_LENGTH, _of(-(2**63), 2**47))
_MEMORY = st.one_of(
    _call("mmap", _ADDRESS, _ANY_LENGTH, _of(0, 1, 3), _of(0x32, 0x31, 0x100032, 0x12), -1, _of(0, 1)),
    _call("munmap", _ADDRESS, _ANY_LENGTH),
    _call("mprotect", _ADDRESS, _LENGTH, _of(0, 1, 3, 7, 0x10)),
    _call("madvise", _ADDRESS, _LENGTH, _of(0, 4, 10, 18, 19, 99)),
    _call("msync", _ADDRESS, _LENGTH, _of(0, 1, 4, 5, 2, 8)),
    _call("mincore", _ADDRESS, _of(4096, 8192, 0), _bytes(b".....")),
    _call("mremap", _ADDRESS, _of(4096, 8192), _of(4096, 8192, 0), _of(0, 1, 3), _ADDRESS),
    _call("rt_sigpending", _ADDRESS, 8),
    _call("pipe2", _ADDRESS, 0),
)

_MASK = _bytes(*(mask.to_bytes(8, "little") for mask in (0, 1 << 9, 1 << 11, 1 << 39, 1 << 9 | 1 << 39, 2**64 - 1)))
_SIGNALS = st.one_of(
    _call("rt_sigprocmask", st.integers(0, 3), _MASK, _out(8), _of(8, 8, 8, 4)),
    _call("rt_sigpending", _out(8), 8),
    _call("kill", st.just(["p", 0]), _of(0, 10, 12, 40, 65, -1)),
    _call("tgkill", st.just(["p", 0]), st.just(["p", 0]), _of(0, 10, 12, 40, 65)),
    _call("rt_sigtimedwait", _MASK, 0, _bytes(bytes(16)), 8),
    _call("rt_sigaction", _of(0, 1, 9, 19, 34, 64, 65, -1), 0, 0, _of(8, 8, 4)),
    _call("sigaltstack", 0, _out(24)),
)


def _on_the_host(sequence: list[Any]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys._base_executable, "-c", _PROGRAM],
            cwd=folder,
            input=json.dumps(sequence),
            env={"LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert not done.returncode, done.stderr
    return done.stdout


def _compare(template: Any, sequence: list[Any]) -> None:
    inside = template.run(_PROGRAM, stdin=json.dumps(sequence).encode(), timeout=60)
    assert inside.status == "ok", inside
    ours, theirs = inside.stdout.decode().splitlines(), _on_the_host(sequence).splitlines()
    names = {number: name for name, number in NUMBERS.items()}
    for place, (here, there) in enumerate(zip(ours, theirs, strict=True)):
        name = names[sequence[place][0]]
        assert here == there, f"call {place} ({name}) of {json.dumps(sequence)}"


@_SETTINGS
@given(sequence=st.lists(_FILES, min_size=1, max_size=14))
def test_calls_on_files(template, sequence):
    _compare(template, sequence)


@_SETTINGS
@given(sequence=st.lists(_CHANNELS, min_size=1, max_size=14))
def test_calls_on_pipes_eventfds_and_epoll_sets(template, sequence):
    _compare(template, sequence)


@_SETTINGS
@given(sequence=st.lists(_MEMORY, min_size=1, max_size=10))
def test_calls_on_memory(template, sequence):
    _compare(template, sequence)


@_SETTINGS
@given(sequence=st.lists(_SIGNALS, min_size=1, max_size=14))
def test_calls_on_signals(template, sequence):
    _compare(template, sequence)
