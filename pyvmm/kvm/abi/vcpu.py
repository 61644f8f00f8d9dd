"""The rest of a vCPU's state: pending events, run state, debugging, signal mask, local APIC, sync regs."""

from ctypes import Array, c_uint8, c_uint32, c_uint64
from typing import Annotated, ClassVar

from pyvmm.kvm.abi.base import FlexibleStruct, Struct, layout, u8, u32, u64
from pyvmm.kvm.abi.registers import KvmRegs, KvmSregs

KVM_VCPUEVENT_VALID_NMI_PENDING = 0x00000001
KVM_VCPUEVENT_VALID_SIPI_VECTOR = 0x00000002
KVM_VCPUEVENT_VALID_SHADOW = 0x00000004
KVM_VCPUEVENT_VALID_SMM = 0x00000008
KVM_VCPUEVENT_VALID_PAYLOAD = 0x00000010
KVM_VCPUEVENT_VALID_TRIPLE_FAULT = 0x00000020

KVM_X86_SHADOW_INT_MOV_SS = 0x01
KVM_X86_SHADOW_INT_STI = 0x02

KVM_MP_STATE_RUNNABLE = 0
KVM_MP_STATE_UNINITIALIZED = 1
KVM_MP_STATE_INIT_RECEIVED = 2
KVM_MP_STATE_HALTED = 3
KVM_MP_STATE_SIPI_RECEIVED = 4
KVM_MP_STATE_STOPPED = 5
KVM_MP_STATE_CHECK_STOP = 6
KVM_MP_STATE_OPERATING = 7
KVM_MP_STATE_LOAD = 8
KVM_MP_STATE_AP_RESET_HOLD = 9
KVM_MP_STATE_SUSPENDED = 10

KVM_GUESTDBG_ENABLE = 0x00000001
KVM_GUESTDBG_SINGLESTEP = 0x00000002
KVM_GUESTDBG_USE_SW_BP = 0x00010000
KVM_GUESTDBG_USE_HW_BP = 0x00020000
KVM_GUESTDBG_INJECT_DB = 0x00040000
KVM_GUESTDBG_INJECT_BP = 0x00080000
KVM_GUESTDBG_BLOCKIRQ = 0x00100000

KVM_SYNC_X86_REGS = 1 << 0
KVM_SYNC_X86_SREGS = 1 << 1
KVM_SYNC_X86_EVENTS = 1 << 2
KVM_SYNC_X86_VALID_FIELDS = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS

KVM_APIC_REG_SIZE = 0x400


@layout
class EventsException(Struct):
    """An exception that is pending or being delivered."""

    __slots__ = ()
    injected: u8
    nr: u8
    has_error_code: u8
    pending: u8
    error_code: u32


@layout
class EventsInterrupt(Struct):
    """An interrupt that is being delivered."""

    __slots__ = ()
    injected: u8
    nr: u8
    soft: u8
    shadow: u8


@layout
class EventsNmi(Struct):
    """The state of non-maskable interrupts."""

    __slots__ = ()
    injected: u8
    pending: u8
    masked: u8
    pad: u8


@layout
class EventsSmi(Struct):
    """The state of system management interrupts."""

    __slots__ = ()
    smm: u8
    pending: u8
    smm_inside_nmi: u8
    latched_init: u8


@layout
class EventsTripleFault(Struct):
    """A triple fault that is pending (KVM_CAP_X86_TRIPLE_FAULT_EVENT)."""

    __slots__ = ()
    pending: u8


@layout
class KvmVcpuEvents(Struct):
    """Exceptions and interrupts under way, KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS."""

    __slots__ = ()
    exception: EventsException
    interrupt: EventsInterrupt
    nmi: EventsNmi
    sipi_vector: u32
    flags: u32
    smi: EventsSmi
    triple_fault: EventsTripleFault
    reserved: Annotated[Array[c_uint8], c_uint8 * 26]
    exception_has_payload: u8
    exception_payload: u64


@layout
class KvmMpState(Struct):
    """Whether the vCPU runs, is halted or waits for a start-up interrupt: one of KVM_MP_STATE_*."""

    __slots__ = ()
    mp_state: u32


@layout
class KvmGuestDebugArch(Struct):
    """Debug registers that the debugger wants."""

    __slots__ = ()
    debugreg: Annotated[Array[c_uint64], c_uint64 * 8]


@layout
class KvmGuestDebug(Struct):
    """Debugging of the guest by the host, KVM_SET_GUEST_DEBUG; ``control`` is made of KVM_GUESTDBG_*."""

    __slots__ = ()
    control: u32
    pad: u32
    arch: KvmGuestDebugArch


@layout
class KvmDebugExitArch(Struct):
    """What KVM_EXIT_DEBUG tells."""

    __slots__ = ()
    exception: u32
    pad: u32
    pc: u64
    dr6: u64
    dr7: u64


@layout
class KvmInterrupt(Struct):
    """An interrupt vector to inject, KVM_INTERRUPT."""

    __slots__ = ()
    irq: u32


@layout
class KvmSignalMask(FlexibleStruct):
    """The signals that are blocked while the guest runs, KVM_SET_SIGNAL_MASK; ``len`` is in bytes."""

    __slots__ = ()
    _count_: ClassVar[str] = "len"
    len: u32
    sigset: Annotated[Array[c_uint8], c_uint8 * 0]


@layout
class KvmLapicState(Struct):
    """The registers of the local APIC, KVM_GET_LAPIC and KVM_SET_LAPIC, at their architectural offsets."""

    __slots__ = ()
    regs: Annotated[Array[c_uint8], c_uint8 * KVM_APIC_REG_SIZE]


@layout
class KvmTprAccessCtl(Struct):
    """Whether accesses to the task priority register exit, KVM_TPR_ACCESS_REPORTING."""

    __slots__ = ()
    enabled: u32
    flags: u32
    reserved: Annotated[Array[c_uint32], c_uint32 * 8]


@layout
class KvmSyncRegs(Struct):
    """Registers that travel in the page of ``kvm_run`` (KVM_CAP_SYNC_REGS), without an ioctl each."""

    __slots__ = ()
    regs: KvmRegs
    sregs: KvmSregs
    events: KvmVcpuEvents
