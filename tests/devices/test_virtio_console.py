"""The console device: its ports, control messages, and back-pressure both ways."""

import struct
from collections.abc import Callable

import msgspec
import pytest

from pyvmm.devices.virtio.abi import virtio_console as vc
from pyvmm.devices.virtio.abi import virtio_mmio as mm
from pyvmm.devices.virtio.console import VirtioConsole
from tests.devices.virtio_driver import (
    ALL,
    EVENT_IDX,
    INDIRECT,
    MULTIPORT,
    PAGE,
    PLAIN,
    Board,
    Collector,
    Driver,
    Port,
)

FEATURES = [ALL, PLAIN, PLAIN | EVENT_IDX, PLAIN | INDIRECT]
WRITE = 2


class Guest:
    """A board with a console port and an agent's port, and a driver that is up."""

    def __init__(self, features: int = ALL, buffers: int = 8, size: int | None = None, **agent: object) -> None:
        self.console, self.agent = Collector(), Collector()
        self.calls: list[str] = []
        self.port = Port(
            "org.pyvmm.agent",
            self.agent,
            on_open=lambda: self.calls.append("open"),
            on_close=lambda: self.calls.append("close"),
            **agent,
        )
        self.board = Board([Port("", self.console, is_console=True), self.port])
        self.driver = Driver(self.board, features).probe(buffers, size)

    def write_all(self, data: bytes, pieces: int = 1, chunk: int = 4 * PAGE, indirect: bool = False) -> None:
        for at in range(0, len(data), chunk):
            self.driver.write(1, data[at : at + chunk], pieces, indirect)
        self.driver.interrupt()


