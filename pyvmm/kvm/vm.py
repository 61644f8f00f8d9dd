"""A virtual machine: its memory, its interrupt lines and its clock."""

import ctypes
from collections.abc import Iterable
from ctypes import byref, c_uint64

from pyvmm.kvm import ioctls
from pyvmm.kvm.abi import capabilities, interrupts
from pyvmm.kvm.abi.interrupts import (
    KvmIoeventfd,
    KvmIrqchip,
    KvmIrqfd,
    KvmIrqLevel,
    KvmIrqRouting,
    KvmIrqRoutingEntry,
    KvmMsi,
    KvmPitConfig,
    KvmPitState2,
    KvmReinjectControl,
)
from pyvmm.kvm.abi.machine import KvmClockData, KvmEnableCap
from pyvmm.kvm.abi.memory import KvmClearDirtyLog, KvmDirtyLog, KvmUserspaceMemoryRegion
from pyvmm.kvm.descriptor import Descriptor
from pyvmm.kvm.vcpu import Vcpu

__all__ = ["Vm"]

_PAGE_SHIFT = 12


class Vm(Descriptor):
    """A VM, made by ``Kvm.create_vm()``. Every method raises ``KvmError`` when the kernel refuses.

    The kernel keeps a VM for as long as one of its vCPUs is open; closing in any order is fine. The host memory behind
    a slot belongs to the caller and must stay mapped until VM and vCPUs are closed.
    """

    def __init__(self, fd: int, vcpu_mmap_size: int, xsave_size: int) -> None:
        super().__init__(fd)
        self._vcpu_mmap_size = vcpu_mmap_size
        self._xsave_size = xsave_size
        self._slot_sizes: dict[int, int] = {}

    def create_vcpu(self, vcpu_id: int = 0) -> Vcpu:
        """A new vCPU; its number is its APIC id (api.rst 4.7)."""
        return Vcpu(ioctls.KVM_CREATE_VCPU(self._fd, vcpu_id), vcpu_id, self._vcpu_mmap_size, self._xsave_size)

    def check_extension(self, capability: int) -> int:
        """What KVM says of a capability KVM_CAP_* for this VM (api.rst 4.4)."""
        return ioctls.KVM_CHECK_EXTENSION(self._fd, capability)

    def enable_cap(self, capability: int, *arguments: int, flags: int = 0) -> None:
        """Turn a capability of the VM on, with up to four arguments (api.rst 4.37 and 7)."""
        ioctls.KVM_ENABLE_CAP(self._fd, KvmEnableCap(capability, flags, (c_uint64 * 4)(*arguments)))

    # Memory

    def set_user_memory_region(
        self, slot: int, guest_phys_addr: int, size: int, host_address: int, flags: int = 0
    ) -> None:
        """Back guest physical memory by host memory (api.rst 4.35).

        Addresses and ``size`` are in bytes, multiples of the page size; ``flags`` is made of KVM_MEM_*. A ``size`` of 0
        removes the slot.
        """
        region = KvmUserspaceMemoryRegion(slot, flags, guest_phys_addr, size, host_address)
        ioctls.KVM_SET_USER_MEMORY_REGION(self._fd, region)
        self._slot_sizes[slot] = size

    def get_dirty_log(self, slot: int) -> bytes:
        """Which pages of a slot with KVM_MEM_LOG_DIRTY_PAGES were written: one bit a page, lowest bit first.

        Clears the log, unless KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 is on (api.rst 4.8). The length is a multiple of 8.
        Raises KeyError for a slot that was never set.
        """
        pages = self._slot_sizes[slot] >> _PAGE_SHIFT
        bitmap = (c_uint64 * ((pages + 63) // 64))()
        log = KvmDirtyLog(slot=slot)
        log.dirty_bitmap = ctypes.addressof(bitmap)
        ioctls.KVM_GET_DIRTY_LOG(self._fd, log)
        return bytes(bitmap)

    def clear_dirty_log(self, slot: int, bitmap: bytes, first_page: int = 0, pages: int | None = None) -> None:
        """Clear the bits of a slot's dirty log that are set in ``bitmap``, whose first bit is ``first_page``.

        ``first_page`` is a multiple of 64, and so is ``pages`` unless it reaches the end of the slot, which is the
        default (api.rst 4.117; needs KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2). Raises ValueError for a bitmap that is too
        short.
        """
        if pages is None:
            pages = (self._slot_sizes[slot] >> _PAGE_SHIFT) - first_page
        needed = (pages + 63) // 64 * 8
        if len(bitmap) < needed:
            raise ValueError(f"a bitmap of {pages} pages has {needed} bytes, not {len(bitmap)}")
        copy = (ctypes.c_uint8 * needed).from_buffer_copy(bitmap)
        log = KvmClearDirtyLog(slot=slot, num_pages=pages, first_page=first_page)
        log.dirty_bitmap = ctypes.addressof(copy)
        ioctls.KVM_CLEAR_DIRTY_LOG(self._fd, log)

    def set_tss_addr(self, address: int) -> None:
        """Where three free guest pages under 4 GiB are, which Intel processors need for real mode (api.rst 4.36)."""
        ioctls.KVM_SET_TSS_ADDR(self._fd, address)

    def set_identity_map_addr(self, address: int) -> None:
        """Where one free guest page under 4 GiB is, needed likewise; before any vCPU is made (api.rst 4.40)."""
        ioctls.KVM_SET_IDENTITY_MAP_ADDR(self._fd, c_uint64(address))

    def set_boot_cpu_id(self, vcpu_id: int) -> None:
        """Which vCPU is the bootstrap processor; before any vCPU is made (api.rst 4.41)."""
        ioctls.KVM_SET_BOOT_CPU_ID(self._fd, vcpu_id)

    # Interrupt controllers and timer

    def create_irqchip(self) -> None:
        """Two 8259s, an IOAPIC and each vCPU's local APIC, in the kernel; before any vCPU is made (api.rst 4.24)."""
        ioctls.KVM_CREATE_IRQCHIP(self._fd)

    def create_split_irqchip(self, pins: int = interrupts.KVM_IOAPIC_NUM_PINS) -> None:
        """Only the local APICs in the kernel; ``pins`` routes are kept free for the VMM's IOAPIC (api.rst 7)."""
        self.enable_cap(capabilities.KVM_CAP_SPLIT_IRQCHIP, pins)

    def get_irqchip(self, chip_id: int) -> KvmIrqchip:
        """The state of one controller, KVM_IRQCHIP_* (api.rst 4.26)."""
        chip = KvmIrqchip(chip_id=chip_id)
        ioctls.KVM_GET_IRQCHIP(self._fd, chip)
        return chip

    def set_irqchip(self, chip: KvmIrqchip) -> None:
        """Set the state of the controller that ``chip.chip_id`` names (api.rst 4.27)."""
        ioctls.KVM_SET_IRQCHIP(self._fd, chip)

    def create_pit2(self, flags: int = 0) -> None:
        """An 8254 timer in the kernel; needs ``create_irqchip()`` (api.rst 4.71)."""
        ioctls.KVM_CREATE_PIT2(self._fd, KvmPitConfig(flags=flags))

    def get_pit2(self) -> KvmPitState2:
        """The state of the timer (api.rst 4.72)."""
        state = KvmPitState2()
        ioctls.KVM_GET_PIT2(self._fd, state)
        return state

    def set_pit2(self, state: KvmPitState2) -> None:
        """Set the state of the timer (api.rst 4.73)."""
        ioctls.KVM_SET_PIT2(self._fd, state)

    def reinject_control(self, reinject: bool) -> None:
        """Whether ticks of the timer that the guest missed are made up for (api.rst 4.99)."""
        ioctls.KVM_REINJECT_CONTROL.raw(self._fd, byref(KvmReinjectControl(pit_reinject=reinject)))

    def irq_line(self, gsi: int, level: int) -> None:
        """Set the level of an interrupt line (api.rst 4.25). An edge is 1 and then 0."""
        ioctls.KVM_IRQ_LINE(self._fd, KvmIrqLevel((gsi,), level))

    def irq_line_status(self, gsi: int, level: int) -> int:
        """As ``irq_line``; returns how many vCPUs took it, 0 if it was coalesced, negative if it was masked."""
        line = KvmIrqLevel((gsi,), level)
        ioctls.KVM_IRQ_LINE_STATUS(self._fd, line)
        return line.status

    def set_gsi_routing(self, routes: KvmIrqRouting | Iterable[KvmIrqRoutingEntry]) -> None:
        """Replace the whole routing table (api.rst 4.52)."""
        table = routes if isinstance(routes, KvmIrqRouting) else KvmIrqRouting.from_entries(routes)
        ioctls.KVM_SET_GSI_ROUTING(self._fd, table)

    def signal_msi(self, address: int, data: int) -> int:
        """Send a message-signalled interrupt; returns how many vCPUs took it, 0 if it was blocked (api.rst 4.71)."""
        return ioctls.KVM_SIGNAL_MSI(self._fd, KvmMsi(address & 0xFFFFFFFF, address >> 32, data))

    def irqfd(self, fd: int, gsi: int, *, resample_fd: int | None = None, deassign: bool = False) -> None:
        """Raise the line ``gsi`` whenever the eventfd ``fd`` is signalled (api.rst 4.75).

        With ``resample_fd`` the line stays up until the guest ends the interrupt, which signals that eventfd.
        """
        flags = interrupts.KVM_IRQFD_FLAG_DEASSIGN if deassign else 0
        if resample_fd is not None:
            flags |= interrupts.KVM_IRQFD_FLAG_RESAMPLE
        ioctls.KVM_IRQFD(self._fd, KvmIrqfd(fd, gsi, flags, resample_fd or 0))

    def ioeventfd(
        self,
        fd: int,
        address: int,
        length: int,
        *,
        datamatch: int | None = None,
        pio: bool = False,
        deassign: bool = False,
    ) -> None:
        """Signal the eventfd ``fd`` when the guest writes to ``address``, without an exit (api.rst 4.59).

        ``address`` is a guest physical address or, with ``pio``, a port; ``length`` is 1, 2, 4 or 8 bytes, or 0 for
        any; with ``datamatch`` only that value signals, others exit.
        """
        flags = interrupts.KVM_IOEVENTFD_FLAG_PIO if pio else 0
        if datamatch is not None:
            flags |= interrupts.KVM_IOEVENTFD_FLAG_DATAMATCH
        if deassign:
            flags |= interrupts.KVM_IOEVENTFD_FLAG_DEASSIGN
        ioctls.KVM_IOEVENTFD(self._fd, KvmIoeventfd(datamatch or 0, address, length, fd, flags))

    # Clock

    def get_clock(self) -> KvmClockData:
        """The paravirtual clock, in nanoseconds (api.rst 4.29)."""
        clock = KvmClockData()
        ioctls.KVM_GET_CLOCK(self._fd, clock)
        return clock

    def set_clock(self, clock: KvmClockData) -> None:
        """Set the paravirtual clock; ``flags`` 0, or KVM_CLOCK_REALTIME to add the time since (api.rst 4.30)."""
        ioctls.KVM_SET_CLOCK(self._fd, clock)

    def get_tsc_khz(self) -> int:
        """The frequency of the time stamp counter of vCPUs to come, in kHz (api.rst 4.56)."""
        return ioctls.KVM_GET_TSC_KHZ(self._fd)

    def set_tsc_khz(self, khz: int) -> None:
        """Set that frequency (api.rst 4.55; needs KVM_CAP_VM_TSC_CONTROL)."""
        ioctls.KVM_SET_TSC_KHZ(self._fd, khz)
