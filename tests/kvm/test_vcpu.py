"""Registers there and back, and what running a guest returns."""

import errno
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pyvmm.kvm import Kvm, KvmError, KvmGuestDebug, KvmMsrs, signal_mask
from pyvmm.kvm.abi import exits
from pyvmm.kvm.abi.capabilities import (
    KVM_CAP_IMMEDIATE_EXIT,
    KVM_CAP_SREGS2,
    KVM_CAP_SYNC_REGS,
    KVM_CAP_XCRS,
)
from pyvmm.kvm.abi.run import RUN_EXIT_REASON, RUN_SYNC_REGS
from pyvmm.kvm.abi.vcpu import (
    KVM_GUESTDBG_ENABLE,
    KVM_GUESTDBG_SINGLESTEP,
    KVM_MP_STATE_RUNNABLE,
    KVM_SYNC_X86_REGS,
    KVM_SYNC_X86_SREGS,
)
from tests.kvm.board import CODE, SIZE, Board

pytestmark = pytest.mark.kvm

OUT_42_HLT = b"\xb0\x2a\xe6\x10\xf4"  # mov al, 42; out 0x10, al; hlt
SPIN = b"\xeb\xfe"  # jmp $
MSR_LSTAR = 0xC0000082
MSR_STAR = 0xC0000081


def test_an_out_instruction_and_a_halt(board: Board) -> None:
    board.load(OUT_42_HLT)

    reasons = [board.vcpu.run()]
    io = board.vcpu.kvm_run.io
    seen = (io.direction, io.port, io.size, io.count, board.vcpu.run_page[io.data_offset])
    reasons.append(board.vcpu.run())

    assert reasons == [exits.KVM_EXIT_IO, exits.KVM_EXIT_HLT]
    assert seen == (exits.KVM_EXIT_IO_OUT, 0x10, 1, 1, 42)
    assert board.vcpu.get_regs().rip == CODE + len(OUT_42_HLT)


def test_an_in_instruction_takes_what_the_page_holds(board: Board) -> None:
    board.load(b"\xe4\x20\xf4")  # in al, 0x20; hlt

    first = board.vcpu.run()
    board.vcpu.run_page[board.vcpu.kvm_run.io.data_offset] = 0x99
    second = board.vcpu.run()

    assert (first, second) == (exits.KVM_EXIT_IO, exits.KVM_EXIT_HLT)
    assert board.vcpu.get_regs().rax & 0xFF == 0x99


def test_memory_that_is_not_there_exits(board: Board) -> None:
    board.load(b"\xb8\x00\x20\x8e\xd8\xc6\x06\x34\x12\x77\xf4")  # mov ax,0x2000; mov ds,ax; mov byte [0x1234],0x77; hlt

    reason = board.vcpu.run()
    mmio = board.vcpu.kvm_run.mmio

    assert reason == exits.KVM_EXIT_MMIO
    assert (mmio.phys_addr, mmio.len, mmio.is_write, mmio.data[0]) == (0x21234, 1, 1, 0x77)
    assert "KvmRun(exit_reason=KVM_EXIT_MMIO, mmio=ExitMmio(phys_addr=0x21234, data='77'" in repr(board.vcpu.kvm_run)


def test_the_page_and_the_structure_are_views_of_the_same_memory(kvm: Kvm, board: Board) -> None:
    board.load(OUT_42_HLT)
    board.vcpu.run()

    assert len(board.vcpu.run_page) == kvm.vcpu_mmap_size
    assert board.vcpu.run_page[RUN_EXIT_REASON] == board.vcpu.kvm_run.exit_reason == exits.KVM_EXIT_IO


def test_general_and_special_registers_come_back(board: Board) -> None:
    regs, sregs = board.vcpu.get_regs(), board.vcpu.get_sregs()
    regs.r15, sregs.cr2 = 0x1122334455667788, 0xFEDCBA9876543210

    board.vcpu.set_regs(regs)
    board.vcpu.set_sregs(sregs)

    assert bytes(board.vcpu.get_regs()) == bytes(regs)
    assert bytes(board.vcpu.get_sregs()) == bytes(sregs)


