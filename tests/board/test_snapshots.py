"""Whatever a guest is doing, its forks go on with it."""

import struct
import time

import pytest

from pyvmm.board.power import Ending, How
from pyvmm.boot import layout
from tests.board.programs import (
    APIC_LVTT,
    APIC_ON,
    APIC_TDCR,
    APIC_TMICT,
    CLI,
    END_OF_INTERRUPT,
    HLT,
    IRETQ,
    KEEP,
    LAPIC,
    LOAD,
    POP_RAX,
    PUSH_RAX,
    RDTSC,
    RESULTS,
    SLEEP,
    SPIN,
    STORE,
    announce,
    leave,
    mov,
    mov_rax,
    out,
    poke,
    results,
    route,
    wrmsr,
)

pytestmark = pytest.mark.kvm

VECTOR, LEVEL, ONE_SHOT, PERIODIC, DEADLINE = 0x40, 1 << 15, 0, 1 << 17, 2 << 17
EXIT_0 = Ending(How.EXIT, 0)
COUNT = b"\xff\x04\x25" + RESULTS.to_bytes(4, "little")
TICK = b"\x53" + PUSH_RAX + COUNT + END_OF_INTERRUPT + POP_RAX + b"\x5b" + IRETQ
NUMBERS = 0x600000


def timer(mode: int, count: int) -> bytes:
    divisor = poke(LAPIC + APIC_TDCR, 0xB)  # by 1: nanoseconds
    return divisor + poke(LAPIC + APIC_LVTT, mode | VECTOR) + poke(LAPIC + APIC_TMICT, count)


def paused(guest):
    guest.pause_when_announced()
    assert guest.run(10) is None
    return guest


# The processor


def test_general_registers_survive(boot, fork):
    values = [0x1111_0000_0000_0000 * number + number for number in range(1, 9)]
    # mov r8..r15, imm64; announce; mov [rdi], r8..r15 each
    load = b"".join(b"\x49" + bytes([0xB8 + number]) + struct.pack("<Q", value) for number, value in enumerate(values))
    store = b"".join(b"\x4c\x89" + bytes([0x47 + 8 * number, 8 * number]) for number in range(8))
    guest = paused(boot(mov("edi", RESULTS), load, announce(), store, leave()))
    for twin in fork(guest, 2):
        assert twin.run(5) == EXIT_0
        assert results(twin, 8) == values


def test_segments_of_real_mode_survive(boot, fork):
    # mov ax, 0x1234; mov ds, ax; mov ax, 0x2000; mov ss, ax; mov sp, 0x100; out 0xf5, al; push ds; mov [0], sp
    code = b"\xb8\x34\x12\x8e\xd8\xb8\x00\x20\x8e\xd0\xbc\x00\x01\xe6\xf5\x1e\x89\x26\x00\x00\xb0\x00\xe6\xf4"
    guest = paused(boot(image=code))
    (twin,) = fork(guest)
    assert twin.run(5) == EXIT_0
    memory = twin.machine.memory.view
    assert bytes(memory[0x200FE:0x20100]) == b"\x34\x12"
    assert bytes(memory[0x12340:0x12342]) == b"\xfe\x00"


def test_model_specific_registers_survive(boot, fork):
    star, lstar, gs = 0xC000_0081, 0xC000_0082, 0xC000_0102
    guest = paused(boot(wrmsr(star, 0x23 << 48), wrmsr(lstar, 0x1234_5678), wrmsr(gs, 0x7654_3210), announce(), SPIN))
    (twin,) = fork(guest)
    assert twin.machine.vcpu.get_msrs([star, lstar, gs]) == {star: 0x23 << 48, lstar: 0x12345678, gs: 0x76543210}


