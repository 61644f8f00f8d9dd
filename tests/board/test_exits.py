"""Accesses to ports and to memory that is not there, of every width, as real guests make them."""

import pytest

from pyvmm.board.power import Ending, How
from pyvmm.boot import layout
from pyvmm.devices.virtio.abi import virtio_mmio as mm
from tests.board.programs import (
    CLD,
    IN_DX,
    KEEP,
    LOAD,
    MEMORY,
    OUT_DX,
    REP_INS,
    REP_OUTS,
    RESULTS,
    STORE,
    fill,
    leave,
    mov,
    mov_rax,
    out,
    results,
)

pytestmark = pytest.mark.kvm

DONE = Ending(How.EXIT, 0)
SCRATCH, NOBODY = layout.COM1 + 7, 0x1234
NOWHERE = 0xD800_0000
DATA = RESULTS + 0x1000


class Recorder:
    """A device that remembers what is written and gives numbers that tell what was read."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(bytes(0xA0 + offset + index for index in range(size)), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self.writes.append((offset, size, value))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_port_is_written_and_read_in_every_width(boot, size):
    recorder = Recorder()
    guest = boot(mov("edi", RESULTS), out(0x500, 0x44332211, size), mov_rax(0), IN_DX[size], KEEP, leave())
    guest.board.ports.add(0x500, 8, recorder)
    assert guest.run(5) == DONE
    assert recorder.writes == [(0, size, 0x44332211 & (1 << 8 * size) - 1)]
    assert results(guest, 1) == [0xA3A2A1A0 & (1 << 8 * size) - 1]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_device_memory_is_written_and_read_in_every_width(boot, size):
    recorder = Recorder()
    guest = boot(
        *(mov("edi", NOWHERE), mov_rax(0x8877665544332211), STORE[size]),
        *(mov("esi", NOWHERE + 8), mov_rax(0), LOAD[size], mov("edi", RESULTS), STORE[8], leave()),
    )
    guest.board.mmio.add(NOWHERE, 16, recorder)
    assert guest.run(5) == DONE
    assert recorder.writes == [(0, size, 0x8877665544332211 & (1 << 8 * size) - 1)]
    assert results(guest, 1) == [0xAFAEADACABAAA9A8 & (1 << 8 * size) - 1]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_port_of_nobody_reads_all_ones_and_is_counted(boot, size):
    guest = boot(
        *(mov("edi", RESULTS), out(NOBODY, 5, size), mov_rax(0), mov("edx", NOBODY), IN_DX[size], KEEP, leave()),
    )
    assert guest.run(5) == DONE
    assert results(guest, 1) == [(1 << 8 * size) - 1]
    assert (guest.board.ports.unclaimed_reads, guest.board.ports.unclaimed_writes) == (1, 1)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_memory_of_nobody_reads_all_ones_and_is_counted(boot, size):
    guest = boot(
        *(mov("edi", NOWHERE), mov_rax(5), STORE[size]),
        *(mov("esi", NOWHERE), mov_rax(0), LOAD[size], mov("edi", RESULTS), STORE[8], leave()),
    )
    assert guest.run(5) == DONE
    assert results(guest, 1) == [(1 << 8 * size) - 1]
    assert (guest.board.mmio.unclaimed_reads, guest.board.mmio.unclaimed_writes) == (1, 1)


def test_the_last_port_is_a_port_of_nobody_in_every_width(boot):
    reads = [mov_rax(0) + IN_DX[size] + KEEP for size in (1, 2, 4)]
    guest = boot(mov("edi", RESULTS), mov("edx", 0xFFFF), *reads, *[OUT_DX[size] for size in (1, 2, 4)], leave())
    assert guest.run(5) == DONE
    assert results(guest, 3) == [0xFF, 0xFFFF, 0xFFFFFFFF]


def test_a_wide_access_to_narrow_registers_reaches_each_of_them(boot):
    # LCR, MCR: 0x03 and 0x08 by one OUT; LSR, MSR and what comes before and after by one IN.
    guest = boot(out(layout.COM1 + 3, 0x0B1B, 2), mov("edi", RESULTS), mov_rax(0), IN_DX[4], KEEP, leave())
    assert guest.run(5) == DONE
    assert results(guest, 1)[0] & 0xFFFF == 0x0B1B
    assert results(guest, 1)[0] >> 16 & 0xFF == 0x60


def test_an_access_across_the_end_of_a_device_is_divided(boot):
    # The scratch register is the last of COM1; what follows is nobody's.
    guest = boot(out(SCRATCH, 0xAABBCC5A, 4), mov("edi", RESULTS), mov_rax(0), IN_DX[4], KEEP, leave())
    assert guest.run(5) == DONE
    assert results(guest, 1) == [0xFFFFFF5A]


def test_an_access_across_two_pages_of_devices_reaches_both(boot):
    first, second = Recorder(), Recorder()
    middle = NOWHERE + 0x1000
    guest = boot(
        *(mov("edi", middle - 2), mov_rax(0x44332211), STORE[4]),
        *(mov("esi", middle - 2), mov_rax(0), LOAD[4], mov("edi", RESULTS), STORE[8], leave()),
    )
    guest.board.mmio.add(middle - 16, 16, first)
    guest.board.mmio.add(middle, 16, second)
    assert guest.run(5) == DONE
    assert (first.writes, second.writes) == ([(14, 2, 0x2211)], [(0, 2, 0x4433)])
    assert results(guest, 1) == [0xA1A0AFAE]


def test_an_access_from_memory_into_a_hole_is_served(boot):
    end = MEMORY
    guest = boot(mov("esi", end - 2), mov_rax(0), LOAD[4], mov("edi", RESULTS), STORE[8], leave())
    fill(guest, end - 2, b"\x11\x22")
    assert guest.run(5) == DONE
    assert results(guest, 1) == [0xFFFF2211]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_string_output_goes_item_by_item(boot, size):
    recorder = Recorder()
    guest = boot(CLD, mov("esi", DATA), mov("ecx", 5), mov("edx", 0x500), REP_OUTS[size], leave())
    guest.board.ports.add(0x500, 8, recorder)
    data = bytes(range(1, 1 + 5 * size))
    fill(guest, DATA, data)
    assert guest.run(5) == DONE
    items = [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]
    assert recorder.writes == [(0, size, item) for item in items]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_string_input_fills_memory_and_no_more(boot, size):
    guest = boot(CLD, mov("edi", DATA), mov("ecx", 5), mov("edx", 0x500), REP_INS[size], leave())
    guest.board.ports.add(0x500, 8, Recorder())
    assert guest.run(5) == DONE
    item = bytes(0xA0 + index for index in range(size))
    assert bytes(guest.machine.memory.view[DATA : DATA + 5 * size + 2]) == 5 * item + b"\0\0"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_string_io_with_nobody_is_ones_and_nothing(boot, size):
    guest = boot(
        *(CLD, mov("edi", DATA), mov("ecx", 3000), mov("edx", NOBODY), REP_INS[size]),
        *(mov("esi", DATA), mov("ecx", 300), REP_OUTS[size], leave()),
    )
    assert guest.run(20) == DONE
    assert bytes(guest.machine.memory.view[DATA : DATA + 3000 * size + 1]) == b"\xff" * (3000 * size) + b"\0"
    assert (guest.board.ports.unclaimed_reads, guest.board.ports.unclaimed_writes) == (3000, 300)


def test_string_output_to_the_serial_port_is_what_it_says(boot):
    said = bytearray()
    guest = boot(
        *(CLD, mov("esi", DATA), mov("ecx", 2000), mov("edx", layout.COM1), REP_OUTS[1], leave()), console=said.extend
    )
    text = bytes(range(256)) * 8
    fill(guest, DATA, text)
    assert guest.run(10) == DONE
    assert said == text[:2000]


def test_a_string_moves_between_memory_and_a_device(boot):
    # movs from device memory is read and written in one instruction.
    guest = boot(CLD, mov("esi", NOWHERE), mov("edi", DATA), mov("ecx", 2), b"\xf3\xa5", leave())
    guest.board.mmio.add(NOWHERE, 16, Recorder())
    assert guest.run(5) == DONE
    assert bytes(guest.machine.memory.view[DATA : DATA + 8]) == bytes(range(0xA0, 0xA8))


def test_a_register_of_virtio_is_read_by_a_guest(boot):
    guest = boot(
        *(mov("esi", layout.VIRTIO + mm.VIRTIO_MMIO_MAGIC_VALUE), mov_rax(0), LOAD[4], mov("edi", RESULTS), KEEP),
        *(mov_rax(0), LOAD[1], KEEP, mov_rax(0), LOAD[8], KEEP, leave()),
    )
    assert guest.run(5) == DONE
    assert results(guest, 3) == [int.from_bytes(b"virt", "little"), 0, 0]
    assert guest.board.virtio[0].violations == 2


def test_every_exit_is_counted(boot):
    guest = boot(out(NOBODY, 0) * 10, leave())
    guest.run(5)
    assert guest.board.exits == 11