def test_sregs2_agree_with_sregs(kvm: Kvm, board: Board) -> None:
    if not kvm.check_extension(KVM_CAP_SREGS2):
        pytest.skip("KVM_CAP_SREGS2 is missing")
    sregs2 = board.vcpu.get_sregs2()
    sregs2.cr2 = 0x1234

    board.vcpu.set_sregs2(sregs2)

    assert board.vcpu.get_sregs().cr2 == 0x1234
    assert bytes(sregs2.cs) == bytes(board.vcpu.get_sregs().cs)


def test_msrs_come_back_from_a_mapping_and_from_a_structure(board: Board) -> None:
    board.vcpu.set_msrs({MSR_LSTAR: 0xFFFF800000001000})
    board.vcpu.set_msrs(KvmMsrs.from_values({MSR_STAR: 0x23 << 48}))

    assert board.vcpu.get_msrs([MSR_STAR, MSR_LSTAR]) == {MSR_STAR: 0x23 << 48, MSR_LSTAR: 0xFFFF800000001000}


def test_an_msr_that_is_refused_is_named(board: Board) -> None:
    with pytest.raises(KvmError, match="KVM_SET_MSRS failed: MSR 0x12345678 does not take the value 0x5: EINVAL"):
        board.vcpu.set_msrs({MSR_STAR: 0, 0x12345678: 5})
    with pytest.raises(KvmError, match="KVM_GET_MSRS failed: MSR 0x12345678 cannot be read"):
        board.vcpu.get_msrs([MSR_STAR, 0x12345678])


def test_every_listed_msr_can_be_saved(kvm: Kvm, board: Board) -> None:
    values: dict[int, int] = {}
    for index in kvm.msr_index_list():
        try:
            values |= board.vcpu.get_msrs([index])
        except KvmError:  # listed, but this guest's CPUID lacks the feature
            continue

    assert {MSR_STAR, MSR_LSTAR} <= values.keys()


def test_feature_msrs_are_read_from_the_device(kvm: Kvm) -> None:
    indices = kvm.msr_feature_index_list()

    assert list(kvm.feature_msrs()) == indices


def test_one_cpuid_structure_serves_many_vcpus(kvm: Kvm) -> None:
    cpuid = kvm.supported_cpuid()
    for _ in range(2):
        with kvm.create_vm() as vm, vm.create_vcpu() as vcpu:
            vcpu.set_cpuid2(cpuid)

            answers = vcpu.get_cpuid2()
            # Software KVM leaves some out; Linux before 6.4 does not say how many there are.
            places = [(entry.function, entry.index) for entry in answers.entries[: answers.nent]]
            assert len(places) == len({*places})
            assert {*places} <= {(entry.function, entry.index) for entry in cpuid.entries[: cpuid.nent]}
    vendor = cpuid.entries[0]
    assert (vendor.ebx, vendor.edx, vendor.ecx) != (0, 0, 0)


def test_xsave_comes_back(kvm: Kvm, board: Board) -> None:
    area = bytearray(board.vcpu.get_xsave())
    area[160:176] = b"sixteen of XMM0!"
    area[512] |= 2  # XSTATE_BV: the SSE state is in use

    board.vcpu.set_xsave(area)

    assert len(area) == max(kvm.xsave_size, 4096)
    assert board.vcpu.get_xsave()[160:176] == b"sixteen of XMM0!"
    assert bytes(board.vcpu.get_fpu().xmm[0]) == b"sixteen of XMM0!"


def test_an_xsave_area_of_another_size_is_refused(board: Board) -> None:
    with pytest.raises(ValueError, match=r"has \d+ bytes, not 100"):
        board.vcpu.set_xsave(bytes(100))


def test_fpu_registers_come_back(board: Board) -> None:
    fpu = board.vcpu.get_fpu()
    fpu.mxcsr = 0x1F80
    fpu.xmm[3][:] = list(b"0123456789abcdef")

    board.vcpu.set_fpu(fpu)

    assert bytes(board.vcpu.get_fpu().xmm[3]) == b"0123456789abcdef"


