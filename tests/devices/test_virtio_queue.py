"""Split virtqueues against drivers that break the rules: the chain comes back empty, or the device needs a reset."""

import struct
import sys

import pytest

from pyvmm.devices.virtio.queue import LONGEST_TABLE
from tests.devices.virtio_driver import (
    ALL,
    BASE,
    EVENT_IDX,
    INDIRECT,
    NEEDS_RESET,
    PLAIN,
    RAM,
    Board,
    Collector,
    Driver,
    Port,
    Ring,
)

NEXT, WRITE, TABLE = 1, 2, 4
DATA, OTHER = 0x300000, 0x301000
TRANSMITQ, RECEIVEQ = 1, 0
SIZE = 8


class Bench:
    """A started device with rings of 8 and no buffers, and what it wrote."""

    def __init__(self, features: int = ALL) -> None:
        self.sink = Collector()
        self.port = Port("", self.sink, is_console=True)
        self.board = Board([self.port])
        self.driver = Driver(self.board, features).start(SIZE)
        self.out, self.input = self.driver.rings[TRANSMITQ], self.driver.rings[RECEIVEQ]
        self.board.ram[DATA : DATA + 0x2000] = b"DATA" * 0x800

    def make_guest_open(self) -> None:
        for event in (0, 3, 6):
            self.driver.control(0, event, 1)

    def table(self, address: int, *descriptors: tuple[int, int, int, int]) -> None:
        for place, descriptor in enumerate(descriptors):
            struct.pack_into("<QIHH", self.board.ram, address + 16 * place, *descriptor)

    def offer(
        self, *descriptors: tuple[int, int, int, int], head: int = 0, ring: Ring | None = None
    ) -> list[tuple[int, int]]:
        """Put descriptors at the start of the queue's table, make ``head`` available; what comes back."""
        ring = ring or self.out
        self.table(ring.desc, *descriptors)
        ring.make_available(head)
        ring.notify()
        return ring.collect()

    def check_good(self) -> None:
        """A good chain works now, and nothing was touched that should not have been."""
        already = len(self.sink.data)
        assert self.offer((DATA, 4, 0, 0)) == [(0, 0)]
        assert self.sink.data[already:] == b"DATA"
        assert not self.board.status & NEEDS_RESET
        self.board.check()


@pytest.fixture
def bench() -> Bench:
    return Bench()


BAD_CHAINS = {
    "desc_self_loop": [(DATA, 4, NEXT, 0)],
    "desc_chain_loop": [(DATA, 4, NEXT, 1), (DATA, 4, NEXT, 2), (DATA, 4, NEXT, 0)],
    "chain_qsize_plus_one": [(DATA, 4, NEXT, (place + 1) % SIZE) for place in range(SIZE)],
    "next_oob": [(DATA, 4, NEXT, SIZE)],
    "next_all_ones": [(DATA, 4, NEXT, 0xFFFF)],
    "addr_beyond_ram": [(RAM, 4, 0, 0)],
    "addr_far_beyond_ram": [(1 << 63, 4, 0, 0)],
    "addr_in_own_registers": [(BASE, 4, 0, 0)],
    "starts_inside_and_ends_outside": [(RAM - 2, 4, 0, 0)],
    "straddles_by_64_KiB": [(RAM - 0x10000, 0x20000, 0, 0)],
    "addr_wraps": [((1 << 64) - 16, 32, 0, 0)],
    "len_huge": [(DATA, 0xFFFF_FFFF, 0, 0)],
    "total_len_overflow": [(0, RAM, NEXT, 1), (0, RAM, 0, 0)],
    "write_flag_wrong": [(DATA, 4, WRITE, 0)],
    "readable_then_writable": [(DATA, 4, NEXT, 1), (OTHER, 4, WRITE, 0)],
    "readable_after_writable": [(DATA, 4, NEXT | WRITE, 1), (OTHER, 4, 0, 0)],
    "all_max_values": [((1 << 64) - 1, 0xFFFF_FFFF, 0xFFFF, 0xFFFF)],
    "indirect_and_next": [(OTHER, 16, TABLE | NEXT, 1), (DATA, 4, 0, 0)],
    "indirect_len_not_multiple": [(OTHER, 17, TABLE, 0)],
    "indirect_len_zero": [(OTHER, 0, TABLE, 0)],
    "indirect_len_huge": [(0, 0xFFFF_FFF0, TABLE, 0)],
    "indirect_addr_oob": [(RAM, 16, TABLE, 0)],
    "indirect_straddles_the_end": [(RAM - 16, 32, TABLE, 0)],
    "indirect_wraps": [((1 << 64) - 16, 32, TABLE, 0)],
    "indirect_too_many_entries": [(0x200000, 16 * (LONGEST_TABLE + 1), TABLE, 0)],
}