def pattern(length: int) -> bytes:
    return bytes(range(251)) * (length // 251) + bytes(range(length % 251))


@pytest.mark.parametrize("features", FEATURES)
def test_the_driver_learns_of_every_port(features: int) -> None:
    guest = Guest(features)
    assert guest.driver.consoles == [0]
    assert guest.driver.names == {1: "org.pyvmm.agent"}
    assert guest.driver.host_open == {0: True, 1: True}
    assert guest.driver.sizes == ([(80, 25)] if features & 1 else [])
    assert guest.board.mmio.violations == guest.board.console.violations == 0


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("pieces", [1, 2, 3, 4])
def test_output_arrives_whole_and_in_order(features: int, pieces: int) -> None:
    guest = Guest(features)
    data = pattern(100_000)
    guest.write_all(data, pieces, indirect=bool(features & INDIRECT))
    assert guest.agent.data == data
    guest.board.check()


@pytest.mark.parametrize("length", [1, 2, 127, 128, 4095, 4096, 4097, 65536])
def test_a_buffer_of_any_length_arrives(length: int) -> None:
    guest = Guest()
    guest.driver.write(0, pattern(length))
    assert guest.console.data == pattern(length)


def test_two_heads_in_one_kick_arrive_in_order() -> None:
    guest = Guest()
    ring = guest.driver.rings[1]
    guest.board.ram[0x300000:0x300006] = b"abcdef"
    ring.add([(0x300000, 1), (0x300001, 2)])
    ring.add([(0x300003, 3)])
    ring.notify()
    assert guest.console.data == b"abcdef"


@pytest.mark.parametrize("features", FEATURES)
def test_input_arrives_whole_when_the_guest_has_the_port_open(features: int) -> None:
    guest = Guest(features)
    data = pattern(50_000)
    assert guest.port.send(data) == len(data)
    guest.driver.interrupt()
    assert guest.driver.received[1] == b""
    guest.driver.open(1)
    assert guest.driver.received[1] == data
    assert guest.port.waiting_input == 0


def test_input_fills_chains_of_several_buffers() -> None:
    guest = Guest(buffers=0)
    guest.driver.open(1)
    guest.driver.rings[4].add([(0x300000, 3), (0x300010, 4), (0x300020, 50)], writable=True)
    guest.driver.rings[4].notify()
    assert guest.port.send(b"0123456789") == 10
    assert bytes(guest.board.ram[0x300000:0x300023]).replace(b"\0", b"") == b"0123456789"
    assert guest.driver.rings[4].collect() == [(0, 10)]


@pytest.mark.parametrize("features", FEATURES)
def test_the_host_is_told_how_much_input_is_accepted(features: int) -> None:
    guest = Guest(features, buffers=2, input_limit=1000)
    guest.driver.open(1)
    data = pattern(20_000)
    # Two pages go straight into the guest, 1000 bytes wait.
    assert guest.port.send(data) == 2 * PAGE + 1000
    assert guest.port.send(b"more") == 0
    guest.driver.interrupt()
    assert guest.driver.received[1] == data[: 2 * PAGE + 1000]


@pytest.mark.parametrize("features", FEATURES)
def test_a_large_transfer_to_the_guest_goes_on_whenever_there_is_room(features: int) -> None:
    guest = Guest(features, buffers=4, input_limit=5000)
    guest.driver.open(1)
    data, sent = pattern(1 << 20), 0

    def send() -> None:
        nonlocal sent
        sent += guest.port.send(data[sent:])

    guest.port.on_room = send
    send()
    guest.driver.interrupt()
    assert guest.driver.received[1] == data
    guest.board.check()


def test_input_without_buffers_waits_in_bounded_memory_and_raises_no_interrupt() -> None:
    guest = Guest(buffers=0, input_limit=4096)
    guest.driver.open(1)
    edges = guest.board.line.edges
    assert sum(guest.port.send(b"x" * 100) for _ in range(10_000)) == guest.port.waiting_input == 4096
    assert guest.board.line.edges == edges
    assert guest.port.discard_input() == 4096
    assert guest.port.waiting_input == 0


@pytest.mark.parametrize("features", FEATURES)
def test_output_that_the_sink_does_not_take_waits_in_the_guest(features: int) -> None:
    guest = Guest(features, size=32)
    guest.agent.room = 10_000
    data = pattern(40_000)
    for at in range(0, len(data), 4000):
        guest.driver.write(1, data[at : at + 4000], 3)
    assert guest.agent.data == data[:10_000]
    assert guest.port.blocked
    calls = guest.agent.calls
    guest.driver.rings[5].notify()
    assert guest.agent.calls == calls
    assert len(guest.driver.rings[5].chains) == 8
    guest.agent.room = 15_000
    guest.port.resume()
    assert guest.agent.data == data[:25_000]
    guest.agent.room = None
    guest.port.resume()
    assert guest.agent.data == data
    guest.driver.interrupt()
    assert not guest.driver.rings[5].chains
    guest.driver.write(1, b"after")
    assert guest.agent.data == data + b"after"


@pytest.mark.parametrize("features", [PLAIN, ALL])
def test_a_guest_that_is_held_back_does_not_notify(features: int) -> None:
    guest = Guest(features)
    guest.agent.room = 0
    guest.driver.write(1, b"first")
    kicks = guest.driver.rings[5].kicks
    for _ in range(50):
        guest.driver.write(1, b"more")
    assert guest.driver.rings[5].kicks == kicks


def test_a_sink_may_answer_and_resume_from_within() -> None:
    guest = Guest()
    guest.driver.open(1)

    def echo(piece: memoryview) -> int:
        guest.port.resume()
        return guest.port.send(piece)

    guest.port.sink = echo
    guest.write_all(b"to and fro")
    assert guest.driver.received[1] == b"to and fro"


def test_a_port_without_a_sink_drops_output_and_counts_it() -> None:
    guest = Guest()
    guest.port.sink = None
    guest.write_all(bytes(100_000))
    assert guest.port.dropped == 100_000
    assert not guest.driver.rings[5].chains or guest.driver.rings[5].collect()


def test_an_output_flood_keeps_nothing() -> None:
    guest = Guest()
    guest.board.ports[0].sink = None
    ring = guest.driver.rings[1]
    ring.descriptor(0, 0, 1 << 20)
    for number in range(1, 20_001):
        ring.make_available(0)
        if number % ring.size == 0:
            ring.notify()
    ring.notify()
    assert guest.board.ports[0].dropped == 20_000 << 20


def test_output_after_a_reset_in_the_middle_of_a_buffer_arrives_whole() -> None:
    guest = Guest()
    guest.agent.room = 3
    guest.driver.write(1, b"abcdef")
    guest.driver = Driver(guest.board).probe()
    guest.agent.room = None
    guest.driver.write(1, b"ghijkl")
    assert guest.agent.data == b"abcghijkl"


def test_the_host_closes_and_opens_a_port() -> None:
    guest = Guest()
    guest.port.close()
    guest.driver.interrupt()
    assert guest.driver.host_open[1] is False
    guest.driver.write(1, b"nobody listens")
    assert (guest.agent.data, guest.port.dropped) == (b"", 14)
    guest.port.open()
    guest.driver.interrupt()
    assert guest.driver.host_open[1] is True


def test_a_port_that_is_closed_at_first_is_opened_later() -> None:
    guest = Guest(host_open=False)
    assert guest.driver.host_open == {0: True}
    guest.port.open()
    guest.driver.interrupt()
    assert guest.driver.host_open == {0: True, 1: True}


def test_closing_a_port_frees_the_output_that_waits() -> None:
    guest = Guest()
    guest.agent.room = 3
    guest.driver.write(1, b"abcdef")
    guest.port.close()
    guest.driver.interrupt()
    assert guest.agent.data == b"abc"
    assert guest.port.dropped == 3
    assert not guest.driver.rings[5].chains


def test_the_host_hears_of_open_close_and_reset() -> None:
    guest = Guest()
    guest.driver.open(1)
    guest.driver.open(1)
    guest.driver.close(1)
    guest.driver.open(1)
    guest.board.write(mm.VIRTIO_MMIO_STATUS, 0)
    assert guest.calls == ["open", "close", "open", "close"]


def test_input_waits_while_the_guest_has_the_port_closed() -> None:
    guest = Guest()
    guest.driver.open(1)
    guest.driver.close(1)
    guest.port.send(b"later")
    guest.driver.interrupt()
    assert guest.driver.received[1] == b""
    guest.driver.open(1)
    assert guest.driver.received[1] == b"later"


def test_input_from_before_the_driver_came_and_through_a_reset_arrives() -> None:
    port = Port("agent")
    board = Board([Port("", is_console=True), port])
    port.send(b"before")
    Driver(board).probe()
    driver = Driver(board).probe()
    driver.open(1)
    assert driver.received[1] == b"before"


def test_a_resize_reaches_the_console() -> None:
    guest = Guest()
    guest.board.console.resize(132, 43)
    guest.driver.interrupt()
    assert guest.driver.sizes[-1] == (132, 43)
    assert guest.board.read(0x100) == 43 << 16 | 132


@pytest.mark.parametrize("features", [ALL & ~MULTIPORT, PLAIN & ~MULTIPORT])
def test_a_driver_without_multiport_has_the_console(features: int) -> None:
    out = Collector()
    port = Port("", out, is_console=True)
    board = Board([port, Port("agent")])
    driver = Driver(board, features).probe()
    driver.write(0, b"plain")
    assert out.data == b"plain"
    port.send(b"input")
    driver.interrupt()
    assert driver.received[0] == b"input"
    for index in (2, 3, 4, 5):
        board.write(mm.VIRTIO_MMIO_QUEUE_NOTIFY, index)
    board.check()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_an_emergency_write_needs_no_driver(size: int) -> None:
    out = Collector()
    board = Board([Port("", out, is_console=True)])
    for character in b"help":
        board.write(0x108, character, size)
    assert out.data == b"help"


def test_an_emergency_write_that_nobody_takes_is_counted() -> None:
    port = Port("", Collector(0), is_console=True)
    Board([port]).write(0x108, 0x41)
    assert port.dropped == 1


@pytest.mark.parametrize(
    ("number", "event", "value"),
    [
        (0, 8, 1),
        (0, 0xFFFF, 0xFFFF),
        (2, vc.VIRTIO_CONSOLE_PORT_READY, 1),
        (vc.VIRTIO_CONSOLE_BAD_ID, vc.VIRTIO_CONSOLE_PORT_OPEN, 1),
        (1, vc.VIRTIO_CONSOLE_PORT_OPEN, 2),
        (1, vc.VIRTIO_CONSOLE_PORT_ADD, 1),
        (1, vc.VIRTIO_CONSOLE_RESIZE, 1),
        (1, vc.VIRTIO_CONSOLE_PORT_READY, 0),
        (0, vc.VIRTIO_CONSOLE_DEVICE_READY, 0),
    ],
)
def test_a_control_message_that_makes_no_sense_is_counted(number: int, event: int, value: int) -> None:
    guest = Guest()
    guest.driver.control(number, event, value)
    assert guest.board.console.violations == 1
    assert not guest.port.guest_open
    guest.driver.write(0, b"still here")
    assert guest.console.data == b"still here"


@pytest.mark.parametrize("event", [vc.VIRTIO_CONSOLE_PORT_READY, vc.VIRTIO_CONSOLE_PORT_OPEN])
def test_a_port_that_was_not_announced_can_be_neither_ready_nor_open(event: int) -> None:
    board = Board([Port("", is_console=True), Port("agent")])
    driver = Driver(board).start()
    driver.control(1, event, 1)
    assert board.console.violations == 1
    assert not board.ports[1].guest_ready
    assert not board.ports[1].guest_open


@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_short_control_message_is_counted(length: int) -> None:
    guest = Guest()
    head = guest.driver.rings[3].add([(0x300000, length)])
    guest.driver.rings[3].notify()
    assert guest.board.console.violations == 1
    assert (head, 0) in guest.driver.rings[3].collect()


def test_a_control_message_in_pieces_is_read() -> None:
    guest = Guest()
    guest.board.ram[0x300000:0x300008] = struct.pack("<IHH", 1, vc.VIRTIO_CONSOLE_PORT_OPEN, 1)
    guest.driver.rings[3].add([(0x300000, 1), (0x300001, 5), (0x300006, 2000)])
    guest.driver.rings[3].notify()
    assert guest.port.guest_open


def test_messages_to_a_driver_that_takes_none_are_bounded() -> None:
    board = Board([Port("", is_console=True), Port("agent")])
    driver = Driver(board).start()
    for _ in range(200):
        for number, event in ((0, 0), (0, 3), (1, 3)):
            driver.control(number, event, 1)
            driver.rings[3].collect()
        board.ports[1].close()
        board.ports[1].open()
        board.console.resize(1, 1)
    assert len(board.console.save()["messages"]) <= 10


def test_a_buffer_too_short_for_a_message_comes_back_empty_and_the_message_waits() -> None:
    board = Board([Port("", is_console=True)])
    driver = Driver(board).start()
    driver.depth = 4
    control = driver.rings[2]
    control.add([(0x300000, 7)], writable=True)
    control.add([(0x300100, 3), (0x300200, 5)], writable=True)
    driver.control(vc.VIRTIO_CONSOLE_BAD_ID, vc.VIRTIO_CONSOLE_DEVICE_READY, 1)
    assert control.collect() == [(0, 0), (1, 8)]
    assert bytes(board.ram[0x300000:0x300007]) == bytes(7)


RX_CHAINS = {
    "rx_no_write": [(0x300000, 16, 0)],
    "rx_zero_len": [(0x300000, 0, WRITE)],
    "rx_huge_len": [(0x300000, 0xFFFF_FFFF, WRITE)],
    "rx_bad_addr": [(1 << 40, 16, WRITE)],
    "rx_readable_buf": [(0x300000, 16, 1), (0x300100, 16, WRITE)],
    "rx_huge_len_past_ram": [((4 << 20) - 8, 4096, WRITE)],
    "rx_addr_len_wrap": [((1 << 64) - 8, 64, WRITE)],
    "rx_self_loop": [(0x300000, 16, WRITE | 1)],
}


def put_and_collect(driver: Driver, queue: int, name: str) -> list[tuple[int, int]]:
    """Make a chain of RX_CHAINS available, then a good one; what comes back once the device has 8 bytes for it."""
    ring = driver.rings[queue]
    for index, (address, length, flags) in enumerate(RX_CHAINS[name]):
        ring.descriptor(index, address, length, flags, index + 1 if len(RX_CHAINS[name]) > 1 else 0)
    ring.make_available(0)
    ring.descriptor(7, 0x300800, 8, WRITE)
    ring.make_available(7)
    ring.notify()
    if queue == 2:
        driver.control(vc.VIRTIO_CONSOLE_BAD_ID, vc.VIRTIO_CONSOLE_DEVICE_READY, 1)
    else:
        driver.board.ports[1].send(b"8 bytes.")
    driver.board.check()
    return ring.collect()


@pytest.mark.parametrize("name", RX_CHAINS)
def test_a_receive_buffer_that_makes_no_sense_comes_back_empty_and_the_next_is_filled(name: str) -> None:
    guest = Guest(buffers=0)
    guest.driver.open(1)
    assert put_and_collect(guest.driver, 4, name) == [(0, 0), (7, 8)]
    assert guest.board.ram[0x300800:0x300808] == b"8 bytes."


@pytest.mark.parametrize("name", RX_CHAINS)
def test_a_buffer_for_control_messages_that_makes_no_sense_comes_back_empty_too(name: str) -> None:
    driver = Driver(Board([Port()])).start()
    assert put_and_collect(driver, 2, name) == [(0, 0), (7, 8)]
    assert driver.board.ram[0x300800:0x300808] == struct.pack("<IHH", 0, vc.VIRTIO_CONSOLE_PORT_ADD, 1)


def test_a_state_is_plain_data() -> None:
    guest = Guest(input_limit=100, buffers=0)
    guest.driver.open(1)
    guest.port.send(b"waits")
    guest.agent.room = 2
    guest.driver.write(1, b"half")
    state = list(guest.board.state())
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state)) == state


