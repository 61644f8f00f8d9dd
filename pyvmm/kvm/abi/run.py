"""``struct kvm_run``: the page that a vCPU and its VMM share (``linux/kvm.h``, api.rst section 5).

``KVM_RUN`` returns when the guest needs its VMM; ``exit_reason`` says why and which member of the union is valid.
"""

from ctypes import Array, c_uint8
from typing import TYPE_CHECKING, Annotated

from pyvmm.kvm.abi import exits
from pyvmm.kvm.abi.base import Struct, Union, layout, u8, u16, u32, u64
from pyvmm.kvm.abi.exit_details import (
    ExitArmNisv,
    ExitDcr,
    ExitDebug,
    ExitEmulationFailure,
    ExitEoi,
    ExitEpr,
    ExitEx,
    ExitFailEntry,
    ExitHw,
    ExitHypercall,
    ExitInternal,
    ExitIo,
    ExitMemoryFault,
    ExitMmio,
    ExitMsr,
    ExitNotify,
    ExitOsi,
    ExitPaprHcall,
    ExitRiscvCsr,
    ExitRiscvSbi,
    ExitS390Sieic,
    ExitS390Stsi,
    ExitS390Tsch,
    ExitS390Ucontrol,
    ExitSystemEvent,
    ExitTprAccess,
    KvmHypervExit,
    KvmXenExit,
)
from pyvmm.kvm.abi.vcpu import KvmSyncRegs

SYNC_REGS_SIZE_BYTES = 2048


@layout
class Exit(Union):
    """The union without a name inside ``kvm_run``."""

    __slots__ = ()
    hw: ExitHw
    fail_entry: ExitFailEntry
    ex: ExitEx
    io: ExitIo
    debug: ExitDebug
    mmio: ExitMmio
    hypercall: ExitHypercall
    tpr_access: ExitTprAccess
    s390_sieic: ExitS390Sieic
    s390_reset_flags: u64
    s390_ucontrol: ExitS390Ucontrol
    dcr: ExitDcr
    internal: ExitInternal
    emulation_failure: ExitEmulationFailure
    osi: ExitOsi
    papr_hcall: ExitPaprHcall
    s390_tsch: ExitS390Tsch
    epr: ExitEpr
    system_event: ExitSystemEvent
    s390_stsi: ExitS390Stsi
    eoi: ExitEoi
    hyperv: KvmHypervExit
    arm_nisv: ExitArmNisv
    msr: ExitMsr
    xen: KvmXenExit
    riscv_sbi: ExitRiscvSbi
    riscv_csr: ExitRiscvCsr
    notify: ExitNotify
    memory_fault: ExitMemoryFault
    padding: Annotated[Array[c_uint8], c_uint8 * 256]


@layout
class SyncArea(Union):
    """Room for ``kvm_sync_regs``, which may grow."""

    __slots__ = ()
    regs: KvmSyncRegs
    padding: Annotated[Array[c_uint8], c_uint8 * SYNC_REGS_SIZE_BYTES]


_MEMBER = {
    exits.KVM_EXIT_UNKNOWN: "hw",
    exits.KVM_EXIT_EXCEPTION: "ex",
    exits.KVM_EXIT_IO: "io",
    exits.KVM_EXIT_HYPERCALL: "hypercall",
    exits.KVM_EXIT_DEBUG: "debug",
    exits.KVM_EXIT_MMIO: "mmio",
    exits.KVM_EXIT_FAIL_ENTRY: "fail_entry",
    exits.KVM_EXIT_TPR_ACCESS: "tpr_access",
    exits.KVM_EXIT_INTERNAL_ERROR: "internal",
    exits.KVM_EXIT_SYSTEM_EVENT: "system_event",
    exits.KVM_EXIT_IOAPIC_EOI: "eoi",
    exits.KVM_EXIT_HYPERV: "hyperv",
    exits.KVM_EXIT_X86_RDMSR: "msr",
    exits.KVM_EXIT_X86_WRMSR: "msr",
    exits.KVM_EXIT_XEN: "xen",
    exits.KVM_EXIT_NOTIFY: "notify",
    exits.KVM_EXIT_MEMORY_FAULT: "memory_fault",
}


@layout
class KvmRun(Struct):
    """``struct kvm_run``. ``repr()`` prints the member of the union that the exit reason selects."""

    __slots__ = ()
    _anonymous_ = ("exit",)
    request_interrupt_window: u8
    immediate_exit: u8
    padding1: Annotated[Array[c_uint8], c_uint8 * 6]
    exit_reason: u32
    ready_for_interrupt_injection: u8
    if_flag: u8
    flags: u16
    cr8: u64
    apic_base: u64
    exit: Exit
    kvm_valid_regs: u64
    kvm_dirty_regs: u64
    s: SyncArea
    if TYPE_CHECKING:
        hw: ExitHw
        fail_entry: ExitFailEntry
        ex: ExitEx
        io: ExitIo
        debug: ExitDebug
        mmio: ExitMmio
        hypercall: ExitHypercall
        tpr_access: ExitTprAccess
        internal: ExitInternal
        emulation_failure: ExitEmulationFailure
        system_event: ExitSystemEvent
        eoi: ExitEoi
        hyperv: KvmHypervExit
        msr: ExitMsr
        xen: KvmXenExit
        notify: ExitNotify
        memory_fault: ExitMemoryFault

    def __repr__(self) -> str:
        reason = self.exit_reason
        member = _MEMBER.get(reason)
        if reason == exits.KVM_EXIT_INTERNAL_ERROR and self.internal.suberror == exits.KVM_INTERNAL_ERROR_EMULATION:
            member = "emulation_failure"
        detail = f", {member}={getattr(self, member)!r}" if member else ""
        return f"KvmRun(exit_reason={exits.exit_reason_name(reason)}{detail})"


def _offset(structure: type[Struct], field: str) -> int:
    offset: int = getattr(structure, field).offset
    return offset


# Where things are in the page, in bytes, for code on the hot path that unpacks them straight from the memoryview.
RUN_IMMEDIATE_EXIT = _offset(KvmRun, "immediate_exit")
RUN_EXIT_REASON = _offset(KvmRun, "exit_reason")
RUN_EXIT = _offset(KvmRun, "exit")
"""The union of the exits; for KVM_EXIT_IO: direction u8, size u8, port u16, count u32, data_offset u64."""
RUN_VALID_REGS = _offset(KvmRun, "kvm_valid_regs")
RUN_DIRTY_REGS = _offset(KvmRun, "kvm_dirty_regs")
RUN_SYNC_REGS = _offset(KvmRun, "s")
"""``kvm_sync_regs``; its general registers come first, in the order of ``KvmRegs``."""
RUN_SYNC_SREGS = RUN_SYNC_REGS + _offset(KvmSyncRegs, "sregs")
RUN_SYNC_EVENTS = RUN_SYNC_REGS + _offset(KvmSyncRegs, "events")