@pytest.mark.parametrize("name", BAD_CHAINS)
def test_a_bad_chain_comes_back_empty_and_the_next_one_works(bench: Bench, name: str) -> None:
    assert bench.offer(*BAD_CHAINS[name]) == [(0, 0)]
    assert not bench.sink.data
    assert bench.port.violations == 1
    bench.check_good()


@pytest.mark.parametrize("name", BAD_CHAINS)
def test_more_bad_chains_than_the_queue_holds_leak_no_heads(bench: Bench, name: str) -> None:
    for _ in range(SIZE + 1):
        assert bench.offer(*BAD_CHAINS[name]) == [(0, 0)]
    bench.check_good()


INDIRECT_TABLES = {
    "indirect_nested": [(OTHER, 16, TABLE, 0)],
    "indirect_self": [(OTHER + 0x800, 16, TABLE, 0)],
    "indirect_chain_loop": [(DATA, 4, NEXT, 1), (DATA, 4, NEXT, 0)],
    "indirect_oob_next": [(DATA, 4, NEXT, 2), (DATA, 4, 0, 0)],
    "indirect_bad_addr": [(RAM - 1, 4, 0, 0)],
    "indirect_write_flag": [(DATA, 4, WRITE, 0)],
}


@pytest.mark.parametrize("name", INDIRECT_TABLES)
def test_a_bad_indirect_table_comes_back_empty(bench: Bench, name: str) -> None:
    table = INDIRECT_TABLES[name]
    bench.table(OTHER + 0x800, *table)
    assert bench.offer((OTHER + 0x800, 16 * len(table), TABLE, 0)) == [(0, 0)]
    assert not bench.sink.data
    bench.check_good()


def test_an_indirect_descriptor_that_was_not_negotiated_is_a_bad_chain() -> None:
    bench = Bench(ALL & ~INDIRECT)
    bench.table(OTHER, (DATA, 4, 0, 0))
    assert bench.offer((OTHER, 16, TABLE, 0)) == [(0, 0)]
    assert not bench.sink.data
    bench.check_good()


@pytest.mark.parametrize("flags", [TABLE, TABLE | WRITE])
def test_an_indirect_table_may_follow_descriptors_and_its_write_flag_means_nothing(bench: Bench, flags: int) -> None:
    bench.table(OTHER + 0x800, (DATA + 4, 3, NEXT, 1), (DATA + 8, 2, 0, 0))
    assert bench.offer((DATA, 2, NEXT, 1), (OTHER + 0x800, 32, flags, 0)) == [(0, 0)]
    assert bench.sink.data == b"DADATDA"


def test_an_indirect_table_across_pages_and_of_the_largest_length_works(bench: Bench) -> None:
    start = 0x200000 - 40
    bench.table(start, *((DATA + 4 * (place % 16), 4, NEXT, place + 1) for place in range(LONGEST_TABLE - 1)))
    bench.table(start + 16 * (LONGEST_TABLE - 1), (DATA, 4, 0, 0))
    assert bench.offer((start, 16 * LONGEST_TABLE, TABLE, 0)) == [(0, 0)]
    assert bench.sink.data == b"DATA" * LONGEST_TABLE


def test_a_chain_as_long_as_the_queue_works(bench: Bench) -> None:
    chain = [(DATA + place, 1, NEXT, place + 1) for place in range(SIZE - 1)] + [(DATA + SIZE - 1, 1, 0, 0)]
    assert bench.offer(*chain) == [(0, 0)]
    assert bench.sink.data == b"DATADATA"


