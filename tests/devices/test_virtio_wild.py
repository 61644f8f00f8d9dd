"""Virtio against drivers that do anything: nothing is raised, nothing outside memory is touched, a reset helps."""

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.devices.virtio_driver import ALL, MULTIPORT, PAGE, PLAIN, RAM, Board, Collector, Driver, Port

U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
#: Offsets of registers and of the configuration, wrong ones among them.
OFFSETS = st.one_of(st.sampled_from(range(0, 0x100, 4)), st.integers(0, 0x1FF))
VALUES = st.one_of(st.integers(0, 15), st.sampled_from([0x10000, 0x11000, 0x12000, RAM - 16, 8, 0x4F, 0x80]), U32, U64)
ADDRESSES = st.one_of(
    st.integers(0, RAM),
    st.integers(RAM - 64, RAM + 64),
    st.sampled_from([0x10000, 0x11000, 0x12000, 0x13000, 0x14000]),
    U64,
)
LENGTHS = st.one_of(st.integers(0, 64), st.sampled_from([16, 32, 4096, RAM, 0xFFFF_FFFF]), U32)
FLAGS = st.one_of(st.integers(0, 7), U16)
DESCRIPTORS = st.lists(st.tuples(ADDRESSES, LENGTHS, FLAGS, st.one_of(st.integers(0, 8), U16)), max_size=8)
FEATURES = st.sampled_from([ALL, PLAIN, ALL & ~MULTIPORT])

HOST_STEPS = st.sampled_from(["send", "resume", "open", "close", "resize", "starve", "feed", "save"])


class Machine:
    """A board whose agent port the host uses, with a sink that sometimes takes nothing."""

    def __init__(self) -> None:
        self.sinks = [Collector(), Collector()]
        self.board = Board(self._ports())

    def _ports(self) -> list[Port]:
        return [Port("", self.sinks[0], is_console=True), Port("agent", self.sinks[1], input_limit=4096)]

    def host(self, step: str) -> None:
        console, port = self.board.ports
        sink = self.sinks[1]
        if step == "send":
            accepted = port.send(b"input" * 100), console.send(b"typed")
            assert 0 <= accepted[0] <= 500
        elif step == "resume":
            port.resume()
        elif step == "open":
            port.open()
        elif step == "close":
            port.close()
        elif step == "resize":
            self.board.console.resize(100, 40)
        elif step == "starve":
            sink.room = 3
        elif step == "feed":
            sink.room = None
            port.resume()
        else:
            saved = self.board.state()
            self.board.check()
            self.board = self.board.snapshot(self._ports())
            assert self.board.state() == saved
        # Output may be anything, but is not kept for ever by this test.
        for collector in self.sinks:
            collector.data.clear()

    def check(self) -> None:
        """The guards are whole, what waits is bounded, and a good driver can use the device."""
        board = self.board
        board.check()
        assert board.ports[1].waiting_input <= 4096
        board.ports[1].open()
        board.ports[1].discard_input()
        board.ports[0].discard_input()
        for collector in self.sinks:
            collector.data.clear()
            collector.room = None
        board.ram[:] = bytes(RAM)
        driver = Driver(board).probe()
        assert driver.names == {1: "agent"}
        driver.open(1)
        driver.write(1, b"good" * 3000, 3)
        assert self.sinks[1].data == b"good" * 3000
        board.ports[1].send(b"and back")
        driver.interrupt()
        assert driver.received[1] == b"and back"
        board.check()


@given(st.lists(st.one_of(st.tuples(OFFSETS, st.sampled_from([1, 2, 4, 4, 4, 8]), st.none() | VALUES), HOST_STEPS)))
def test_any_accesses_to_the_registers(steps: list[Any]) -> None:
    machine = Machine()
    for step in steps:
        if isinstance(step, str):
            machine.host(step)
        elif step[2] is None:
            assert 0 <= machine.board.read(step[0], step[1]) < 1 << 8 * step[1]
        else:
            machine.board.write(step[0], step[2] & ((1 << 8 * step[1]) - 1), step[1])
    machine.check()