def test_xcrs_come_back(kvm: Kvm, board: Board) -> None:
    if not kvm.check_extension(KVM_CAP_XCRS):
        pytest.skip("KVM_CAP_XCRS is missing")
    xcrs = board.vcpu.get_xcrs()
    xcrs.xcrs[0].value = 3  # x87 and SSE

    board.vcpu.set_xcrs(xcrs)

    assert (xcrs.nr_xcrs, board.vcpu.get_xcrs().xcrs[0].value) == (1, 3)


def test_debug_registers_events_and_run_state_come_back(board: Board) -> None:
    debugregs, events = board.vcpu.get_debugregs(), board.vcpu.get_vcpu_events()
    debugregs.db[0] = 0x1234

    board.vcpu.set_debugregs(debugregs)
    board.vcpu.set_vcpu_events(events)
    board.vcpu.set_mp_state(KVM_MP_STATE_RUNNABLE)

    assert board.vcpu.get_debugregs().db[0] == 0x1234
    assert bytes(board.vcpu.get_vcpu_events()) == bytes(events)
    assert board.vcpu.get_mp_state() == KVM_MP_STATE_RUNNABLE


def test_sync_regs_are_read_and_written_in_the_page(kvm: Kvm, board: Board) -> None:
    classes = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS
    assert kvm.check_extension(KVM_CAP_SYNC_REGS) & classes == classes
    run, sync_regs = board.vcpu.kvm_run, board.vcpu.sync_regs
    board.load(b"\xe6\x10\xe6\x11\xf4")  # out 0x10, al; out 0x11, al; hlt
    run.kvm_valid_regs = classes

    board.vcpu.run()
    seen = (sync_regs.regs.rip, bytes(sync_regs.sregs) == bytes(board.vcpu.get_sregs()))
    raw = board.vcpu.run_page[RUN_SYNC_REGS : RUN_SYNC_REGS + 144].cast("Q")
    raw[0] = 0x55  # RAX
    run.kvm_dirty_regs = KVM_SYNC_X86_REGS
    board.vcpu.run()

    # KVM completes the port access of the first exit before the guest goes on, so RIP is behind it or at it.
    assert seen[0] in (CODE, CODE + 2)
    assert seen[1]
    assert (run.io.port, board.vcpu.run_page[run.io.data_offset]) == (0x11, 0x55)


def test_a_virtual_address_is_translated(board: Board) -> None:
    translation = board.vcpu.translate(0x1234)

    assert (translation.physical_address, translation.valid) == (0x1234, 1)


def test_single_steps_exit_one_by_one(board: Board) -> None:
    board.load(b"\x90\x90\x90\xf4")
    board.vcpu.set_guest_debug(KvmGuestDebug(control=KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP))

    steps = [(board.vcpu.run(), board.vcpu.kvm_run.debug.arch.pc) for _ in range(2)]

    assert steps == [(exits.KVM_EXIT_DEBUG, CODE + 1), (exits.KVM_EXIT_DEBUG, CODE + 2)]


def interrupt_board(make_board: Callable[..., Board], code: bytes) -> Board:
    """A board whose interrupt vector 0x20 leads to ``out 0x20, al; iret``, and NMI to ``out 0x02, al; iret``."""
    board = make_board()
    board.memory[0x2000:0x2003] = b"\xe6\x20\xcf"
    board.memory[0x3000:0x3003] = b"\xe6\x02\xcf"
    board.memory[0x80:0x84] = (0x2000).to_bytes(4, "little")
    board.memory[0x08:0x0C] = (0x3000).to_bytes(4, "little")
    board.load(code)
    return board


def test_an_injected_interrupt_reaches_its_handler(make_board: Callable[..., Board]) -> None:
    board = interrupt_board(make_board, b"\xfb\x90\xe6\x10\xf4")  # sti; nop; out 0x10, al; hlt
    board.vcpu.run()
    ports = [board.vcpu.kvm_run.io.port]

    board.vcpu.interrupt(0x20)
    board.vcpu.run()
    ports.append(board.vcpu.kvm_run.io.port)

    assert ports == [0x10, 0x20]


def test_a_non_maskable_interrupt_reaches_its_handler(make_board: Callable[..., Board]) -> None:
    board = interrupt_board(make_board, b"\xe6\x10\xf4")
    board.vcpu.run()

    board.vcpu.nmi()
    board.vcpu.run()

    assert board.vcpu.kvm_run.io.port == 0x02


