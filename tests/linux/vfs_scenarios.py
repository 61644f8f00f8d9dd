"""Tests that are run twice, on the host and in a guest, and what they are written with."""

import os
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.linux.vfs_guest import run_in_guest
from tests.linux.vfs_native import run_natively

AT_FDCWD = -100
O_WRONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_NONBLOCK = 1, 2, 0o100, 0o200, 0o1000, 0o2000, 0o4000
O_DIRECTORY, O_NOFOLLOW, O_CLOEXEC, O_PATH, O_TMPFILE = 0o200000, 0o400000, 0o2000000, 0o10000000, 0o20200000
MINUS_ONE = (1 << 64) - 1

#: A Guest or a Native: ``call``, ``place``, ``peek``, ``buffer``, ``nowhere``.
Machine = Any


def as_on_the_host(program: Callable[[Machine], Any]) -> Callable[[], None]:
    """Make a test of ``program``: what it gives in a guest is what it gives on the host."""

    @pytest.mark.skipif(os.geteuid() != 0, reason="becomes user 1000, which only root can")
    def test() -> None:
        assert run_in_guest(program) == run_natively(program)

    return test


def make(m: Machine, path: bytes, data: bytes = b"", mode: int = 0o644) -> int:
    """A new file with ``data``, open for reading and writing, at its start."""
    fd = m.call("openat", AT_FDCWD, path, O_RDWR | O_CREAT | O_TRUNC, mode)
    write(m, fd, data)
    m.call("lseek", fd, 0, 0)
    return int(fd)


def write(m: Machine, fd: int, data: bytes) -> int:
    return int(m.call("write", fd, m.place(data), len(data)))


def read(m: Machine, fd: int, count: int = 4096) -> Any:
    result = m.call("read", fd, m.buffer, count)
    return result if result < 0 else m.peek(m.buffer, result)


def iovec(m: Machine, *pieces: tuple[int, int]) -> int:
    return int(m.place(b"".join(struct.pack("<QQ", base & MINUS_ONE, length) for base, length in pieces)))


def pipe(m: Machine, flags: int = 0) -> tuple[int, int]:
    assert m.call("pipe2", m.buffer, flags) == 0
    return struct.unpack("<ii", m.peek(m.buffer, 8))  # type: ignore[return-value]