@given(
    FEATURES,
    st.lists(
        st.one_of(
            st.tuples(
                st.integers(0, 5), DESCRIPTORS, st.lists(st.one_of(st.integers(0, 8), U16), max_size=9), st.none() | U16
            ),
            HOST_STEPS,
        ),
        max_size=12,
    ),
)
def test_any_rings(features: int, steps: list[Any]) -> None:
    machine = Machine()
    driver = Driver(machine.board, features).start(8)
    for step in steps:
        if isinstance(step, str):
            machine.host(step)
            continue
        queue, descriptors, heads, index = step
        ring = driver.rings[queue % len(driver.rings)]
        ring.board = machine.board
        for place, descriptor in enumerate(descriptors):
            ring.descriptor(place, *descriptor)
        for head in heads:
            ring.make_available(head)
        if index is not None:
            ring.set_index(index)
        ring.notify()
        if machine.board.status & 0x40:
            driver = Driver(machine.board, features).start(8)
    machine.check()


@given(FEATURES, st.binary(min_size=64, max_size=4096), st.integers(0, PAGE), st.lists(st.integers(0, 5), max_size=8))
def test_memory_of_any_bytes(features: int, junk: bytes, at: int, queues: list[int]) -> None:
    machine = Machine()
    driver = Driver(machine.board, features).start(16)
    for ring in driver.rings:
        for start in (ring.desc, ring.avail + 2):
            piece = (junk[at % len(junk) :] + junk)[: 16 * 16 if start == ring.desc else 2 * 17]
            machine.board.ram[start : start + len(piece)] = piece
        # A jump would stop the device at once.
        ring.set_index(len(junk) % 17)
    for queue in queues:
        driver.rings[queue % len(driver.rings)].notify()
        machine.host("send")
        machine.board.write(0x64, 3)
    machine.check()


@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(0, 3), U32), st.one_of(st.integers(0, 9), U16), st.one_of(st.integers(0, 2), U16)
        )
    )
)
def test_any_control_messages(messages: list[tuple[int, int, int]]) -> None:
    machine = Machine()
    driver = Driver(machine.board).start()
    for message in messages:
        machine.board.ram[0x300000:0x300008] = struct.pack("<IHH", *message)
        driver.rings[3].add([(0x300000, 8)])
        driver.rings[3].notify()
        driver.rings[3].collect()
    assert len(machine.board.console.save()["messages"]) <= 10
    machine.check()


def _agent_traffic() -> st.SearchStrategy[list[tuple[str, int]]]:
    return st.lists(st.tuples(st.sampled_from(["write", "send", "room", "interrupt", "save"]), st.integers(0, 9000)))


@given(FEATURES.filter(lambda features: bool(features & MULTIPORT)), _agent_traffic())
def test_every_byte_arrives_in_order_however_both_sides_stall(features: int, steps: list[tuple[str, int]]) -> None:
    machine = Machine()
    driver = Driver(machine.board, features).probe(buffers=3)
    driver.open(1)
    sink, port = machine.sinks[1], machine.board.ports[1]
    written, sent, counter = bytearray(), bytearray(), 0
    for step, amount in steps:
        data = bytes((counter + place) % 251 for place in range(amount))
        counter += amount
        if step == "write" and len(driver.rings[5].free) >= 3:
            driver.write(1, data or b"x", 3)
            written += data or b"x"
        elif step == "send":
            sent += data[: port.send(data)]
        elif step == "room":
            sink.room = amount
            port.resume()
        elif step == "interrupt":
            driver.interrupt()
        else:
            state = machine.board.console.save()
            port.restore(state["ports"][1])
            assert machine.board.console.save() == state
        assert written.startswith(sink.data)
    sink.room = None
    port.resume()
    driver.interrupt()
    assert sink.data == written
    assert driver.received[1] == sent
    machine.board.check()