def test_immediate_exit_comes_back_without_running(kvm: Kvm, board: Board) -> None:
    assert kvm.check_extension(KVM_CAP_IMMEDIATE_EXIT)
    board.load(SPIN)
    board.vcpu.kvm_run.immediate_exit = 1

    assert board.vcpu.run() == exits.KVM_EXIT_INTR
    assert board.vcpu.get_regs().rip == CODE


class Runner:
    """A thread that runs a vCPU once, with SIGUSR1 blocked but for the time in the guest."""

    def __init__(self, board: Board) -> None:
        self.result: list[Any] = []
        self.entering = threading.Event()
        self._board = board
        self.thread = threading.Thread(target=self._main, daemon=True)
        self.thread.start()
        assert self.entering.wait(10)

    def _main(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        self._board.vcpu.set_signal_mask(signal_mask([]))
        self.entering.set()
        self.result.append(self._board.vcpu.run())
        self.result.append(signal.sigtimedwait({signal.SIGUSR1}, 0))

    def kick(self) -> None:
        assert self.thread.ident is not None
        signal.pthread_kill(self.thread.ident, signal.SIGUSR1)
        self.thread.join(10)
        assert not self.thread.is_alive()


def test_other_threads_go_on_while_a_guest_spins_and_a_signal_stops_it(board: Board) -> None:
    board.load(SPIN)
    runner = Runner(board)
    count, deadline = 0, time.monotonic() + 0.1

    while time.monotonic() < deadline:
        count += 1
    spinning = runner.result == []
    runner.kick()

    assert spinning
    assert count > 1000
    assert runner.result[0] == exits.KVM_EXIT_INTR
    assert runner.result[1].si_signo == signal.SIGUSR1
    assert board.vcpu.get_regs().rip == CODE


def test_a_signal_before_the_run_is_not_lost(board: Board) -> None:
    board.load(SPIN)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        board.vcpu.set_signal_mask(signal_mask([]))
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

        reason = board.vcpu.run()

        drained = signal.sigtimedwait({signal.SIGUSR1}, 0)
        drained_again = signal.sigtimedwait({signal.SIGUSR1}, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert reason == exits.KVM_EXIT_INTR
    assert drained is not None
    assert drained_again is None


def test_a_signal_that_the_mask_blocks_does_not_stop_the_guest(board: Board) -> None:
    board.load(OUT_42_HLT)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        board.vcpu.set_signal_mask({signal.SIGUSR1})
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

        blocked = board.vcpu.run()

        board.vcpu.set_signal_mask(None)
        without_mask = board.vcpu.run()
        drained = signal.sigtimedwait({signal.SIGUSR1}, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert (blocked, without_mask) == (exits.KVM_EXIT_IO, exits.KVM_EXIT_HLT)
    assert drained is not None


def test_closing_a_vcpu_that_runs_elsewhere_harms_nobody(board: Board) -> None:
    board.load(SPIN)
    runner = Runner(board)
    time.sleep(0.02)

    board.vcpu.close()
    runner.kick()

    assert runner.result[0] == exits.KVM_EXIT_INTR


def test_run_reports_what_the_kernel_refuses(board: Board) -> None:
    board.load(OUT_42_HLT)
    board.vcpu.kvm_run.kvm_valid_regs = 1 << 40

    with pytest.raises(KvmError, match="KVM_RUN failed: EINVAL") as caught:
        board.vcpu.run()

    assert caught.value.errno == errno.EINVAL


def test_the_tsc_frequency_is_known(board: Board) -> None:
    assert board.vcpu.get_tsc_khz() > 100_000


def test_a_guest_without_a_paravirtual_clock_cannot_be_told_of_a_pause(board: Board) -> None:
    with pytest.raises(KvmError, match="KVM_KVMCLOCK_CTRL failed: EINVAL"):
        board.vcpu.kvmclock_ctrl()


def test_the_memory_of_the_board_is_what_the_guest_sees(board: Board) -> None:
    board.load(b"\xc6\x06\x00\x40\x5a\xf4")  # mov byte [0x4000], 0x5a; hlt

    board.vcpu.run()

    assert (board.memory[0x4000], len(board.memory)) == (0x5A, SIZE)
