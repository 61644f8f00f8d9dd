"""What a console device and its driver tell each other of ports, and what a driver must not say."""

import struct

import pytest

from pyvmm.devices.virtio.abi import virtio_console as vc
from pyvmm.devices.virtio.abi import virtio_mmio as mm
from pyvmm.devices.virtio.console import VirtioConsole
from tests.devices.console_guest import Guest
from tests.devices.virtio_driver import ALL, MULTIPORT, PLAIN, Board, Collector, Driver, Port

WRITE = 2


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


@pytest.mark.parametrize("count", [0, 32])
def test_the_number_of_ports_is_limited(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} ports"):
        VirtioConsole([Port() for _ in range(count)])
