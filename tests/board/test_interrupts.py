"""Interrupts from a device's line through the I/O APIC to a guest's handler, and what is typed at COM1."""

import threading
import time

import pytest

from pyvmm.board.power import Ending, How
from pyvmm.board.teaching import find
from pyvmm.boot import layout
from tests.board.programs import (
    APIC_LVTT,
    APIC_ON,
    APIC_TDCR,
    APIC_TMICT,
    CLD,
    CLI,
    END_OF_INTERRUPT,
    HLT,
    IRETQ,
    LAPIC,
    POP_RAX,
    PUSH_RAX,
    REP_INS,
    RESULTS,
    SLEEP,
    SPIN,
    announce,
    leave,
    mov,
    out,
    poke,
    results,
    route,
    wrmsr,
)

pytestmark = pytest.mark.kvm

VECTOR, LEVEL, MASKED = 0x40, 1 << 15, 1 << 16
EXIT_0 = Ending(How.EXIT, 0)
#: Read the UART until it has no more, each byte going to [RDI], as a handler; then EOI.
RECEIVE = (
    PUSH_RAX + b"\x52"  # push rdx
    + b"\x66\xba\xfd\x03\xec\xa8\x01\x74\x08"  # l: mov dx, LSR; in al, dx; test al, 1; jz done
    + b"\x66\xba\xf8\x03\xec\xaa\xeb\xef"  # mov dx, RX; in al, dx; stosb; jmp l; done:
    + b"\x53" + END_OF_INTERRUPT + b"\x5b"  # with rbx kept
    + b"\x5a" + POP_RAX + IRETQ  # pop rdx
)  # fmt: skip
#: inc dword [RESULTS]
COUNT = b"\xff\x04\x25" + RESULTS.to_bytes(4, "little")
TICK = b"\x53" + COUNT + END_OF_INTERRUPT + b"\x5b" + IRETQ
TYPED = RESULTS + 0x1000
ENABLE_RECEIVE = out(layout.COM1 + 1, 1)


def wait_for(address: int, value: int) -> bytes:
    """Sleep until the 32-bit number at ``address`` is at least ``value``."""
    # l: cli; cmp dword [address], value; jae done; sti; hlt; jmp l
    body = b"\xfa\x81\x3c\x25" + address.to_bytes(4, "little") + value.to_bytes(4, "little")
    return body + b"\x73\x04\xfb\xf4" + b"\xeb" + bytes([256 - len(body) - 6])


@pytest.mark.parametrize("mode", [0, LEVEL], ids=["edge", "level"])
def test_an_interrupt_of_com1_reaches_the_guest(boot, mode):
    guest = boot(
        *(APIC_ON, route(layout.COM1_IRQ, VECTOR | mode), ENABLE_RECEIVE, mov("edi", TYPED), SLEEP),
        handlers={VECTOR: RECEIVE},
    )
    guest.send(b"some words")
    guest.run(0.3)
    assert bytes(guest.machine.memory.view[TYPED : TYPED + 11]) == b"some words\0"


def test_a_level_line_interrupts_again_until_it_is_served(boot):
    # The handler leaves the VM: software KVM tells of the end of an interrupt only when something makes it come round.
    handler = b"\x53" + PUSH_RAX + COUNT + END_OF_INTERRUPT + b"\xe6\xf5" + POP_RAX + b"\x5b" + IRETQ
    guest = boot(APIC_ON, route(layout.COM1_IRQ, VECTOR | LEVEL), ENABLE_RECEIVE, SLEEP, handlers={VECTOR: handler})
    guest.send(b"x")  # which nobody reads
    guest.run(0.3)
    assert results(guest, 1, 4)[0] >= 10


def test_an_edge_interrupts_once(boot):
    guest = boot(
        APIC_ON, route(layout.COM1_IRQ, VECTOR), ENABLE_RECEIVE, SLEEP, handlers={VECTOR: TICK}
    )  # fmt: skip
    guest.send(b"x")
    guest.run(0.3)
    assert results(guest, 1, 4) == [1]


def test_a_masked_level_line_interrupts_when_it_is_unmasked(boot):
    handler = b"\x53" + PUSH_RAX + COUNT + out(layout.COM1 + 1, 0) + END_OF_INTERRUPT + POP_RAX + b"\x5b" + IRETQ
    guest = boot(
        *(APIC_ON, route(layout.COM1_IRQ, VECTOR | LEVEL | MASKED), ENABLE_RECEIVE),
        *(b"\xe6\xf5", route(layout.COM1_IRQ, VECTOR | LEVEL), SLEEP),
        handlers={VECTOR: handler},
    )
    guest.pause_when_announced()
    guest.send(b"x")
    guest.run(1)
    before = results(guest, 1, 4)
    guest.run(0.3)
    assert (before, results(guest, 1, 4)) == ([0], [1])