def do_nothing(guest: Guest) -> None:
    pass


def hold_back_output(guest: Guest) -> None:
    guest.agent.room = 5
    guest.driver.write(1, b"abc", 3)
    guest.driver.write(1, b"defghi", 2)
    guest.driver.write(1, b"jkl")


def let_input_wait(guest: Guest) -> None:
    guest.port.send(b"closed")
    guest.board.ports[0].send(bytes(40_000))


def break_the_ring(guest: Guest) -> None:
    guest.driver.rings[1].set_index(5000)
    guest.driver.rings[1].notify()


def have_messages_wait(guest: Guest) -> None:
    for _ in range(30):
        guest.port.close()
        guest.port.open()


def reset(guest: Guest) -> None:
    guest.board.write(mm.VIRTIO_MMIO_STATUS, 0)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize(
    "happens", [do_nothing, hold_back_output, let_input_wait, break_the_ring, have_messages_wait, reset]
)
def test_a_state_that_is_restored_is_saved_as_it_was(happens: Callable[[Guest], None], features: int) -> None:
    guest = Guest(features)
    happens(guest)
    saved = guest.board.state()
    copy = guest.board.snapshot([Port(is_console=True), Port("org.pyvmm.agent")])
    assert copy.state() == saved
    assert copy.ram == guest.board.ram
    reset(guest)
    Driver(guest.board, features).probe().open(1)
    assert copy.state() == saved


