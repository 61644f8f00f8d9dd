"""The driver's side of virtio-mmio and virtio-console, much as Linux does it, over a piece of memory with guards.

The device sees only the slice between the guards; ``Board.check`` tells whether anything outside it was touched.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pyvmm.devices.bus import Bus
from pyvmm.devices.virtio.abi import virtio_console as vc
from pyvmm.devices.virtio.abi import virtio_mmio as mm
from pyvmm.devices.virtio.abi.virtio_ring import (
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_RING_F_INDIRECT_DESC,
    VRING_DESC_F_INDIRECT,
    VRING_DESC_F_NEXT,
    VRING_DESC_F_WRITE,
)
from pyvmm.devices.virtio.console import ConsoleState, Port, VirtioConsole
from pyvmm.devices.virtio.mmio import WINDOW, MmioState, VirtioMmio

BASE = 0xD000_0000
GUARD = 8192
RAM = 4 << 20
PAGE = 4096
VERSION_1 = 1 << 32
EVENT_IDX = 1 << VIRTIO_RING_F_EVENT_IDX
INDIRECT = 1 << VIRTIO_RING_F_INDIRECT_DESC
MULTIPORT = 1 << vc.VIRTIO_CONSOLE_F_MULTIPORT
SIZE = 1 << vc.VIRTIO_CONSOLE_F_SIZE
PLAIN = VERSION_1 | MULTIPORT
ALL = PLAIN | EVENT_IDX | INDIRECT | SIZE
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 0x40, 0x80


class Collector:
    """A sink that takes everything, or only as much as ``room`` says."""

    def __init__(self, room: int | None = None) -> None:
        self.data = bytearray()
        self.room = room
        self.calls = 0

    def __call__(self, piece: memoryview) -> int:
        self.calls += 1
        count = len(piece) if self.room is None else min(len(piece), self.room)
        self.data += piece[:count]
        if self.room is not None:
            self.room -= count
        return count


class Line:
    """An interrupt line: its level, and how often it rose."""

    def __init__(self) -> None:
        self.level = False
        self.edges = 0

    def __call__(self, level: bool) -> None:
        self.edges += level and not self.level
        self.level = level


class Board:
    """Memory, a bus and one console device on it. ``snapshot`` gives another board that goes on from here."""

    def __init__(
        self,
        ports: Sequence[Port],
        memory: bytes | None = None,
        state: tuple[MmioState, ConsoleState] | None = None,
    ) -> None:
        self.whole = bytearray(b"\xaa" * GUARD + (memory or bytes(RAM)) + b"\xaa" * GUARD)
        self.ram = memoryview(self.whole)[GUARD:-GUARD]
        self.line = Line()
        self.ports = list(ports)
        self.console = VirtioConsole(self.ports, state[1] if state else None)
        self.mmio = VirtioMmio(self.console, self.ram, self.line, state[0] if state else None)
        self.bus = Bus("mmio")
        self.bus.add(BASE, WINDOW, self.mmio)

    def read(self, offset: int, size: int = 4) -> int:
        return self.bus.read(BASE + offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.bus.write(BASE + offset, size, value)

    @property
    def status(self) -> int:
        return self.read(mm.VIRTIO_MMIO_STATUS)

    def state(self) -> tuple[MmioState, ConsoleState]:
        return self.mmio.save(), self.console.save()

    def snapshot(self, ports: Sequence[Port]) -> "Board":
        return Board(ports, bytes(self.ram), self.state())

    def check(self) -> None:
        """Nothing outside the memory changed."""
        assert self.whole[:GUARD] == self.whole[-GUARD:] == b"\xaa" * GUARD


@dataclass
class Ring:
    """The driver's side of one queue."""

    board: Board
    index: int
    size: int
    desc: int
    avail: int
    used: int
    event_idx: bool
    free: list[int] = field(default_factory=list)
    chains: dict[int, list[int]] = field(default_factory=dict)
    added: int = 0
    announced: int = 0
    seen: int = 0
    kicks: int = 0

    def descriptor(self, index: int, address: int, length: int, flags: int = 0, following: int = 0) -> None:
        struct.pack_into("<QIHH", self.board.ram, self.desc + 16 * index, address, length, flags, following)

    def make_available(self, head: int) -> None:
        struct.pack_into("<H", self.board.ram, self.avail + 4 + 2 * (self.added % self.size), head)
        self.added = (self.added + 1) & 0xFFFF
        self.set_index(self.added)

    def set_index(self, index: int) -> None:
        struct.pack_into("<H", self.board.ram, self.avail + 2, index)

    def add(self, pieces: Iterable[tuple[int, int]], writable: bool = False) -> int:
        """Make a chain of (address, length) available; its head."""
        listed = list(pieces)
        indexes = [self.free.pop(0) for _ in listed]
        flags = VRING_DESC_F_WRITE if writable else 0
        for place, (address, length) in enumerate(listed):
            last = place == len(listed) - 1
            following = 0 if last else indexes[place + 1]
            self.descriptor(indexes[place], address, length, flags | (0 if last else VRING_DESC_F_NEXT), following)
        self.chains[indexes[0]] = indexes
        self.make_available(indexes[0])
        return indexes[0]

    def add_indirect(self, table: int, pieces: Iterable[tuple[int, int]], writable: bool = False) -> int:
        """The same through a table at ``table``."""
        listed, flags = list(pieces), VRING_DESC_F_WRITE if writable else 0
        for place, (address, length) in enumerate(listed):
            more = VRING_DESC_F_NEXT if place < len(listed) - 1 else 0
            struct.pack_into("<QIHH", self.board.ram, table + 16 * place, address, length, flags | more, place + 1)
        head = self.free.pop(0)
        self.descriptor(head, table, 16 * len(listed), VRING_DESC_F_INDIRECT)
        self.chains[head] = [head]
        self.make_available(head)
        return head

    def kick(self) -> None:
        """Notify the device if it wants to hear of what was added since the last time (virtqueue_kick_prepare)."""
        old, self.announced = self.announced, self.added
        if self.event_idx:
            (event,) = struct.unpack_from("<H", self.board.ram, self.used + 4 + 8 * self.size)
            wanted = (self.added - event - 1) & 0xFFFF < (self.added - old) & 0xFFFF
        else:
            wanted = not struct.unpack_from("<H", self.board.ram, self.used)[0] & 1
        if wanted:
            self.notify()

    def notify(self) -> None:
        self.kicks += 1
        self.board.write(mm.VIRTIO_MMIO_QUEUE_NOTIFY, self.index)

    def collect(self) -> list[tuple[int, int]]:
        """Heads and lengths that the device gave back; asks for an interrupt for the next (virtqueue_get_buf)."""
        done = []
        (index,) = struct.unpack_from("<H", self.board.ram, self.used + 2)
        while self.seen != index:
            place = self.used + 4 + 8 * (self.seen % self.size)
            head, written = struct.unpack_from("<II", self.board.ram, place)
            self.seen = (self.seen + 1) & 0xFFFF
            done.append((head, written))
            self.free += self.chains.pop(head, [])
        struct.pack_into("<H", self.board.ram, self.avail + 4 + 2 * self.size, self.seen)
        return done


