"""A console device that goes on from a saved state, in the middle of traffic too."""

from collections.abc import Callable

import msgspec
import pytest

from pyvmm.devices.virtio.abi import virtio_mmio as mm
from pyvmm.devices.virtio.console import VirtioConsole
from tests.devices.console_guest import FEATURES, Guest, pattern
from tests.devices.virtio_driver import PAGE, Board, Collector, Driver, Port


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