@pytest.mark.parametrize("features", FEATURES)
def test_ten_boards_go_on_from_the_middle_of_traffic_each_for_itself(features: int) -> None:
    guest = Guest(features, input_limit=20_000, buffers=2)
    guest.driver.open(1)
    data = pattern(30_000)
    sent = guest.port.send(data)
    assert 0 < guest.port.waiting_input < sent < len(data)
    guest.agent.room = 7
    guest.driver.write(1, b"a chain in the middle", 4)
    guest.driver.write(1, b" and one more", 2)
    assert guest.agent.data == b"a chain"
    received = bytes(guest.driver.received[1])
    original = guest.board
    for number in range(10):
        sink = Collector()
        port = Port("org.pyvmm.agent", sink, input_limit=20_000)
        board = original.snapshot([Port("", is_console=True), port])
        # The driver's own notes are part of the guest's memory.
        driver = Driver(board, features)
        vars(driver).update(
            {**vars(guest.driver), "board": board, "received": {0: bytearray(), 1: bytearray(received)}}
        )
        driver.buffers = dict(guest.driver.buffers)
        driver.rings = [
            type(ring)(**{**vars(ring), "board": board, "free": list(ring.free), "chains": dict(ring.chains)})
            for ring in guest.driver.rings
        ]
        assert board.line.level == original.line.level
        port.resume()
        driver.interrupt()
        assert sink.data == b" in the middle and one more"
        assert driver.received[1] == data[:sent]
        port.send(b"for %d" % number)
        driver.write(1, b"from %d" % number)
        driver.interrupt()
        assert driver.received[1][sent:] == b"for %d" % number
        assert sink.data.endswith(b"from %d" % number)
        board.check()


