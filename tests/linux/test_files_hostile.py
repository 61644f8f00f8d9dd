"""Wild arguments to every system call of the file families: a number or an errno, and no memory by such numbers."""

import importlib
import struct
import time
import tracemalloc
from errno import ENOMEM

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyvmm.linux.abi.unistd import NUMBERS
from pyvmm.linux.table import TABLE
from tests.linux.vfs_guest import BASE, SIZE, Deadlock, Guest

FAMILIES = (
    "attributes", "channels", "contents", "directories", "files", "io", "mounts", "paths", "poll", "stat",
)  # fmt: skip
WORDS = (
    0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 100, 255, 1023, 1024, 1025, 4095, 4096, 65536, (1 << 31) - 1, 1 << 31,
    (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 100, (1 << 64) - 4096,
    0x7FFF_F000, 0x8000_0000_0000, 0xFFFF_8000_0000_0000, 0x7FFF_FFE0_0000, 0x7FFF_FFDF_FFFF, 0x100, 0x1000, 0x200,
    0o100, 0o2000000, 0o20200002, 0o10000000, 0x5401, 0x541B, 0x5421,
    BASE, BASE + SIZE - 1, BASE + SIZE - 8, BASE + SIZE, BASE + SIZE // 2,
)  # fmt: skip


def names() -> list[str]:
    found = []
    for family in FAMILIES:
        module = importlib.import_module(f"pyvmm.linux.syscalls.{family}")
        found += [call.name for call in TABLE.values() if call.function.__module__ == module.__name__]
    return sorted(found)


def prepared() -> Guest:
    """A guest with one descriptor of each kind, and with paths and numbers all over its buffer."""
    guest = Guest(stdin=b"input")
    guest.call("chdir", b"/home/user")
    guest.spill(b"f", b"content")
    guest.call("mkdir", b"d", 0o755)
    guest.call("symlink", b"f", b"l")
    for path, flags in (
        (b"f", 2),
        (b"d", 0),
        (b"/dev/zero", 2),
        (b"/dev/full", 2),
        (b"/proc/self/status", 0),
        (b"f", 0o10000000),
    ):
        assert guest.open(path, flags) > 2
    guest.call("pipe2", guest.buffer, 0o4000)
    guest.call("eventfd2", 0, 0o4000)
    guest.call("memfd_create", b"m", 2)
    guest.mem.write(guest.buffer, b"f\0d/x\0../../..\0" + bytes(range(256)) * 4)
    return guest


def survives(guest: Guest, name: str, words: list[int]) -> None:
    start = time.perf_counter()
    try:
        guest.call(name, *words)
    except Deadlock:
        pass
    assert time.perf_counter() - start < 2, f"{name} {words} took too long"


ARGUMENTS = st.lists(
    st.one_of(st.sampled_from(WORDS), st.integers(0, 20), st.integers(0, (1 << 64) - 1)), min_size=6, max_size=6
)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(names()), ARGUMENTS), min_size=1, max_size=20))
def test_wild_arguments_give_numbers(calls: list[tuple[str, list[int]]]) -> None:
    guest = prepared()
    for name, words in calls:
        survives(guest, name, words)
    guest.vfs.save()


@pytest.mark.parametrize("name", names())
def test_every_word_in_every_place(name: str) -> None:
    guest = prepared()
    tracemalloc.start()
    try:
        for place in range(len(TABLE[NUMBERS[name]].arguments)):
            for word in WORDS:
                for rest in (0, 3, BASE + SIZE // 2, (1 << 64) - 1):
                    words = [rest] * 6
                    words[place] = word
                    if (
                        name in ("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile")
                        and place == 0
                        and word in (1, 2)
                    ):
                        continue  # the output that is collected belongs to the host
                    survives(guest, name, words)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 << 20, f"{name} took {peak} bytes"


def test_wild_descriptors_are_bad_descriptors() -> None:
    guest = prepared()
    for name in (
        "read",
        "write",
        "lseek",
        "fstat",
        "close",
        "dup",
        "fcntl",
        "ioctl",
        "getdents64",
        "fsync",
        "flock",
        "fchdir",
    ):
        for fd in (99, -1, -100, 1 << 31, (1 << 32) - 1):
            operation = 2 if name == "flock" else 0
            assert guest.call(name, fd, operation, 0, 0) == -9, (name, fd)


def test_poll_waits_for_many_files_only_while_there_is_memory_for_it() -> None:
    guest = Guest()
    for _ in range(50):
        assert guest.call("pipe2", guest.buffer, 0) == 0
    entries = b"".join(struct.pack("<ihh", fd, 1, 0) for fd in range(3, 103, 2))
    guest.mem.write(guest.buffer, entries)
    assert guest.call("poll", guest.buffer, 50, 1) == 0
    quota = guest.vfs.store.quota
    quota.max_bytes = quota.bytes_used + 1000
    assert guest.call("poll", guest.buffer, 50, 1) == -ENOMEM
    assert guest.call("poll", guest.buffer, 20, 1) == 0
