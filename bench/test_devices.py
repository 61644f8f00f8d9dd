"""What a bus and a virtio device need for an exit, in this process alone: no KVM, no guest, no way there and back."""

import time
from collections.abc import Callable

from bench.report import Bar, Case, Report, Series
from pyvmm.devices.virtio.abi import virtio_mmio as mm
from tests.devices.virtio_driver import ALL, BASE, PAGE, Board, Collector, Driver, Port, Ring

_ROUNDS = 200
#: Exits that one sample is the mean of.
_EXITS = 100
_MIB = 1 << 20
_DATA = 0x200000
_NOTE = (
    "Devices: from the call of Bus.read or Bus.write until it returns, rings and buffers laid out before. A "
    "notification of 4 bytes reads one descriptor, calls the sink, gives the buffer back and raises the interrupt. "
    "1 MiB is 256 buffers of 4 KiB, 128 to a queue, so two notifications; the sink copies them into a bytearray."
)


def _exits(board: Board, rounds: int, exit_once: Callable[[], object], before: Callable[[], object]) -> list[float]:
    """Seconds for one exit, ``before`` not counted."""
    samples = []
    for _ in range(rounds):
        spent = 0.0
        for _ in range(_EXITS):
            before()
            begun = time.perf_counter()
            exit_once()
            spent += time.perf_counter() - begun
        samples.append(spent / _EXITS)
    return samples


def _nothing() -> None:
    pass


def _guest() -> tuple[Board, Driver, Collector]:
    sink = Collector()
    board = Board([Port("", Collector(), is_console=True), Port("agent", sink)])
    driver = Driver(board, ALL).probe(buffers=0)
    driver.open(1)
    board.ram[_DATA : _DATA + _MIB] = bytes(range(256)) * (_MIB // 256)
    return board, driver, sink


def test_exits(report: Report, rounds: Callable[[int], int]) -> None:
    board, driver, sink = _guest()
    ring, count = driver.rings[5], rounds(_ROUNDS)
    read, write = board.bus.read, board.bus.write
    status, notify = BASE + mm.VIRTIO_MMIO_INTERRUPT_STATUS, BASE + mm.VIRTIO_MMIO_QUEUE_NOTIFY
    ring.descriptor(0, _DATA, 4)

    def make_available() -> None:
        ring.make_available(0)
        ring.collect()
        write(BASE + mm.VIRTIO_MMIO_INTERRUPT_ACK, 4, 3)
        sink.data.clear()

    measured = [
        ("virtio: read of a register", lambda: read(status, 4), _nothing),
        ("virtio: notification with one buffer of 4 bytes", lambda: write(notify, 4, 5), make_available),
        ("virtio: notification with nothing to do", lambda: write(notify, 4, 5), _nothing),
    ]
    for name, exit_once, before in measured:
        series = Series.of(name, "µs", _exits(board, count, exit_once, before), 1e6)
        report.add(Case(series, [], [Bar("p50 < 15 µs", series.p50, 15, strict=True)], [_NOTE]))


def _move(ring: Ring, writable: bool, transfer: Callable[[int], None]) -> tuple[float, int]:
    """Seconds and notifications for 1 MiB, in rings full of pages."""
    seconds, kicks = 0.0, ring.kicks
    for start in range(0, _MIB, ring.size * PAGE):
        for place in range(ring.size):
            ring.add([(_DATA + start + place * PAGE, PAGE)], writable)
        begun = time.perf_counter()
        transfer(start)
        seconds += time.perf_counter() - begun
        ring.collect()
    return seconds, ring.kicks - kicks


def test_megabytes(report: Report, rounds: Callable[[int], int]) -> None:
    board, driver, sink = _guest()
    data = bytes(board.ram[_DATA : _DATA + _MIB])
    out, into, port = driver.rings[5], driver.rings[4], board.ports[1]
    rates: dict[str, list[float]] = {"out of": [], "into": []}

    def send(start: int) -> None:
        into.kick()
        assert port.send(memoryview(data)[start : start + into.size * PAGE]) == into.size * PAGE

    for _ in range(rounds(_ROUNDS // 4)):
        sink.data.clear()
        seconds, kicks = _move(out, False, lambda _: out.kick())
        assert (sink.data, kicks) == (data, 2)
        rates["out of"].append(_MIB / seconds / 1e6)
        board.ram[_DATA : _DATA + _MIB] = bytes(_MIB)
        seconds, kicks = _move(into, True, send)
        assert board.ram[_DATA : _DATA + _MIB] == data
        assert kicks <= 1
        rates["into"].append(_MIB / seconds / 1e6)
    for way, values in rates.items():
        report.add(Case(Series.of(f"virtio-console: 1 MiB {way} the guest", "MB/s", values), notes=[_NOTE]))
