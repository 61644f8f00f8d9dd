"""What each exit of a vCPU tells: the members of the union inside ``struct kvm_run`` (``linux/kvm.h``).

Exits of other architectures are here because the union is one and the same, and its size depends on them all.
"""

from ctypes import Array, c_uint8, c_uint64, c_ulong
from typing import TYPE_CHECKING, Annotated

from pyvmm.kvm.abi.base import Struct, Union, layout, u8, u16, u32, u64
from pyvmm.kvm.abi.vcpu import KvmDebugExitArch


@layout
class ExitHw(Struct):
    """KVM_EXIT_UNKNOWN: the processor left the guest for a reason that KVM does not know."""

    __slots__ = ()
    hardware_exit_reason: u64


@layout
class ExitFailEntry(Struct):
    """KVM_EXIT_FAIL_ENTRY: the processor refused the guest's state."""

    __slots__ = ()
    hardware_entry_failure_reason: u64
    cpu: u32


@layout
class ExitEx(Struct):
    """KVM_EXIT_EXCEPTION (unused by x86)."""

    __slots__ = ()
    exception: u32
    error_code: u32


@layout
class ExitIo(Struct):
    """KVM_EXIT_IO: IN, OUT, INS or OUTS; ``count`` items of ``size`` bytes lie ``data_offset`` into the mapping."""

    __slots__ = ()
    direction: u8
    size: u8
    port: u16
    count: u32
    data_offset: u64


@layout
class ExitDebug(Struct):
    """KVM_EXIT_DEBUG: a breakpoint or single step that KVM_SET_GUEST_DEBUG asked for."""

    __slots__ = ()
    arch: KvmDebugExitArch


@layout
class ExitMmio(Struct):
    """KVM_EXIT_MMIO: an access to guest memory that no slot backs (or a write to a read-only one)."""

    __slots__ = ()
    phys_addr: u64
    data: Annotated[Array[c_uint8], c_uint8 * 8]
    len: u32
    is_write: u8


@layout
class ExitHypercall(Struct):
    """KVM_EXIT_HYPERCALL."""

    __slots__ = ()
    nr: u64
    args: Annotated[Array[c_uint64], c_uint64 * 6]
    ret: u64
    longmode: u32
    pad: u32


@layout
class ExitTprAccess(Struct):
    """KVM_EXIT_TPR_ACCESS."""

    __slots__ = ()
    rip: u64
    is_write: u32
    pad: u32


@layout
class ExitS390Sieic(Struct):
    """KVM_EXIT_S390_SIEIC."""

    __slots__ = ()
    icptcode: u8
    ipa: u16
    ipb: u32


@layout
class ExitS390Ucontrol(Struct):
    """KVM_EXIT_S390_UCONTROL."""

    __slots__ = ()
    trans_exc_code: u64
    pgm_code: u32


@layout
class ExitDcr(Struct):
    """KVM_EXIT_DCR (deprecated)."""

    __slots__ = ()
    dcrn: u32
    data: u32
    is_write: u8


@layout
class ExitInternal(Struct):
    """KVM_EXIT_INTERNAL_ERROR: KVM itself gave up; ``suberror`` is one of KVM_INTERNAL_ERROR_*."""

    __slots__ = ()
    suberror: u32
    ndata: u32
    data: Annotated[Array[c_uint64], c_uint64 * 16]


@layout
class EmulationInsn(Struct):
    """The instruction that KVM could not emulate."""

    __slots__ = ()
    insn_size: u8
    insn_bytes: Annotated[Array[c_uint8], c_uint8 * 15]


@layout
class EmulationDetail(Union):
    """The union without a name inside ``emulation_failure``."""

    __slots__ = ()
    _anonymous_ = ("insn",)
    insn: EmulationInsn


@layout
class ExitEmulationFailure(Struct):
    """KVM_EXIT_INTERNAL_ERROR with suberror KVM_INTERNAL_ERROR_EMULATION: overlays ``internal``."""

    __slots__ = ()
    _anonymous_ = ("detail",)
    suberror: u32
    ndata: u32
    flags: u64
    detail: EmulationDetail
    if TYPE_CHECKING:
        insn_size: int
        insn_bytes: Array[c_uint8]


@layout
class ExitOsi(Struct):
    """KVM_EXIT_OSI."""

    __slots__ = ()
    gprs: Annotated[Array[c_uint64], c_uint64 * 32]


@layout
class ExitPaprHcall(Struct):
    """KVM_EXIT_PAPR_HCALL."""

    __slots__ = ()
    nr: u64
    ret: u64
    args: Annotated[Array[c_uint64], c_uint64 * 9]


