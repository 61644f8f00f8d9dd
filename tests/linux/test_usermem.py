"""Copying from and to a program's memory: what it may touch, EFAULT for the rest, and no allocation by its numbers."""

import tracemalloc
from collections.abc import Iterator
from errno import EFAULT, ENAMETOOLONG

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyvmm.linux import layout
from pyvmm.linux.abi.mman import PROT_NONE, PROT_READ, PROT_WRITE
from pyvmm.linux.errors import GuestError
from pyvmm.linux.layout import TASK_SIZE
from pyvmm.linux.stub import map_system_pages
from tests.linux.space import FIXED, PAGE, Space

_RW = PROT_READ | PROT_WRITE
_BASE = 0x10_0000_0000
#: Four pages to write, then one to read only, one that cannot be touched, and a hole.
_READ_ONLY, _NONE, _HOLE = _BASE + 4 * PAGE, _BASE + 5 * PAGE, _BASE + 6 * PAGE


@pytest.fixture(scope="module")
def space() -> Iterator[Space]:
    made = Space()
    map_system_pages(made.mm.table)
    made.mm.map(_BASE, 4 * PAGE, _RW, FIXED)
    made.mm.map(_READ_ONLY, PAGE, PROT_READ, FIXED)
    made.mm.map(_NONE, PAGE, PROT_NONE, FIXED)
    yield made
    made.close()


_WILD = [
    0, 1, PAGE - 1, _NONE, _NONE + 7, _HOLE, _HOLE + 123, layout.GDT_ADDRESS, layout.IDT_ADDRESS,
    layout.HANDLERS_ADDRESS, layout.STUB_ADDRESS, layout.RETURN_FRAME_ADDRESS, TASK_SIZE, (1 << 47) - 1, 1 << 47,
    0xFFFF_8000_0000_0000, 2**64 - 1,
]  # fmt: skip


@pytest.mark.parametrize("address", _WILD, ids=hex)
def test_what_a_program_may_not_read_gives_efault(space: Space, address: int) -> None:
    for attempt in (
        lambda: space.user.read(address, 1),
        lambda: space.user.read(address, 3 * PAGE),
        lambda: space.user.read_cstring(address, 100),
        lambda: space.user.read_u64(address),
        lambda: space.user.write(address, b"x"),
        lambda: space.user.write(address, bytes(3 * PAGE)),
        lambda: space.user.write_u32(address, 1),
    ):
        with pytest.raises(GuestError) as caught:
            attempt()
        assert caught.value.errno == EFAULT
    assert space.user.readable(address, 100) == space.user.writable(address, 100) == 0


def test_read_only_memory_is_read_and_not_written(space: Space) -> None:
    assert space.user.read(_READ_ONLY, 10) == bytes(10)
    with pytest.raises(GuestError) as caught:
        space.user.write(_READ_ONLY - 2, b"abcd")
    assert caught.value.errno == EFAULT
    assert (space.user.readable(_BASE, 1 << 20), space.user.writable(_BASE, 1 << 20)) == (5 * PAGE, 4 * PAGE)


@pytest.mark.parametrize("count", [2**31 - 1, 2**31, 2**32, 2**47, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_wild_length_costs_no_memory(space: Space, count: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(GuestError):
            space.user.read(_BASE, count)
        assert space.user.readable(_BASE, count) == 5 * PAGE
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_nothing_is_read_or_written_anywhere(space: Space) -> None:
    for address in _WILD:
        assert space.user.read(address, 0) == b""
        space.user.write(address, b"")


def test_a_string_ends_at_its_nul_and_not_at_a_page(space: Space) -> None:
    space.user.write(_BASE, b"a" * (2 * PAGE + 5) + b"\0")
    assert space.user.read_cstring(_BASE, 4 * PAGE) == b"a" * (2 * PAGE + 5)
    assert space.user.read_cstring(_BASE + 2 * PAGE + 5, 4) == b""


def test_a_string_without_an_end_is_too_long_and_one_that_leaves_memory_a_fault(space: Space) -> None:
    space.user.write(_BASE, b"a" * 4 * PAGE)
    with pytest.raises(GuestError) as caught:
        space.user.read_cstring(_BASE, 4096)
    assert caught.value.errno == ENAMETOOLONG
    space.mm.map(_BASE + (1 << 30), PAGE, _RW, FIXED)
    space.user.write(_BASE + (1 << 30), b"a" * PAGE)
    with pytest.raises(GuestError) as caught:
        space.user.read_cstring(_BASE + (1 << 30), 1 << 20)
    assert caught.value.errno == EFAULT


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(0, 4 * PAGE), data=st.binary(max_size=300), scale=st.sampled_from([1, 40]))
def test_what_was_written_is_read(space: Space, offset: int, data: bytes, scale: int) -> None:
    data *= scale
    fits = offset + len(data) <= 4 * PAGE
    try:
        space.user.write(_BASE + offset, data)
        assert fits
        assert space.user.read(_BASE + offset, len(data)) == data
    except GuestError as error:
        assert error.errno == EFAULT and not fits


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(address=st.integers(0, 2**64 - 1) | st.sampled_from(_WILD), count=st.integers(0, 2**64 - 1))
def test_any_address_and_length_give_bytes_or_efault(space: Space, address: int, count: int) -> None:
    prefix = space.user.readable(address, count)
    try:
        assert len(space.user.read(address, count)) == count == prefix
    except GuestError as error:
        assert error.errno == EFAULT and prefix < count
