"""What belongs to a whole VM: its clock and the capabilities that it turns on (``linux/kvm.h``)."""

from ctypes import Array, c_uint8, c_uint32, c_uint64
from typing import Annotated

from pyvmm.kvm.abi.base import Struct, layout, u32, u64

KVM_API_VERSION = 12
KVMIO = 0xAE

KVM_CLOCK_TSC_STABLE = 2
KVM_CLOCK_REALTIME = 1 << 2
KVM_CLOCK_HOST_TSC = 1 << 3

# KVM_CAP_X86_DISABLE_EXITS
KVM_X86_DISABLE_EXITS_MWAIT = 1 << 0
KVM_X86_DISABLE_EXITS_HLT = 1 << 1
KVM_X86_DISABLE_EXITS_PAUSE = 1 << 2
KVM_X86_DISABLE_EXITS_CSTATE = 1 << 3

# KVM_CAP_DISABLE_QUIRKS2
KVM_X86_QUIRK_LINT0_REENABLED = 1 << 0
KVM_X86_QUIRK_CD_NW_CLEARED = 1 << 1
KVM_X86_QUIRK_LAPIC_MMIO_HOLE = 1 << 2
KVM_X86_QUIRK_OUT_7E_INC_RIP = 1 << 3
KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT = 1 << 4
KVM_X86_QUIRK_FIX_HYPERCALL_INSN = 1 << 5
KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS = 1 << 6

# KVM_CAP_X86_BUS_LOCK_EXIT, KVM_CAP_X86_NOTIFY_VMEXIT, KVM_CAP_PMU_CAPABILITY
KVM_BUS_LOCK_DETECTION_OFF = 1 << 0
KVM_BUS_LOCK_DETECTION_EXIT = 1 << 1
KVM_X86_NOTIFY_VMEXIT_ENABLED = 1 << 0
KVM_X86_NOTIFY_VMEXIT_USER = 1 << 1
KVM_PMU_CAP_DISABLE = 1 << 0


@layout
class KvmClockData(Struct):
    """The paravirtual clock of a VM, KVM_GET_CLOCK and KVM_SET_CLOCK: nanoseconds; ``flags`` of KVM_CLOCK_*."""

    __slots__ = ()
    clock: u64
    flags: u32
    pad0: u32
    realtime: u64
    host_tsc: u64
    pad: Annotated[Array[c_uint32], c_uint32 * 4]


@layout
class KvmEnableCap(Struct):
    """A capability to turn on, KVM_ENABLE_CAP."""

    __slots__ = ()
    cap: u32
    flags: u32
    args: Annotated[Array[c_uint64], c_uint64 * 4]
    pad: Annotated[Array[c_uint8], c_uint8 * 64]