@pytest.mark.parametrize("destination", [5, 0xFF], ids=["another processor", "everybody"])
def test_an_interrupt_that_no_local_apic_takes_is_lost(boot, destination):
    off = wrmsr(0x1B, LAPIC)  # IA32_APIC_BASE without its enable bit
    guest = boot(off, route(layout.COM1_IRQ, VECTOR, destination), out(layout.COM1 + 1, 2), leave())
    assert guest.run(5) == EXIT_0


@pytest.mark.parametrize("delivery", range(8))
def test_no_delivery_mode_breaks_the_monitor(boot, delivery):
    guest = boot(APIC_ON, route(layout.COM1_IRQ, VECTOR | delivery << 8), out(layout.COM1 + 1, 2), leave())
    ending = guest.run(5)
    assert ending == EXIT_0 or ending.how is How.CRASHED


def test_the_timer_of_the_local_apic_wakes_a_halted_guest(boot):
    guest = boot(
        *(APIC_ON, poke(LAPIC + APIC_TDCR, 3), poke(LAPIC + APIC_LVTT, 1 << 17 | VECTOR)),
        *(poke(LAPIC + APIC_TMICT, 100_000), wait_for(RESULTS, 10), leave()),
        handlers={VECTOR: TICK},
    )
    assert guest.run(10) == EXIT_0


# What is typed


def test_much_that_is_typed_at_once_arrives_whole(boot):
    """The host keeps what the UART does not take yet, and each piece is answered once, in order."""
    size, place = 128 << 10, 0x400000
    # l: mov dx, LSR; in al, dx; test al, 1; jz l; mov dx, RX; mov ecx, 1024; rep insb; cmp edi, end; jb l
    body = b"\x66\xba\xfd\x03\xec\xa8\x01\x74\xf7\x66\xba\xf8\x03" + mov("ecx", 1024) + REP_INS[1]
    body += b"\x81\xff" + (place + size).to_bytes(4, "little")
    fifo = out(layout.COM1 + 2, 1) + announce()  # turning it on loses what was received
    guest = boot(fifo, CLD, mov("edi", place), body + b"\x72" + bytes([256 - len(body) - 2]), leave())
    data = bytes(range(251)) * (size // 251 + 1)
    answers = []
    guest.pause_when_announced()
    assert guest.run(5) is None
    for start in range(0, size, size // 16):
        guest.send(data[start : start + size // 16], lambda number=start: answers.append(number))
    assert guest.run(60) == EXIT_0
    assert guest.machine.memory.view[place : place + size] == data[:size]
    assert answers == list(range(0, size, size // 16))


def test_an_echo_of_what_is_typed_is_what_was_typed(boot):
    # l: mov dx, LSR; in al, dx; test al, 1; jz l; mov dx, RX; in al, dx; out dx, al; jmp l
    echo = b"\x66\xba\xfd\x03\xec\xa8\x01\x74\xf7\x66\xba\xf8\x03\xec\xee\xeb\xef"
    data = bytes(range(256)) * 40
    said = bytearray()

    def console(piece: bytes) -> None:
        said.extend(piece)
        if len(said) == len(data):
            guest.board.end(EXIT_0)

    guest = boot(echo, console=console)
    guest.send(data)
    assert guest.run(30) == EXIT_0
    assert said == data


def test_another_thread_types_while_the_guest_runs(boot):
    said = bytearray()
    guest = boot(image=find("echo").image, console=said.extend)

    def type_lines() -> None:
        for line in (b"one\n", b"two\n", b"quit\n"):
            taken = threading.Event()
            guest.send(line, taken.set)
            assert taken.wait(10)

    thread = threading.Thread(target=type_lines)
    thread.start()
    try:
        assert guest.run(20) == EXIT_0
    finally:
        thread.join()
    assert said == b"ONE\nTWO\nbye\n"


def test_what_is_typed_before_the_run_is_there_at_once(boot):
    guest = boot(mov("edx", layout.COM1), b"\xec", mov("edi", RESULTS), b"\x88\x07", leave())
    guest.send(b"k")
    assert guest.run(5) == EXIT_0
    assert results(guest, 1, 1) == [ord("k")]


def test_work_for_a_guest_that_spins_is_done(boot):
    guest = boot(SPIN)
    done = threading.Event()
    timer = threading.Timer(0.1, guest.board.call, [done.set])
    timer.start()
    guest.run(1)
    timer.join()
    assert done.is_set()


def test_sleeping_costs_the_host_nothing(boot):
    guest = boot(APIC_ON, SLEEP)
    guest.run(0.01)
    before = time.thread_time()
    guest.run(1)
    assert time.thread_time() - before < 0.05


def test_halting_with_interrupts_off_is_the_end(boot):
    ending = boot(CLI, HLT).run(10)
    assert ending.how is How.HALTED
    assert "nothing can wake it" in ending.message


def test_what_is_no_bytes_is_refused_where_it_is_sent(boot):
    with pytest.raises(TypeError):
        boot(SPIN).send("text")