@layout
class ExitS390Tsch(Struct):
    """KVM_EXIT_S390_TSCH."""

    __slots__ = ()
    subchannel_id: u16
    subchannel_nr: u16
    io_int_parm: u32
    io_int_word: u32
    ipb: u32
    dequeued: u8


@layout
class ExitEpr(Struct):
    """KVM_EXIT_EPR."""

    __slots__ = ()
    epr: u32


@layout
class SystemEventDetail(Union):
    """The union without a name inside ``system_event``."""

    __slots__ = ()
    flags: u64
    data: Annotated[Array[c_uint64], c_uint64 * 16]


@layout
class ExitSystemEvent(Struct):
    """KVM_EXIT_SYSTEM_EVENT: the guest wants to shut down, reset, ...; ``type`` is one of KVM_SYSTEM_EVENT_*."""

    __slots__ = ()
    _anonymous_ = ("detail",)
    type: u32
    ndata: u32
    detail: SystemEventDetail
    if TYPE_CHECKING:
        flags: int
        data: Array[c_uint64]


@layout
class ExitS390Stsi(Struct):
    """KVM_EXIT_S390_STSI."""

    __slots__ = ()
    addr: u64
    ar: u8
    reserved: u8
    fc: u8
    sel1: u8
    sel2: u16


@layout
class ExitEoi(Struct):
    """KVM_EXIT_IOAPIC_EOI: the guest ended an interrupt of an IOAPIC that lives in the VMM (split irqchip)."""

    __slots__ = ()
    vector: u8


@layout
class HypervSynic(Struct):
    """KVM_EXIT_HYPERV_SYNIC."""

    __slots__ = ()
    msr: u32
    pad2: u32
    control: u64
    evt_page: u64
    msg_page: u64


@layout
class HypervHcall(Struct):
    """KVM_EXIT_HYPERV_HCALL."""

    __slots__ = ()
    input: u64
    result: u64
    params: Annotated[Array[c_uint64], c_uint64 * 2]


@layout
class HypervSyndbg(Struct):
    """KVM_EXIT_HYPERV_SYNDBG."""

    __slots__ = ()
    msr: u32
    pad2: u32
    control: u64
    status: u64
    send_page: u64
    recv_page: u64
    pending_page: u64


@layout
class HypervDetail(Union):
    """What ``kvm_hyperv_exit.type`` selects."""

    __slots__ = ()
    synic: HypervSynic
    hcall: HypervHcall
    syndbg: HypervSyndbg


@layout
class KvmHypervExit(Struct):
    """KVM_EXIT_HYPERV."""

    __slots__ = ()
    type: u32
    pad1: u32
    u: HypervDetail


@layout
class ExitArmNisv(Struct):
    """KVM_EXIT_ARM_NISV."""

    __slots__ = ()
    esr_iss: u64
    fault_ipa: u64


@layout
class ExitMsr(Struct):
    """KVM_EXIT_X86_RDMSR and KVM_EXIT_X86_WRMSR; a non-zero ``error`` makes the guest's access fault."""

    __slots__ = ()
    error: u8
    pad: Annotated[Array[c_uint8], c_uint8 * 7]
    reason: u32
    index: u32
    data: u64


@layout
class XenHcall(Struct):
    """KVM_EXIT_XEN_HCALL."""

    __slots__ = ()
    longmode: u32
    cpl: u32
    input: u64
    result: u64
    params: Annotated[Array[c_uint64], c_uint64 * 6]


@layout
class XenDetail(Union):
    """What ``kvm_xen_exit.type`` selects."""

    __slots__ = ()
    hcall: XenHcall


@layout
class KvmXenExit(Struct):
    """KVM_EXIT_XEN."""

    __slots__ = ()
    type: u32
    u: XenDetail


@layout
class ExitRiscvSbi(Struct):
    """KVM_EXIT_RISCV_SBI."""

    __slots__ = ()
    extension_id: Annotated[int, c_ulong]
    function_id: Annotated[int, c_ulong]
    args: Annotated[Array[c_ulong], c_ulong * 6]
    ret: Annotated[Array[c_ulong], c_ulong * 2]


@layout
class ExitRiscvCsr(Struct):
    """KVM_EXIT_RISCV_CSR."""

    __slots__ = ()
    csr_num: Annotated[int, c_ulong]
    new_value: Annotated[int, c_ulong]
    write_mask: Annotated[int, c_ulong]
    ret_value: Annotated[int, c_ulong]


@layout
class ExitNotify(Struct):
    """KVM_EXIT_NOTIFY: the guest kept the processor from taking events for too long."""

    __slots__ = ()
    flags: u32


@layout
class ExitMemoryFault(Struct):
    """KVM_EXIT_MEMORY_FAULT (KVM_CAP_MEMORY_FAULT_INFO, Linux 6.8)."""

    __slots__ = ()
    flags: u64
    gpa: u64
    size: u64