class Driver:
    """Brings a console up and uses it. Wild tests take it only as far as they want and then write what they like."""

    def __init__(self, board: Board, features: int = ALL) -> None:
        self.board = board
        self.features = features
        self.rings: list[Ring] = []
        self._brk = 0x10000
        #: By number of port: what came, its name, and whether the host has it open.
        self.received: dict[int, bytearray] = {}
        self.names: dict[int, str] = {}
        self.host_open: dict[int, bool] = {}
        self.consoles: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        #: Where the buffer of a receive queue is, by queue and head.
        self.buffers: dict[tuple[int, int], int] = {}
        self.interrupts = 0

    def allocate(self, length: int, align: int = PAGE) -> int:
        self._brk = -(-self._brk // align) * align
        address, self._brk = self._brk, self._brk + length
        return address

    def negotiate(self) -> None:
        """Reset, and up to FEATURES_OK."""
        write = self.board.write
        write(mm.VIRTIO_MMIO_STATUS, 0)
        write(mm.VIRTIO_MMIO_STATUS, ACKNOWLEDGE)
        write(mm.VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER)
        for half in (1, 0):
            write(mm.VIRTIO_MMIO_DRIVER_FEATURES_SEL, half)
            write(mm.VIRTIO_MMIO_DRIVER_FEATURES, self.features >> 32 * half & 0xFFFF_FFFF)
        write(mm.VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK)

    def set_up_queue(self, index: int, size: int | None = None) -> Ring:
        """As vm_setup_vq does."""
        write = self.board.write
        write(mm.VIRTIO_MMIO_QUEUE_SEL, index)
        assert self.board.read(mm.VIRTIO_MMIO_QUEUE_READY) == 0
        size = size or self.board.read(mm.VIRTIO_MMIO_QUEUE_NUM_MAX)
        desc, avail, used = self.allocate(16 * size), self.allocate(6 + 2 * size), self.allocate(6 + 8 * size)
        for start, length in ((desc, 16 * size), (avail, 6 + 2 * size), (used, 6 + 8 * size)):
            self.board.ram[start : start + length] = bytes(length)
        ring = Ring(self.board, index, size, desc, avail, used, bool(self.features & EVENT_IDX), list(range(size)))
        self.place(ring)
        write(mm.VIRTIO_MMIO_QUEUE_READY, 1)
        return ring

    def place(self, ring: Ring) -> None:
        """Tell the device of the selected queue's size and rings."""
        self.board.write(mm.VIRTIO_MMIO_QUEUE_NUM, ring.size)
        for register, address in (
            (mm.VIRTIO_MMIO_QUEUE_DESC_LOW, ring.desc),
            (mm.VIRTIO_MMIO_QUEUE_AVAIL_LOW, ring.avail),
            (mm.VIRTIO_MMIO_QUEUE_USED_LOW, ring.used),
        ):
            self.board.write(register, address & 0xFFFF_FFFF)
            self.board.write(register + 4, address >> 32)

    def start(self, size: int | None = None) -> "Driver":
        """Up to DRIVER_OK, with all queues but no buffers."""
        self.negotiate()
        count = 2 * len(self.board.ports) + 2 if self.features & MULTIPORT else 2
        self.rings = [self.set_up_queue(index, size) for index in range(count)]
        self.board.write(mm.VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
        return self

    def probe(self, buffers: int = 8, size: int | None = None) -> "Driver":
        """As virtcons_probe does: buffers for control messages, then the device is told that the driver is ready.

        Every port gets ``buffers`` for what it receives.
        """
        self.start(size)
        self.depth = buffers
        if self.features & MULTIPORT:
            self.fill(2)
            self.control(vc.VIRTIO_CONSOLE_BAD_ID, vc.VIRTIO_CONSOLE_DEVICE_READY, 1)
        else:
            self.received[0] = bytearray()
            self.fill(0)
        self.interrupt()
        return self

    def fill(self, index: int, length: int = PAGE) -> None:
        """Add receive buffers one by one, each with a kick, as fill_queue does."""
        for _ in range(min(8 if index == 2 else self.depth, self.rings[index].size)):
            self.refill(index, self.allocate(length), length)

    def refill(self, index: int, address: int, length: int = PAGE) -> None:
        head = self.rings[index].add([(address, length)], writable=True)
        self.buffers[index, head] = address
        self.rings[index].kick()

    def control(self, number: int, event: int, value: int) -> None:
        """Send a control message, and wait for it as __send_control_msg does."""
        self.put(3, struct.pack("<IHH", number, event, value))

    def put(self, index: int, data: bytes, pieces: int = 1, indirect: bool = False) -> int:
        """Put one buffer of several pieces into a transmit queue and kick; its head."""
        ring = self.rings[index]
        if not ring.chains:
            self.scratch = getattr(self, "scratch", None) or self.allocate(256 * PAGE)
            self.free_scratch = self.scratch
        address = self.free_scratch
        self.free_scratch += len(data) + 16 * pieces + 32
        self.board.ram[address : address + len(data)] = data
        step = -(-len(data) // pieces) or 1
        parts = [(address + at, min(step, len(data) - at)) for at in range(0, len(data), step)]
        if indirect:
            head = ring.add_indirect(-(-(address + len(data)) // 16) * 16, parts)
        else:
            head = ring.add(parts)
        ring.kick()
        return head

    def queues_of(self, port: int) -> tuple[int, int]:
        first = 2 * port + 2 if port else 0
        return first, first + 1

    def write(self, port: int, data: bytes, pieces: int = 1, indirect: bool = False) -> int:
        """Output of a port; its head. What is used is collected first."""
        queue = self.queues_of(port)[1]
        self.rings[queue].collect()
        return self.put(queue, data, pieces, indirect)

    def open(self, port: int) -> None:
        self.control(port, vc.VIRTIO_CONSOLE_PORT_OPEN, 1)
        self.interrupt()

    def close(self, port: int) -> None:
        self.control(port, vc.VIRTIO_CONSOLE_PORT_OPEN, 0)
        self.interrupt()

    def interrupt(self) -> None:
        """Take interrupts until the line is low, as vm_interrupt does."""
        while self.board.line.level:
            self.interrupts += 1
            reasons = self.board.read(mm.VIRTIO_MMIO_INTERRUPT_STATUS)
            self.board.write(mm.VIRTIO_MMIO_INTERRUPT_ACK, reasons)
            for ring in self.rings:
                self._receive(ring) if not ring.index & 1 else ring.collect()

    def _receive(self, ring: Ring) -> None:
        for head, written in ring.collect():
            address = self.buffers.pop((ring.index, head))
            data = bytes(self.board.ram[address : address + written])
            if ring.index == 2:
                self._told(data)
            else:
                self.received[max(ring.index // 2 - 1, 0)] += data
            self.refill(ring.index, address)

    def _told(self, message: bytes) -> None:
        number, event, value = struct.unpack_from("<IHH", message)
        more = message[8:]
        if event == vc.VIRTIO_CONSOLE_PORT_ADD:
            if number not in self.received:
                self.received[number] = bytearray()
                self.fill(self.queues_of(number)[0])
            self.control(number, vc.VIRTIO_CONSOLE_PORT_READY, 1)
        elif event == vc.VIRTIO_CONSOLE_CONSOLE_PORT:
            self.consoles.append(number)
            self.control(number, vc.VIRTIO_CONSOLE_PORT_OPEN, 1)
        elif event == vc.VIRTIO_CONSOLE_PORT_NAME:
            self.names[number] = more.decode()
        elif event == vc.VIRTIO_CONSOLE_PORT_OPEN:
            self.host_open[number] = bool(value)
        elif event == vc.VIRTIO_CONSOLE_RESIZE:
            self.sizes.append(struct.unpack("<HH", more))
        else:
            raise AssertionError(f"event {event}")