@pytest.mark.parametrize("empty", range(3))
def test_a_descriptor_of_no_bytes_is_skipped_wherever_it_is(bench: Bench, empty: int) -> None:
    chain = [(DATA, 0 if place == empty else 4, NEXT if place < 2 else 0, place + 1) for place in range(3)]
    assert bench.offer(*chain) == [(0, 0)]
    assert bench.sink.data == b"DATADATA"
    bench.check_good()


def test_a_chain_of_no_bytes_at_all_is_used(bench: Bench) -> None:
    assert bench.offer((DATA, 0, 0, 0)) == [(0, 0)]
    assert not bench.sink.data


def test_address_0_is_memory_like_any_other(bench: Bench) -> None:
    bench.board.ram[0:4] = b"zero"
    bench.offer((0, 4, 0, 0))
    assert bench.sink.data == b"zero"


def test_output_from_the_own_rings_is_only_bytes(bench: Bench) -> None:
    for ring in (bench.out.desc, bench.out.avail, bench.out.used):
        assert bench.offer((ring, 64, 0, 0)) == [(0, 0)]
    assert len(bench.sink.data) == 3 * 64
    bench.check_good()


def test_input_into_the_own_rings_breaks_only_this_driver(bench: Bench) -> None:
    bench.make_guest_open()
    for ring in (bench.input.desc, bench.input.used, bench.input.avail):
        bench.offer((ring, 64, WRITE, 0), ring=bench.input)
        bench.port.send(b"\xff" * 64)
    bench.board.check()
    bench.driver = Driver(bench.board).start(SIZE)
    bench.out = bench.driver.rings[TRANSMITQ]
    bench.check_good()


def test_what_a_device_may_read_comes_before_what_it_may_write(bench: Bench) -> None:
    queue = bench.board.mmio.queues[TRANSMITQ]
    bench.table(bench.out.desc, (DATA, 4, NEXT, 1), (OTHER, 8, NEXT | WRITE, 2), (OTHER, 2, WRITE, 0))
    bench.out.make_available(0)
    chain = queue.peek()
    assert chain is not None
    assert [len(piece) for piece in chain.readable] == [4]
    assert [len(piece) for piece in chain.writable] == [8, 2]
    bench.table(bench.out.desc, (DATA, 4, NEXT | WRITE, 1), (OTHER, 8, 0, 0))
    assert queue.peek() is None


@pytest.mark.parametrize("head", [SIZE, 0x7FFF, 0xFFFF])
def test_a_ring_entry_that_is_no_descriptor_comes_back_as_it_is(bench: Bench, head: int) -> None:
    assert bench.offer(head=head) == [(head, 0)]
    bench.check_good()


def test_one_head_in_all_entries_is_used_as_often_as_it_is_there(bench: Bench) -> None:
    bench.table(bench.out.desc, (DATA, 4, 0, 0))
    for _ in range(SIZE):
        bench.out.make_available(0)
    bench.out.notify()
    assert bench.out.collect() == [(0, 0)] * SIZE
    assert bench.sink.data == b"DATA" * SIZE


@pytest.mark.parametrize("jump", [SIZE + 1, 0x8000, -1])
def test_an_index_that_jumps_or_goes_back_stops_the_device(bench: Bench, jump: int) -> None:
    bench.offer((DATA, 4, 0, 0))
    before = bytes(bench.board.ram)
    bench.out.set_index((bench.out.added + jump) & 0xFFFF)
    changed = bytes(bench.board.ram)
    assert changed != before
    bench.out.notify()
    assert bench.board.status & NEEDS_RESET
    assert bench.sink.data == b"DATA"
    assert bench.out.collect() == []
    assert bench.board.line.level
    assert bench.board.read(0x60) == 3
    # Nothing moves until the reset, whatever the ring says then.
    bench.out.set_index(bench.out.added)
    bench.offer((DATA, 4, 0, 0))
    assert bench.sink.data == b"DATA"
    bench.driver = Driver(bench.board).start(SIZE)
    bench.out = bench.driver.rings[TRANSMITQ]
    bench.check_good()


def test_a_jump_is_noticed_when_the_host_sends_too(bench: Bench) -> None:
    bench.make_guest_open()
    bench.input.set_index(SIZE + 1)
    assert bench.port.send(b"input") == 5
    assert bench.board.status & NEEDS_RESET
    assert bench.port.waiting_input == 5