def test_vector_registers_survive(boot, fork, host):
    guest = paused(boot(announce(), SPIN))
    area = bytearray(guest.machine.vcpu.get_xsave())
    area[512] |= 7  # XSTATE_BV: x87, SSE, AVX
    area[160:176], area[576:592] = b"sixteen of XMM0!", b"upper half, YMM0"
    guest.machine.vcpu.set_xsave(area)
    if host.xcr0 & 4:
        xcrs = guest.machine.vcpu.get_xcrs()
        xcrs.xcrs[0].value = 7
        guest.machine.vcpu.set_xcrs(xcrs)
    (twin,) = fork(guest)
    copy = twin.machine.vcpu.get_xsave()
    assert copy[160:176] == b"sixteen of XMM0!"
    if host.xcr0 & 4:
        assert copy[576:592] == b"upper half, YMM0"
        assert twin.machine.vcpu.get_xcrs().xcrs[0].value == 7


def test_a_vector_register_is_used_by_a_fork(boot, fork):
    load, store = b"\xf3\x0f\x6f\x06", b"\xf3\x0f\x7f\x07"  # movdqu xmm0, [rsi]; movdqu [rdi], xmm0
    # CR4.OSFXSR and CR0 without EM: mov rax, cr4; or eax, 0x200; mov cr4, rax
    enable = b"\x0f\x20\xe0\x0d\x00\x02\x00\x00\x0f\x22\xe0"
    source = RESULTS + 0x100
    guest = boot(enable, mov("esi", source), load, announce(), mov("edi", RESULTS), store, leave())
    guest.machine.memory.view[source : source + 16] = b"sixteen of XMM0!"
    for twin in fork(paused(guest), 2):
        twin.machine.memory.view[source : source + 16] = bytes(16)
        assert twin.run(5) == EXIT_0
        assert bytes(twin.machine.memory.view[RESULTS : RESULTS + 16]) == b"sixteen of XMM0!"


def test_debug_registers_survive(boot, fork):
    set_dr = mov("eax", 0x12345678) + b"\x0f\x23\xc0" + mov("eax", 0x23456789) + b"\x0f\x23\xd8"  # DR0, DR3
    get_dr = b"\x0f\x21\xc0" + KEEP + b"\x0f\x21\xd8" + KEEP
    guest = paused(boot(set_dr, announce(), mov("edi", RESULTS), get_dr, leave()))
    (twin,) = fork(guest)
    assert twin.run(5) == EXIT_0
    assert results(twin, 2) == [0x12345678, 0x23456789]


def test_a_read_that_was_not_finished_is(boot, fork):
    """The guest stands at an IN whose value it has not got: the twin gets the one that the original was given."""

    class Dice:
        def __init__(self):
            self.throws = 0

        def read(self, offset, size):
            self.throws += 1
            guest.board.pause()
            return 0x40 + self.throws

        def write(self, offset, size, value):
            pass

    dice = Dice()
    guest = boot(mov_rax(0), mov("edx", 0x500), b"\xec", mov("edi", RESULTS), KEEP, leave())
    guest.board.ports.add(0x500, 1, dice)
    assert guest.run(5) is None
    (twin,) = fork(guest)
    assert (twin.run(5), guest.run(5)) == (EXIT_0, EXIT_0)
    assert (results(twin, 1), results(guest, 1), dice.throws) == ([0x41], [0x41], 1)


def test_an_access_in_two_parts_is_finished_when_a_pause_comes_between(boot, fork):
    seen = []

    class Half:
        def read(self, offset, size):
            return 0

        def write(self, offset, size, value):
            seen.append((offset, size, value))
            guest.board.pause()

    middle = 0xD800_1000
    guest = boot(mov("edi", middle - 2), mov("eax", 0x44332211), STORE[4], leave())
    guest.board.mmio.add(middle - 16, 16, Half())
    guest.board.mmio.add(middle, 16, Half())
    assert guest.run(5) is None
    (twin,) = fork(guest)
    assert seen == [(14, 2, 0x2211), (0, 2, 0x4433)]
    assert (twin.run(5), twin.board.mmio.unclaimed_writes) == (EXIT_0, 0)


