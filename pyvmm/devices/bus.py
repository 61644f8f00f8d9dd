"""A bus: which device answers at which address.

Port I/O and memory-mapped I/O are two buses of this one kind. As on hardware, nobody is at an address that no range
covers: reads float to all ones, writes are lost. Both are counted, and neither is an error, since operating systems
probe.
"""

from bisect import bisect_right
from collections.abc import Callable
from typing import Protocol

#: Sets the level of a device's interrupt line.
IrqLine = Callable[[bool], None]


class Device(Protocol):
    """What sits on a bus. ``offset`` counts bytes from the start of the device's own range, ``size`` is 1, 2, 4 or 8;
    the access lies inside the range. Values are little-endian integers of ``size`` bytes.

    A device answers every access, however odd, and raises nothing: the guest is hostile.
    """

    def read(self, offset: int, size: int) -> int:
        """The value that the guest reads."""

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest writes ``value``."""


class Bus:
    """Devices by address."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._starts: list[int] = []
        self._ranges: list[tuple[int, int, Device]] = []
        #: Accesses that nobody answered.
        self.unclaimed_reads = self.unclaimed_writes = 0

    def add(self, start: int, length: int, device: Device) -> None:
        """Let ``device`` answer in ``[start, start + length)``; ValueError if some of it is taken."""
        end = start + length
        if length <= 0 or start < 0:
            raise ValueError(f"{self.name}: a range of {length} bytes at {start:#x}")
        place = bisect_right(self._starts, start)
        for other_start, other_end, other in self._ranges[max(0, place - 1) : place + 1]:
            if start < other_end and other_start < end:
                raise ValueError(f"{self.name}: {start:#x} to {end:#x} is in the way of {other!r} at {other_start:#x}")
        self._starts.insert(place, start)
        self._ranges.insert(place, (start, end, device))

    def read(self, address: int, size: int) -> int:
        """What the guest reads: ``size`` bytes at ``address``."""
        place = bisect_right(self._starts, address) - 1
        if place >= 0:
            start, end, device = self._ranges[place]
            if address + size <= end:
                return device.read(address - start, size)
        if size > 1 and self._is_claimed(address, size):
            return sum(self.read(address + index, 1) << (8 * index) for index in range(size))
        self.unclaimed_reads += 1
        return (1 << (8 * size)) - 1

    def write(self, address: int, size: int, value: int) -> None:
        """The guest writes ``size`` bytes at ``address``."""
        place = bisect_right(self._starts, address) - 1
        if place >= 0:
            start, end, device = self._ranges[place]
            if address + size <= end:
                device.write(address - start, size, value)
                return
        if size > 1 and self._is_claimed(address, size):
            for index in range(size):
                self.write(address + index, 1, value >> (8 * index) & 0xFF)
            return
        self.unclaimed_writes += 1

    def _is_claimed(self, address: int, size: int) -> bool:
        """Whether some byte of an access that no range holds whole is somebody's; it is then made byte by byte."""
        place = bisect_right(self._starts, address + size - 1) - 1
        return place >= 0 and self._ranges[place][1] > address

    def __repr__(self) -> str:
        devices = ", ".join(f"{start:#x} {device!r}" for start, _, device in self._ranges)
        return f"<Bus {self.name}: {devices}>"
