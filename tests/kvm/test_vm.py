"""Memory slots, interrupt controllers, routing, eventfds and clocks of a VM."""

import os
import select
import time
from collections.abc import Callable

import pytest

from pyvmm.kvm import Kvm, KvmError, KvmIrqRoutingEntry, Vm
from pyvmm.kvm.abi import capabilities as caps
from pyvmm.kvm.abi import exits
from pyvmm.kvm.abi.interrupts import KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER
from pyvmm.kvm.abi.memory import (
    KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY,
)
from tests.kvm.board import SIZE, Board

pytestmark = pytest.mark.kvm

WRITE_4000_HLT = b"\xc6\x06\x00\x40\x5a\xf4"  # mov byte [0x4000], 0x5a; hlt
MSI_ADDRESS = 0xFEE00000


def with_irqchip(vm: Vm) -> None:
    vm.set_identity_map_addr(0xFEFFC000)
    vm.set_tss_addr(0xFEFFD000)
    vm.create_irqchip()


def pages(bitmap: bytes) -> list[int]:
    return [page for page in range(len(bitmap) * 8) if bitmap[page // 8] >> page % 8 & 1]


def eventually(condition: Callable[[], bool]) -> bool:
    """irqfd delivers from a work queue: wait up to two seconds."""
    deadline = time.monotonic() + 2
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


def test_the_dirty_log_names_the_pages_that_were_written(make_board: Callable[..., Board]) -> None:
    board = make_board(flags=KVM_MEM_LOG_DIRTY_PAGES)
    board.load(WRITE_4000_HLT)
    board.vm.get_dirty_log(0)

    board.vcpu.run()
    first, second = board.vm.get_dirty_log(0), board.vm.get_dirty_log(0)

    assert len(first) == 8
    assert 4 in pages(first)
    assert pages(second) == []


def test_a_manually_protected_dirty_log_is_cleared_by_hand(kvm: Kvm, make_board: Callable[..., Board]) -> None:
    if not kvm.check_extension(caps.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2):
        pytest.skip("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 is missing")
    board = make_board(
        prepare=lambda vm: vm.enable_cap(caps.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE),
        flags=KVM_MEM_LOG_DIRTY_PAGES,
    )
    board.load(WRITE_4000_HLT)
    board.vcpu.run()
    dirty = board.vm.get_dirty_log(0)
    kept = board.vm.get_dirty_log(0)

    board.vm.clear_dirty_log(0, dirty)

    assert 4 in pages(kept)
    assert pages(board.vm.get_dirty_log(0)) == []


def test_a_bitmap_that_is_too_short_is_refused(board: Board) -> None:
    with pytest.raises(ValueError, match="a bitmap of 16 pages has 8 bytes, not 2"):
        board.vm.clear_dirty_log(0, b"\0\0")


def test_a_write_to_a_read_only_slot_exits(make_board: Callable[..., Board]) -> None:
    board = make_board(flags=KVM_MEM_READONLY)
    board.load(WRITE_4000_HLT)

    reason = board.vcpu.run()
    mmio = board.vcpu.kvm_run.mmio

    assert reason == exits.KVM_EXIT_MMIO
    assert (mmio.phys_addr, mmio.is_write, mmio.data[0], board.memory[0x4000]) == (0x4000, 1, 0x5A, 0)


def test_a_slot_can_be_removed(board: Board) -> None:
    board.load(WRITE_4000_HLT)
    board.vm.set_user_memory_region(0, 0, 0, 0)
    board.vm.set_user_memory_region(1, 0, SIZE, board.address)

    assert board.vcpu.run() == exits.KVM_EXIT_HLT


def test_overlapping_slots_are_refused_with_a_reason(board: Board) -> None:
    with pytest.raises(KvmError, match=r"KVM_SET_USER_MEMORY_REGION failed: EEXIST .* overlaps another slot"):
        board.vm.set_user_memory_region(1, 0x1000, 0x1000, board.address)


def test_a_second_vcpu_of_one_number_is_refused_with_a_reason(board: Board) -> None:
    with pytest.raises(KvmError, match=r"KVM_CREATE_VCPU failed: EEXIST .* has a vCPU of that number already"):
        board.vm.create_vcpu(0)


def test_the_irqchip_in_the_kernel_takes_a_line(make_board: Callable[..., Board]) -> None:
    board = make_board(prepare=with_irqchip)

    board.vm.irq_line(4, 1)
    raised = board.vm.get_irqchip(KVM_IRQCHIP_PIC_MASTER).chip.pic.irr
    status = board.vm.irq_line_status(4, 0)

    assert raised & 1 << 4
    assert isinstance(status, int)


def test_irqchips_come_back(make_board: Callable[..., Board]) -> None:
    vm = make_board(prepare=with_irqchip).vm
    ioapic = vm.get_irqchip(KVM_IRQCHIP_IOAPIC)
    ioapic.chip.ioapic.redirtbl[5].bits = 0x0000000000010035

    vm.set_irqchip(ioapic)

    entry = vm.get_irqchip(KVM_IRQCHIP_IOAPIC).chip.ioapic.redirtbl[5].fields
    assert (entry.vector, entry.mask, entry.dest_id) == (0x35, 1, 0)


def test_the_local_apic_comes_back_with_either_irqchip(make_board: Callable[..., Board]) -> None:
    for prepare in (with_irqchip, Vm.create_split_irqchip):
        vcpu = make_board(prepare=prepare).vcpu
        lapic = vcpu.get_lapic()
        lapic.regs[0x80] = 0x30  # task priority

        vcpu.set_lapic(lapic)

        assert vcpu.get_lapic().regs[0x80] == 0x30


def test_a_second_irqchip_is_refused_with_a_reason(kvm: Kvm) -> None:
    with kvm.create_vm() as vm:
        vm.create_irqchip()

        with pytest.raises(KvmError, match=r"KVM_CREATE_IRQCHIP failed: EEXIST .* has an interrupt controller already"):
            vm.create_irqchip()


def test_the_timer_comes_back(kvm: Kvm) -> None:
    with kvm.create_vm() as vm:
        vm.create_irqchip()
        vm.create_pit2()
        vm.reinject_control(False)
        pit = vm.get_pit2()
        pit.channels[2].count = 0x1234

        vm.set_pit2(pit)

        assert vm.get_pit2().channels[2].count == 0x1234


def test_an_msi_needs_a_vcpu_that_listens(make_board: Callable[..., Board]) -> None:
    board = make_board(prepare=Vm.create_split_irqchip)
    lapic = board.vcpu.get_lapic()
    lapic.regs[0xF1] |= 1  # the APIC's software enable
    board.vcpu.set_lapic(lapic)

    delivered = board.vm.signal_msi(MSI_ADDRESS, 0x41)

    assert delivered == 1
    assert board.vcpu.get_lapic().regs[0x200 + 0x41 // 32 * 16] & 1 << 0x41 % 32  # IRR


def test_an_irqfd_raises_its_line(make_board: Callable[..., Board]) -> None:
    vm = make_board(prepare=with_irqchip).vm
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    pic = vm.get_irqchip(KVM_IRQCHIP_PIC_MASTER)
    pic.chip.pic.elcr = 0
    vm.set_irqchip(pic)
    try:
        vm.irqfd(event, 5)
        os.eventfd_write(event, 1)
        raised = eventually(lambda: bool(vm.get_irqchip(KVM_IRQCHIP_PIC_MASTER).chip.pic.irr & 1 << 5))
        vm.irqfd(event, 5, deassign=True)
        os.eventfd_write(event, 1)
        time.sleep(0.01)
        left = os.eventfd_read(event)
    finally:
        os.close(event)

    assert raised
    assert left == 1


def test_a_route_turns_an_irqfd_into_an_msi(make_board: Callable[..., Board]) -> None:
    board = make_board(prepare=Vm.create_split_irqchip)
    lapic = board.vcpu.get_lapic()
    lapic.regs[0xF1] |= 1
    board.vcpu.set_lapic(lapic)
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        board.vm.set_gsi_routing([KvmIrqRoutingEntry.to_msi(7, MSI_ADDRESS, 0x51)])
        board.vm.irqfd(event, 7)
        os.eventfd_write(event, 1)

        arrived = eventually(lambda: bool(board.vcpu.get_lapic().regs[0x222] & 1 << 1))  # IRR, vector 0x51
        board.vm.irqfd(event, 7, deassign=True)
    finally:
        os.close(event)

    assert arrived


def test_an_ioeventfd_takes_the_place_of_an_exit(board: Board) -> None:
    board.load(b"\xb0\x07\xe6\x42\xb0\x08\xe6\x42\xf4")  # mov al,7; out 0x42,al; mov al,8; out 0x42,al; hlt
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        board.vm.ioeventfd(event, 0x42, 1, datamatch=7, pio=True)
        reason = board.vcpu.run()
        written = board.vcpu.run_page[board.vcpu.kvm_run.io.data_offset]
        signalled = select.select([event], [], [], 0)[0] == [event]
        board.vm.ioeventfd(event, 0x42, 1, datamatch=7, pio=True, deassign=True)
    finally:
        os.close(event)

    assert (reason, written) == (exits.KVM_EXIT_IO, 8)
    assert signalled


def test_the_clock_can_be_set(kvm: Kvm) -> None:
    with kvm.create_vm() as vm:
        clock = vm.get_clock()
        clock.clock, clock.flags = 10**15, 0

        vm.set_clock(clock)

        assert 0 <= vm.get_clock().clock - 10**15 < 10**10


def test_capabilities_are_asked_of_device_and_vm(kvm: Kvm) -> None:
    with kvm.create_vm() as vm:
        answers = [thing.check_extension(caps.KVM_CAP_USER_MEMORY) for thing in (kvm, vm)]

    assert answers == [1, 1]


def test_a_capability_that_cannot_be_enabled_is_an_error(kvm: Kvm) -> None:
    with kvm.create_vm() as vm, pytest.raises(KvmError, match="KVM_ENABLE_CAP failed: EINVAL"):
        vm.enable_cap(0xFFFF)


def test_the_boot_cpu_can_be_chosen(kvm: Kvm) -> None:
    with kvm.create_vm() as vm:
        vm.set_boot_cpu_id(1)
        with vm.create_vcpu(1) as vcpu:
            assert vcpu.id == 1