def test_a_state_of_other_ports_or_another_memory_is_refused() -> None:
    board = Guest().board
    mmio, console = board.state()
    with pytest.raises(ValueError, match="2 ports"):
        VirtioConsole([Port()], console)
    with pytest.raises(ValueError, match="6 queues"):
        Board([Port()], state=(mmio, Board([Port()]).state()[1]))
    with pytest.raises(ValueError, match="not in a memory"):
        Board([Port(), Port()], memory=bytes(PAGE), state=(mmio, console))


@pytest.mark.parametrize("count", [0, 32])
def test_the_number_of_ports_is_limited(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} ports"):
        VirtioConsole([Port() for _ in range(count)])


@pytest.mark.parametrize("features", FEATURES)
def test_1_mib_needs_one_notification_for_each_ring_full_of_buffers(features: int) -> None:
    guest = Guest(features)
    ring = guest.driver.rings[5]
    data = pattern(1 << 20)
    guest.board.ram[0x200000:0x300000] = data
    kicks = ring.kicks
    for start in range(0, 256, ring.size):
        for page in range(start, start + ring.size):
            ring.add([(0x200000 + page * PAGE, PAGE)])
        ring.kick()
        ring.collect()
    assert guest.agent.data == data
    assert ring.kicks - kicks == 2


@pytest.mark.parametrize("features", FEATURES)
def test_input_needs_notifications_only_for_buffers_that_the_guest_did_not_have_yet(features: int) -> None:
    guest = Guest(features, buffers=128)
    guest.driver.open(1)
    data, kicks = pattern(1 << 20), guest.driver.rings[4].kicks
    sent = guest.port.send(data)
    assert sent == 128 * PAGE + (64 << 10)

    def send() -> None:
        nonlocal sent
        sent += guest.port.send(data[sent:])

    guest.port.on_room = send
    guest.driver.interrupt()
    assert guest.driver.received[1] == data
    assert guest.driver.rings[4].kicks - kicks <= 128