def test_a_halted_guest_sleeps_on_in_a_fork_and_is_woken_there(boot, fork):
    guest = boot(APIC_ON, route(4, VECTOR), out(layout.COM1 + 1, 1), SLEEP, handlers={VECTOR: leave(6)})
    assert guest.run(0.2).how is How.TIMEOUT
    first, second = fork(guest, 2)
    assert first.run(0.2).how is How.TIMEOUT
    second.send(b"x")
    assert second.run(5) == Ending(How.EXIT, 6)


def test_a_guest_that_nothing_can_wake_is_recognised_in_a_fork(boot, fork):
    guest = boot(CLI, HLT)
    guest.run(0.05)
    (twin,) = fork(guest)
    assert twin.run(5).how is How.HALTED


# Interrupts and timers


def test_an_interrupt_that_waits_is_delivered_in_each_fork(boot, fork):
    # Interrupts are off when it comes.
    guest = boot(
        *(APIC_ON, route(4, VECTOR), out(layout.COM1 + 1, 2), announce(), SLEEP),
        handlers={VECTOR: leave(8)},
    )
    for twin in fork(paused(guest), 3):
        assert twin.run(5) == Ending(How.EXIT, 8)


def test_an_exception_that_is_under_way_is_delivered_in_a_fork(boot, fork):
    guest = paused(boot(announce(), SPIN, handlers={6: leave(66)}))
    events = guest.machine.vcpu.get_vcpu_events()
    events.exception.injected, events.exception.nr = 1, 6
    guest.machine.settle(guest.board)
    guest.machine.vcpu.set_vcpu_events(events)
    (twin,) = fork(guest)
    assert twin.run(5) == Ending(How.EXIT, 66)


def test_a_fork_taken_inside_a_handler_ends_its_interrupt(boot, fork):
    """The line is level-triggered and stays up: only when the fork's I/O APIC hears of the end it comes again."""
    handler = b"\x53" + PUSH_RAX + COUNT + announce() + END_OF_INTERRUPT + announce() + POP_RAX + b"\x5b" + IRETQ
    guest = boot(APIC_ON, route(4, VECTOR | LEVEL), out(layout.COM1 + 1, 1), SLEEP, handlers={VECTOR: handler})
    guest.send(b"x")
    paused(guest)
    for twin in fork(guest, 2):
        before = results(twin, 1, 4)[0]
        twin.run(0.3)
        assert results(twin, 1, 4)[0] >= before + 5


@pytest.mark.parametrize("mode", [ONE_SHOT, PERIODIC], ids=["one shot", "periodic"])
def test_a_timer_that_runs_goes_on_in_each_fork(boot, fork, mode):
    guest = boot(APIC_ON, timer(mode, 200_000_000), announce(), SLEEP, handlers={VECTOR: TICK})
    for twin in fork(paused(guest), 3):
        ticks = 1 if mode == ONE_SHOT else 3
        twin.run(0.2 * ticks + 0.2)
        assert results(twin, 1, 4)[0] >= ticks


def test_a_timer_that_rang_unheard_is_heard_in_a_fork(boot, fork):
    guest = boot(APIC_ON, timer(ONE_SHOT, 1000), announce(), SLEEP, handlers={VECTOR: TICK})
    paused(guest)
    time.sleep(0.01)
    for twin in fork(guest, 2):
        twin.run(0.1)
        assert results(twin, 1, 4)[0] >= 1


def test_a_deadline_of_the_time_stamp_counter_rings_in_each_fork(boot, fork, host):
    khz = boot(leave()).machine.vcpu.get_tsc_khz()
    # rdtsc + 100 ms into IA32_TSC_DEADLINE
    deadline = RDTSC + b"\x48\x05" + struct.pack("<I", 100 * khz) + b"\x48\x89\xc2\x48\xc1\xea\x20"  # rdx = rax >> 32
    arm = mov("ecx", 0x6E0) + b"\x0f\x30"
    guest = boot(
        *(APIC_ON, poke(LAPIC + APIC_LVTT, DEADLINE | VECTOR), deadline, arm, announce(), SLEEP),
        handlers={VECTOR: TICK},
    )
    for twin in fork(paused(guest), 2):
        twin.run(0.3)
        assert results(twin, 1, 4) == [1]


