"""A bus gives every access to the device whose range holds it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvmm.devices.bus import Bus


class Ram:
    """A device whose registers are bytes that keep what is written."""

    def __init__(self, length: int) -> None:
        self.data = bytearray(length)

    def read(self, offset: int, size: int) -> int:
        assert offset + size <= len(self.data)
        return int.from_bytes(self.data[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        assert offset + size <= len(self.data)
        self.data[offset : offset + size] = value.to_bytes(size, "little")


def test_an_access_reaches_the_device_with_its_own_offset() -> None:
    bus, device = Bus("test"), Ram(8)
    bus.add(0x3F8, 8, device)
    bus.write(0x3FB, 1, 0x80)
    assert device.data[3] == 0x80
    assert bus.read(0x3FB, 1) == 0x80


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_what_nobody_answers_reads_as_all_ones_and_is_counted(size: int) -> None:
    bus = Bus("test")
    bus.add(0x100, 4, Ram(4))
    assert bus.read(0x200, size) == (1 << 8 * size) - 1
    bus.write(0x200, size, 0)
    assert (bus.unclaimed_reads, bus.unclaimed_writes) == (1, 1)


def test_ranges_are_exact() -> None:
    bus = Bus("test")
    bus.add(0x100, 4, Ram(4))
    assert bus.read(0xFF, 1) == 0xFF
    assert bus.read(0x100, 1) == bus.read(0x103, 1) == 0
    assert bus.read(0x104, 1) == 0xFF


def test_an_access_across_the_end_of_a_range_is_made_byte_by_byte() -> None:
    bus, device = Bus("test"), Ram(4)
    bus.add(0x100, 4, device)
    bus.write(0x102, 4, 0x44332211)
    assert device.data == b"\0\0\x11\x22"
    assert bus.read(0x102, 4) == 0xFFFF2211
    assert bus.read(0xFE, 4) == 0x0000FFFF


@pytest.mark.parametrize(("start", "length"), [(0x100, 4), (0xFE, 3), (0x103, 1), (0xF0, 0x40), (0x101, 2)])
def test_two_devices_cannot_have_one_address(start: int, length: int) -> None:
    bus = Bus("test")
    bus.add(0x100, 4, Ram(4))
    with pytest.raises(ValueError, match="in the way"):
        bus.add(start, length, Ram(length))


@pytest.mark.parametrize(("start", "length"), [(0, 0), (-1, 4), (4, -1)])
def test_a_range_that_is_none_is_refused(start: int, length: int) -> None:
    with pytest.raises(ValueError, match="range"):
        Bus("test").add(start, length, Ram(1))


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 8)), max_size=8),
    st.integers(0, 72),
    st.sampled_from([1, 2, 4, 8]),
)
def test_every_byte_is_read_from_whoever_has_it(ranges: list[tuple[int, int]], address: int, size: int) -> None:
    bus, expected = Bus("test"), bytearray(b"\xff" * 96)
    for number, (start, length) in enumerate(ranges):
        device = Ram(length)
        device.data[:] = bytes((number * 16 + index) & 0xFF for index in range(length))
        try:
            bus.add(start, length, device)
        except ValueError:
            continue
        expected[start : start + length] = device.data
    assert bus.read(address, size) == int.from_bytes(expected[address : address + size], "little")
