"""However a guest ends, it is told clearly, in time, and with what its console said last."""

import random
import threading
import time
import tracemalloc

import pytest

from pyvmm.board.power import Ending, How
from pyvmm.board.teaching import find
from pyvmm.boot import layout
from tests.board.programs import (
    CLD,
    CLI,
    HLT,
    REP_INS,
    REP_OUTS,
    RESULTS,
    SLEEP,
    SPIN,
    UD2,
    fill,
    leave,
    mov,
    out,
    poke,
    repeat,
    route,
)
from tests.board.virtio import NOTIFY, console_program, ring

pytestmark = pytest.mark.kvm

HELLO = out(layout.COM1, ord("h")) + out(layout.COM1, ord("i"))
#: jmp to the address in RAX
JUMP = b"\xff\xe0"


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_an_exit_code_is_the_end(boot, code):
    guest = boot(HELLO, leave(code))
    assert guest.run(5) == Ending(How.EXIT, code)
    assert guest.record.last_words() == "hi"


def test_power_off_by_the_register_that_acpi_names(boot):
    guest = boot(out(layout.SLEEP_CONTROL_PORT, layout.SLEEP_ENABLE | layout.SLEEP_TYPE_S5 << 2), SPIN)
    assert guest.run(5) == Ending(How.POWER_OFF, 0)


@pytest.mark.parametrize("value", [0, layout.SLEEP_TYPE_S5 << 2, layout.SLEEP_ENABLE, layout.SLEEP_ENABLE | 3 << 2])
def test_other_values_in_that_register_are_no_end(boot, value):
    assert boot(out(layout.SLEEP_CONTROL_PORT, value), leave(9)).run(5) == Ending(How.EXIT, 9)


RESETS = {
    "keyboard controller": out(layout.KEYBOARD_RESET_PORT, layout.KEYBOARD_RESET),
    "acpi": out(layout.RESET_PORT, layout.RESET),
    "acpi, as the last byte of a wide access": out(layout.SLEEP_CONTROL_PORT, layout.RESET << 16, 4),
}


@pytest.mark.parametrize("code", RESETS.values(), ids=RESETS)
def test_a_reset_is_an_end(boot, code):
    assert boot(code, SPIN).run(5) == Ending(How.RESET, 0)


def test_a_jump_to_where_the_firmware_begins_is_a_reset(boot):
    # Real mode, jmp 0xf000:0xfff0
    assert boot(image=b"\xea\xf0\xff\x00\xf0").run(5) == Ending(How.RESET, 0)


def test_the_first_ending_counts(boot):
    # A 32-bit write to the port of exit codes: its second byte says that it is time for a snapshot.
    guest = boot(out(layout.EXIT_PORT, 0x0203, 4), leave(5))
    assert guest.run(5) == Ending(How.EXIT, 3)
    assert guest.run(5) == Ending(How.EXIT, 3)


CRASHES = {
    "an undefined instruction without handlers": (UD2, "triple fault"),
    "a jump into device memory": (mov("eax", layout.VIRTIO) + JUMP, "at 0xd0000000"),
    "a jump to nothing": (mov("eax", 0xC000_0000) + JUMP, "at 0xc0000000"),
    "zeros for code": (mov("eax", RESULTS + 0x80000) + b"\x31\xc0\x48\x89\xc4" + JUMP, "0x"),
    "an interrupt to a handler that is not there": (route(4, 0x40) + poke(0xFEE000F0, 0x1FF) + out(0x3F9, 2) + SLEEP,
                                                    "triple fault"),
}  # fmt: skip


@pytest.mark.parametrize("code, message", CRASHES.values(), ids=CRASHES)
def test_a_processor_that_cannot_go_on_is_a_crash_that_says_why(boot, code, message):
    guest = boot(HELLO, code)
    ending = guest.run(10)
    assert ending is not None and (ending.how, ending.code) == (How.CRASHED, 1)
    assert message in ending.message
    assert guest.record.last_words() == "hi"
    assert guest.run(10) == ending


@pytest.mark.parametrize("seed", range(8))
def test_no_garbage_breaks_the_monitor(boot, seed):
    guest = boot(random.Random(seed).randbytes(4096))
    ending = guest.run(0.5)
    assert ending is not None and ending.how in (How.CRASHED, How.TIMEOUT, How.HALTED, How.EXIT)


# What must be stopped

ENDLESS = {
    "spins": SPIN,
    "sleeps": SLEEP,
    "floods a port of nobody": repeat(out(0x1234, 0)),
    "reads a port of nobody in strings": CLD + repeat(mov("edi", RESULTS) + mov("ecx", 0x10000) + REP_INS[4]),
    "a string for ever": CLD + mov("ecx", 0xFFFFFFFF) + mov("edx", 0x1234) + mov("esi", RESULTS) + REP_OUTS[1],
    "reads from a hole": repeat(mov("esi", 0xD8000000) + b"\x48\x8b\x06"),
    "changes routes": repeat(route(4, 0x8040) + route(4, 0x10040)),
    "asks for snapshots": repeat(b"\xe6\xf5"),
}


@pytest.mark.parametrize("code", ENDLESS.values(), ids=ENDLESS)
def test_a_guest_without_end_stops_at_its_timeout(boot, code):
    guest = boot(code)
    begun = time.monotonic()
    ending = guest.run(0.3)
    assert time.monotonic() - begun < 2
    assert ending == Ending(How.TIMEOUT, 1, "not ended after 0.3 s")


@pytest.mark.parametrize("code", ENDLESS.values(), ids=ENDLESS)
def test_a_guest_without_end_is_stopped_from_another_thread(boot, code):
    guest = boot(code)
    timer = threading.Timer(0.1, guest.stop)
    timer.start()
    ending = guest.run(60)
    timer.join()
    assert ending == Ending(How.STOPPED, 1, "stopped by the host")


def test_a_guest_that_timed_out_can_go_on(boot):
    # l: cmp byte [RESULTS], 0; je l
    guest = boot(b"\x80\x3c\x25" + RESULTS.to_bytes(4, "little") + b"\x00\x74\xf6", leave(4))
    assert guest.run(0.05).how is How.TIMEOUT
    fill(guest, RESULTS, b"\x01")
    assert guest.run(30) == Ending(How.EXIT, 4)


@pytest.mark.parametrize("timeout", [None, float("inf"), 1e30])
def test_there_need_be_no_timeout(boot, timeout):
    assert boot(leave(2)).run(timeout) == Ending(How.EXIT, 2)


def test_no_time_at_all_is_a_timeout(boot):
    assert boot(SPIN).run(0).how is How.TIMEOUT


# Output without end


def test_a_flood_of_the_serial_port_ends_at_the_limit(boot):
    guest = boot(image=find("flood").image, output_limit=20_000)
    ending = guest.run(60)
    assert ending is not None and ending.how is How.OUTPUT_LIMIT
    assert guest.record.count == 20_000


def test_a_flood_of_the_virtio_console_ends_at_the_limit_and_leaves_memory_flat(boot):
    """All of the guest's memory is offered again and again, as buffers of one notification."""
    guest = boot(console_program(), poke(NOTIFY, 1), CLI, HLT, output_limit=64 << 20)
    ring(guest, [(0, 12 << 20)] * 8)
    tracemalloc.start()
    ending = guest.run(60)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ending is not None and ending.how is How.OUTPUT_LIMIT
    assert ending.message == "it wrote more than 64 MiB to its consoles"
    assert guest.record.count == 64 << 20
    assert peak < 1 << 20
