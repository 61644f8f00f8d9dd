"""Guests with a kernel of their own: making a fork of one, and what an exit costs, with real guests."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.report import Bar, Case, Report, Series
from bench.rounds import interleave
from pyvmm.board.power import Ending, How
from pyvmm.board.teaching import find
from pyvmm.boot import layout
from pyvmm.host import Host
from pyvmm.kernel_guest import KernelGuest
from pyvmm.snapshot import Snapshot
from tests.board.programs import LOAD, announce, leave, mov, out, poke, program, repeat
from tests.board.virtio import AVAILABLE, NOTIFY, QUEUE_SIZE, TRANSMIT, console_program, ring

_ROUNDS = 300
_SECONDS = 0.5
_MIB = 1 << 20
_PAGE, _DATA = 4096, 0x800000
_MEMORY = 64 << 20
_FORK_NOTE = (
    "Kernel guests: a guest of 64 MiB with COM1, an I/O APIC, a virtio console and all of its processor's state, which "
    "stands at an OUT. Forks do not run."
)
_EXIT_NOTE = (
    "Exits of kernel guests: Python's part is the time in Board.handle_exit, timed from outside (which adds some "
    "0.15 µs); the whole is the guest's time for one exit with all that is around it, its own instructions included."
)


@pytest.fixture(scope="module")
def snapshot(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshot]:
    folder: Path = tmp_path_factory.mktemp("snapshot")
    demo = find("fork-demo")
    assert demo is not None
    with KernelGuest.boot(host, demo.image, memory=_MEMORY) as guest:
        guest.pause_when_announced()
        guest.run(10)
        guest.save(folder)
    with Snapshot.load(folder, host.processor) as loaded:
        yield loaded


def test_fork(
    benchmark: Any, host: Host, snapshot: Snapshot, report: Report, rounds: Callable[[int], int]
) -> None:  # fmt: skip
    alive: list[KernelGuest] = []
    destroyed: list[float] = []

    def destroy() -> dict[str, float]:
        begun = time.perf_counter()
        alive.pop().close()
        destroyed.append(time.perf_counter() - begun)
        return {}

    samples = interleave(
        benchmark, lambda: alive.append(KernelGuest.fork(host, snapshot)), rounds(_ROUNDS), after=destroy
    )
    ours = Series.of("kernel guest: fork", "ms", samples["ours"], 1e3)
    report.add(Case(ours, [], [Bar("p50 < 1 ms", ours.p50, 1, strict=True)], [_FORK_NOTE]))
    report.add(Case(Series.of("kernel guest: destroy a fork that has not run", "ms", destroyed, 1e3)))


def _run_timed(guest: KernelGuest, seconds: float) -> tuple[list[float], float]:
    """Seconds of each ``handle_exit``, and for one exit on the whole."""
    samples: list[float] = []
    serve, clock = guest.board.handle_exit, time.perf_counter

    def handle_exit(reason: int) -> bool:
        begun = clock()
        goes_on = serve(reason)
        samples.append(clock() - begun)
        return goes_on

    guest.run(0.05)  # warms up
    guest.board.handle_exit = handle_exit  # type: ignore[method-assign]
    begun = clock()
    guest.run(seconds)
    return samples, (clock() - begun) / len(samples)


_EXITS = {
    "OUT to COM1": repeat(out(layout.COM1, ord("x"))),
    "IN from COM1": repeat(mov("edx", layout.COM1 + 5) + b"\xec"),
    "read of a virtio register": repeat(mov("esi", layout.VIRTIO + 0x60) + LOAD[4]),
    "write to nobody's memory": repeat(poke(0xD800_0000, 0)),
}


@pytest.mark.parametrize("name", _EXITS)
def test_exits(host: Host, report: Report, rounds: Callable[[int], int], name: str) -> None:
    with KernelGuest.boot(host, program(_EXITS[name]), memory=_MEMORY, output_limit=1 << 40) as guest:
        samples, whole = _run_timed(guest, rounds(10) / 10 * _SECONDS)
    ours = Series.of(f"kernel guest: {name}, Python's part", "µs", samples, 1e6)
    report.add(Case(ours, [], [Bar("p50 < 15 µs", ours.p50, 15, strict=True)], [_EXIT_NOTE]))
    report.add(Case(Series.of(f"kernel guest: {name}, the whole", "µs", [whole], 1e6)))


def test_a_mebibyte_through_the_console(host: Host, report: Report, rounds: Callable[[int], int]) -> None:
    """In notifications of eight pages; each makes as many available as the queue of this guest has."""
    notifications = _MIB // (QUEUE_SIZE * _PAGE)
    # add word [avail.idx], 8; notify
    more = (
        b"\x66\x83\x04\x25" + (TRANSMIT + AVAILABLE + 2).to_bytes(4, "little") + bytes([QUEUE_SIZE]) + poke(NOTIFY, 1)
    )
    rates, exits = [], []
    for _ in range(rounds(20)):
        said = bytearray()
        image = program(console_program(), announce(), more * notifications, leave())
        with KernelGuest.boot(host, image, memory=_MEMORY, console=said.extend) as guest:
            ring(guest, [(_DATA + _PAGE * number, _PAGE) for number in range(QUEUE_SIZE)], available=False)
            page = bytes(range(256)) * (QUEUE_SIZE * _PAGE // 256)
            guest.machine.memory.view[_DATA : _DATA + len(page)] = page
            guest.pause_when_announced()
            assert guest.run(10) is None
            before, begun = guest.board.exits, time.perf_counter()
            assert guest.run(10) == Ending(How.EXIT, 0)
            rates.append(_MIB / (time.perf_counter() - begun) / 1e6)
            exits.append(guest.board.exits - before - 1)  # the last one is the exit code
            assert said == page * notifications
    name = "kernel guest: 1 MiB out by its virtio console"
    bars = [Bar(f"≤ {notifications} notifications", max(exits), notifications)]
    report.add(Case(Series.of(f"{name}, exits", "exits", exits), [], bars))
    report.add(Case(Series.of(name, "MB/s", rates)))
