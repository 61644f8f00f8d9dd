"""The ports of a console device: their bytes, and back-pressure both ways."""

import pytest

from pyvmm.devices.virtio.abi import virtio_mmio as mm
from tests.devices.console_guest import FEATURES, Guest, pattern
from tests.devices.virtio_driver import ALL, INDIRECT, PAGE, PLAIN, Board, Driver, Port


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