# Time


def test_the_time_stamp_counter_never_goes_back_in_a_fork(boot, fork):
    """Taken within the first second of the VM, when old KVMs take a write of the counter for a wish to synchronise."""
    guest = paused(boot(mov("edi", RESULTS), RDTSC, KEEP, announce(), RDTSC, KEEP, leave()))
    khz = guest.machine.vcpu.get_tsc_khz()
    for twin in fork(guest, 3):
        assert twin.run(5) == EXIT_0
        before, after = results(twin, 2)
        assert before < after < before + 30_000 * khz


def test_the_paravirtual_clock_goes_on_from_the_snapshot(boot, fork):
    # MSR_KVM_SYSTEM_TIME_NEW: struct pvclock_vcpu_time_info at RESULTS, its system_time at 16.
    system_time = mov("esi", RESULTS + 0x100 + 16) + LOAD[8] + mov("edi", RESULTS)
    guest = boot(wrmsr(0x4B564D01, RESULTS + 0x100 | 1), out(0x1234, 0), announce(), system_time, STORE[8], leave())
    paused(guest)
    guest.machine.settle(guest.board)
    before = guest.machine.vm.get_clock().clock
    (twin,) = fork(guest)
    time.sleep(0.5)  # during which the twin does not live
    assert twin.run(5) == EXIT_0
    assert before <= results(twin, 1)[0]
    assert results(twin, 1)[0] <= twin.machine.vm.get_clock().clock


def test_the_wall_clock_of_a_fork_is_that_of_the_host(boot, fork):
    # MSR_KVM_WALL_CLOCK_NEW: version, seconds and nanoseconds at which the paravirtual clock was 0.
    guest = paused(boot(wrmsr(0x4B564D00, RESULTS), announce(), leave()))
    time.sleep(2)
    (twin,) = fork(guest)
    _, seconds, nanoseconds = struct.unpack_from("<III", twin.machine.memory.view, RESULTS)
    now = seconds + nanoseconds / 1e9 + twin.machine.vm.get_clock().clock / 1e9
    assert abs(now - time.time()) < 0.5


# Devices


def test_what_the_uart_holds_is_in_each_fork(boot, fork):
    # FIFO on, wait for the first of it, then read all: mov dx, LSR …
    read = b"\x66\xba\xfd\x03\xec\xa8\x01\x74\x08\x66\xba\xf8\x03\xec\xaa\xeb\xef"
    guest = boot(out(layout.COM1 + 2, 1), announce(), mov("edi", NUMBERS), announce(), read, leave())
    paused(guest)
    guest.send(b"twenty-four letters here")
    guest.run(5)
    for twin in fork(guest, 2):
        twin.run(5)
        assert bytes(twin.machine.memory.view[NUMBERS : NUMBERS + 25]) == b"twenty-four letters here\0"


def test_entries_of_the_io_apic_survive(boot, fork):
    guest = paused(boot(route(7, 0x8041, 3), poke(0xFEC00000, 0x10 + 14), announce(), SPIN))
    (twin,) = fork(guest)
    assert twin.board.io_apic.save() == guest.board.io_apic.save()
    assert twin.board.io_apic.route(7) == (0xFEE03000, 0xC041, False)


def test_forks_of_forks_go_on(boot, fork):
    body = b"\x48\xff\xc0" + announce()  # inc rax
    guest = paused(boot(mov_rax(0), body * 4, mov("edi", RESULTS), KEEP, leave()))
    for _ in range(3):
        (guest,) = fork(guest)
        paused(guest)
    (guest,) = fork(guest)
    assert guest.run(5) == EXIT_0
    assert results(guest, 1) == [4]


def test_the_original_goes_on_after_a_snapshot(boot, fork):
    guest = paused(boot(APIC_ON, timer(PERIODIC, 10_000_000), announce(), SLEEP, handlers={VECTOR: TICK}))
    fork(guest)
    guest.run(0.3)
    assert results(guest, 1, 4)[0] >= 3
