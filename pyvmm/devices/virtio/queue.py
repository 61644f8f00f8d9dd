"""Split virtqueues (virtio 1.2 §2.7), the device's side, with indirect descriptors and event indices.

Devices here use buffers in the order in which they became available, so one index says where both rings are. A chain
that a device is not done with stays at that place: nothing about it is kept but what the device itself remembers.

Not here: packed virtqueues, VIRTIO_F_IN_ORDER, VIRTIO_F_RING_RESET.

A processor of the guest may write to the rings while they are read. So every field is read once, then checked, then
used; and no slice of memory is made that was not checked to be inside it.
"""

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import TypedDict

from pyvmm.devices.virtio.abi.virtio_ring import (
    VRING_AVAIL_ALIGN_SIZE,
    VRING_AVAIL_F_NO_INTERRUPT,
    VRING_DESC,
    VRING_DESC_ALIGN_SIZE,
    VRING_DESC_F_INDIRECT,
    VRING_DESC_F_NEXT,
    VRING_DESC_F_WRITE,
    VRING_USED_ALIGN_SIZE,
    VRING_USED_F_NO_NOTIFY,
)

__all__ = ["LONGEST_TABLE", "Chain", "Queue", "QueueState"]

#: Descriptors in an indirect table: what a pipe of the largest size that Linux lets users have (256 pages) needs.
LONGEST_TABLE = 256

_unpack_descriptor = VRING_DESC.unpack_from
# Taking a free lock is a locked instruction, a full barrier: a store before it is seen before any load after it.
_barrier = threading.Lock()


class QueueState(TypedDict):
    """A queue as plain data: what the driver set up, and the index of both rings."""

    size: int
    desc: int
    avail: int
    used: int
    ready: bool
    next: int


class Chain:
    """One buffer of the driver: slices of guest memory, which may change while they are looked at."""

    __slots__ = ("readable", "writable")

    def __init__(self, readable: list[memoryview], writable: list[memoryview]) -> None:
        #: What the device may read, and may write, in order. None of them is empty.
        self.readable = readable
        self.writable = writable

    def fill(self, data: memoryview) -> int:
        """Write as much of ``data`` as the writable parts hold; how many bytes."""
        done = 0
        for piece in self.writable:
            part = data[done : done + len(piece)]
            piece[: len(part)] = part
            done += len(part)
        return done