@pytest.mark.parametrize("features", [ALL, PLAIN])
def test_indices_wrap(features: int) -> None:
    bench = Bench(features)
    for number in range(0x10000 + 3 * SIZE):
        bench.out.make_available(0)
        if number % SIZE == SIZE - 1:
            bench.out.notify()
    assert bench.out.added == 3 * SIZE
    assert bench.driver.board.mmio.queues[TRANSMITQ].next == 3 * SIZE
    bench.out.collect()
    bench.check_good()


def test_what_the_driver_writes_into_the_used_ring_changes_nothing(bench: Bench) -> None:
    bench.board.ram[bench.out.used : bench.out.used + 6 + 8 * SIZE] = b"\xff" * (6 + 8 * SIZE)
    bench.offer((DATA, 4, 0, 0))
    assert bench.sink.data == b"DATA"
    assert struct.unpack_from("<HII", bench.board.ram, bench.out.used + 2) == (1, 0, 0)
    bench.board.check()


@pytest.mark.parametrize("event", [0, 1, 0x7FFF, 0x8000, 0xFFFF])
def test_any_used_event_is_survived(bench: Bench, event: int) -> None:
    struct.pack_into("<H", bench.board.ram, bench.out.avail + 4 + 2 * SIZE, event)
    for _ in range(3):
        bench.out.make_available(0)
    bench.out.notify()
    assert bench.board.line.level == (event <= 2)


def test_without_event_indices_the_flag_keeps_interrupts_away() -> None:
    bench = Bench(PLAIN)
    struct.pack_into("<H", bench.board.ram, bench.out.avail, 1)
    bench.offer((DATA, 4, 0, 0))
    assert not bench.board.line.level
    struct.pack_into("<H", bench.board.ram, bench.out.avail, 0)
    bench.offer((DATA, 4, 0, 0))
    assert bench.board.line.level


@pytest.mark.parametrize("features", [PLAIN, PLAIN | EVENT_IDX])
def test_the_driver_is_asked_not_to_notify_of_receive_buffers(features: int) -> None:
    bench = Bench(features)
    for _ in range(SIZE - 1):
        bench.input.make_available(0)
        bench.input.kick()
    assert bench.input.kicks == 1


def test_a_chain_that_changes_while_the_sink_has_it_is_harmless(bench: Bench) -> None:
    def rewrite(piece: memoryview) -> int:
        bench.table(bench.out.desc, *[(1 << 60, 0xFFFF_FFFF, NEXT, place) for place in range(SIZE)])
        return len(piece)

    bench.port.sink = rewrite
    assert bench.offer((DATA, 4, NEXT, 1), (DATA, 4, 0, 0)) == [(0, 0)]
    bench.port.sink = bench.sink
    bench.check_good()


def test_a_buffer_of_all_memory_costs_no_memory(bench: Bench) -> None:
    sizes = []

    def measure(piece: memoryview) -> int:
        sizes.append((len(piece), sys.getsizeof(piece)))
        return len(piece)

    bench.port.sink = measure
    assert bench.offer((0, RAM, 0, 0)) == [(0, 0)]
    assert sizes == [(RAM, sys.getsizeof(memoryview(b"")))]


def test_every_kick_without_a_buffer_leaves_everything_as_it_is(bench: Bench) -> None:
    bench.offer((DATA, 4, 0, 0))
    before, state = bytes(bench.board.ram), bench.board.state()
    for _ in range(100_000):
        bench.out.notify()
    assert bytes(bench.board.ram) == before
    assert bench.board.state() == state


def test_one_notification_ends_though_another_processor_adds_buffers_all_the_while(bench: Bench) -> None:
    bench.table(bench.out.desc, (DATA, 4, 0, 0))
    endless = True

    def refill(piece: memoryview) -> int:
        if endless:
            bench.out.make_available(0)
        return len(piece)

    bench.port.sink = refill
    bench.out.make_available(0)
    bench.out.notify()
    assert bench.board.mmio.queues[TRANSMITQ].pending() == 1
    # What is left is done with after the interrupt, without another notification.
    endless = False
    assert bench.board.line.level
    bench.driver.interrupt()
    assert bench.board.mmio.queues[TRANSMITQ].pending() == 0