class Queue:
    """One virtqueue. ``fail`` is called when the driver broke the ring itself: only a reset of the device helps."""

    def __init__(self, ram: memoryview, size_max: int, fail: Callable[[], None]) -> None:
        self._ram = ram
        self._fail = fail
        self.size_max = size_max
        self.size = self.desc = self.avail = self.used = 0
        self.ready = False
        #: The index, modulo 2**16, of the next entry of both rings.
        self.next = 0
        self._head = 0
        self._event_idx = self._indirect = False
        self._avail_ring = self._used_ring = self._used_elements = ram[:0]

    def reset(self) -> None:
        """As it was before the driver came."""
        self.size = self.desc = self.avail = self.used = 0
        self.stop()

    def stop(self) -> None:
        """The driver takes the queue back."""
        self.ready = self._event_idx = self._indirect = False
        self.next = self._head = 0
        self._avail_ring = self._used_ring = self._used_elements = self._ram[:0]

    def start(self, indirect: bool, event_idx: bool, at: int = 0) -> bool:
        """Use the rings where the driver put them, from index ``at`` on.

        Whether they can be used: the size a power of two that the device offers (§2.7), each ring aligned, wholly in
        memory, and over no other.
        """
        size = self.size
        if not 0 < size <= self.size_max or size & (size - 1):
            return False
        rings = [
            (self.desc, 16 * size, VRING_DESC_ALIGN_SIZE),
            (self.avail, 6 + 2 * size, VRING_AVAIL_ALIGN_SIZE),
            (self.used, 6 + 8 * size, VRING_USED_ALIGN_SIZE),
        ]
        if any(start % align or start + length > len(self._ram) for start, length, align in rings):
            return False
        rings.sort()
        if any(ring[0] + ring[1] > after[0] for ring, after in pairwise(rings)):
            return False
        self._indirect, self._event_idx = indirect, event_idx
        self._avail_ring = self._ram[self.avail : self.avail + 6 + 2 * size].cast("H")
        self._used_ring = self._ram[self.used : self.used + 6 + 8 * size].cast("H")
        self._used_elements = self._ram[self.used + 4 : self.used + 4 + 8 * size].cast("I")
        self.next = at
        self.ready = True
        return True

    def pending(self) -> int:
        """How many buffers are available: 0 to the size of the queue.

        0 and a call of ``fail`` if the driver's index is not one that it can have (it jumped ahead or went back).
        """
        if not self.ready:
            return 0
        count: int = (self._avail_ring[1] - self.next) & 0xFFFF
        if count > self.size:
            self._fail()
            return 0
        return count

    def peek(self) -> Chain | None:
        """The next available buffer; only if one is ``pending``.

        None if its descriptors make no sense: a number that no descriptor has, a loop, memory that is not there, more
        bytes than there is memory, a readable part after a writable one, indirect tables where they cannot be.
        """
        ram = self._ram
        end = len(ram)
        index: int = self._avail_ring[2 + self.next % self.size]
        self._head = index
        table, count = self.desc, self.size
        left, total, indirect = count, 0, False
        readable: list[memoryview] = []
        writable: list[memoryview] = []
        while True:
            # Who takes more steps than there are descriptors goes in circles.
            if index >= count or not left:
                return None
            left -= 1
            address, length, flags, following = _unpack_descriptor(ram, table + 16 * index)
            stop = address + length
            if flags & VRING_DESC_F_INDIRECT:
                if indirect or not self._indirect or flags & VRING_DESC_F_NEXT:
                    return None
                if length % 16 or not 0 < length <= 16 * LONGEST_TABLE or stop > end:
                    return None
                table, count, index, indirect = address, length // 16, 0, True
                left = count
                continue
            if length:
                total += length
                if stop > end or total > end:
                    return None
                if flags & VRING_DESC_F_WRITE:
                    writable.append(ram[address:stop])
                elif writable:
                    return None
                else:
                    readable.append(ram[address:stop])
            if not flags & VRING_DESC_F_NEXT:
                return Chain(readable, writable)
            index = following

    def complete(self, written: int) -> None:
        """Give the buffer that ``peek`` told of, or could not make sense of, back with ``written`` bytes in it."""
        place = self.next % self.size * 2
        elements = self._used_elements
        elements[place] = self._head
        elements[place + 1] = written
        self.next = index = (self.next + 1) & 0xFFFF
        self._used_ring[1] = index

    def suppress_notifications(self) -> None:
        """Ask the driver not to notify of buffers that it makes available (§2.7.10)."""
        if self._event_idx:
            self._used_ring[2 + 4 * self.size] = (self.next - 1) & 0xFFFF
        elif self.ready:
            self._used_ring[0] = VRING_USED_F_NO_NOTIFY

    def request_notification(self) -> None:
        """Ask the driver to notify of the next buffer. Look at ``pending`` afterwards: it may have come meanwhile."""
        if self._event_idx:
            self._used_ring[2 + 4 * self.size] = self.next
        elif self.ready:
            self._used_ring[0] = 0
        with _barrier:
            pass

    def is_interrupt_wanted(self, before: int) -> bool:
        """Whether the driver wants to hear of the buffers used since the index was ``before`` (§2.7.7)."""
        used = (self.next - before) & 0xFFFF
        if not used or not self.ready:
            return False
        with _barrier:
            pass
        if self._event_idx:
            return (self.next - self._avail_ring[2 + self.size] - 1) & 0xFFFF < used
        return not self._avail_ring[0] & VRING_AVAIL_F_NO_INTERRUPT

    def save(self) -> QueueState:
        """The queue as plain data; what is in the rings is in the guest's memory."""
        return {
            "size": self.size,
            "desc": self.desc,
            "avail": self.avail,
            "used": self.used,
            "ready": self.ready,
            "next": self.next,
        }

    def restore(self, state: QueueState, indirect: bool, event_idx: bool) -> None:
        """Go on from ``state``; ValueError if its rings are not in this memory."""
        self.size, self.desc, self.avail, self.used = state["size"], state["desc"], state["avail"], state["used"]
        if state["ready"] and not self.start(indirect, event_idx, state["next"]):
            raise ValueError(f"{self!r}: not in a memory of {len(self._ram):#x} bytes")

    def __repr__(self) -> str:
        where = f"{self.desc:#x}, {self.avail:#x}, {self.used:#x}" if self.ready else "not ready"
        return f"<Queue of {self.size}: {where}, next {self.next}>"
