"""The state of a virtual processor as plain data: how it is read, kept in a snapshot, and given to a fork.

A program in ring 3 has registers, extended state and a few MSRs: :class:`VcpuState`. A kernel of the guest's own has
more, in :class:`SystemState`: a local APIC with its timer, debug registers, events under way, whether it is halted, and
a clock. Both are bytes of the structures of ``linux/kvm.h``, which the kernel takes back as they are.
"""

import ctypes
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from pyvmm.kvm import KvmError, KvmMsrs, KvmRegs, KvmSregs, KvmXcr, KvmXcrs
from pyvmm.kvm.abi.cpuid import KvmMsrEntry
from pyvmm.kvm.abi.machine import KvmClockData
from pyvmm.kvm.abi.registers import KvmDebugregs
from pyvmm.kvm.abi.run import RUN_DIRTY_REGS, RUN_SYNC_REGS, RUN_SYNC_SREGS, RUN_VALID_REGS
from pyvmm.kvm.abi.vcpu import KvmLapicState, KvmVcpuEvents
from pyvmm.kvm.vcpu import Vcpu
from pyvmm.kvm.vm import Vm

MSR_IA32_TSC = 0x10
MSR_IA32_TSC_DEADLINE = 0x6E0
_TIME = (MSR_IA32_TSC, MSR_IA32_TSC_DEADLINE)
_FAR, _ALL_ONES = 1 << 45, (1 << 64) - 1

REGS_SIZE, SREGS_SIZE = ctypes.sizeof(KvmRegs), ctypes.sizeof(KvmSregs)
_BOTH = (3).to_bytes(8, "little")
_NONE = bytes(8)
_U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
_U64 = Annotated[int, msgspec.Meta(ge=0)]  # MessagePack has none that are larger


@dataclass(frozen=True, slots=True)
class SystemState:
    """What a processor with a local APIC has besides.

    ``lapic``, ``events`` and ``debugregs`` are the bytes of ``kvm_lapic_state``, ``kvm_vcpu_events`` and
    ``kvm_debugregs``; ``mp_state`` is KVM_MP_STATE_*; ``clock_ns`` the VM's paravirtual clock.
    """

    lapic: bytes
    events: bytes
    debugregs: bytes
    xcr0: _U64
    mp_state: _U32
    clock_ns: _U64

    def __post_init__(self) -> None:
        for data, structure in (
            (self.lapic, KvmLapicState),
            (self.events, KvmVcpuEvents),
            (self.debugregs, KvmDebugregs),
        ):
            if len(data) != ctypes.sizeof(structure):
                raise ValueError("processor state of a wrong size")


class VcpuState:
    """The state of a virtual processor; made once, given to every fork.

    ``regs`` and ``sregs`` are the bytes of the structures of the same name, ``xsave`` the XSAVE area, ``msrs``
    model-specific registers by index; ``system`` is there if the processor has a local APIC.
    """

    def __init__(
        self, regs: bytes, sregs: bytes, xsave: bytes, msrs: dict[int, int], system: SystemState | None = None
    ) -> None:
        if len(regs) != REGS_SIZE or len(sregs) != SREGS_SIZE:
            raise ValueError("processor state of a wrong size")
        self.regs, self.sregs, self.xsave, self.msrs, self.system = regs, sregs, xsave, msrs, system
        self.registers = regs + sregs
        self.msr_structure = _in_order(msrs)

    def to_data(self) -> dict[str, Any]:
        """As builtin types."""
        data: dict[str, Any] = {"regs": self.regs, "sregs": self.sregs, "xsave": self.xsave, "msrs": self.msrs}
        if self.system is not None:
            data["system"] = {name: getattr(self.system, name) for name in SystemState.__slots__}
        return data

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "VcpuState":
        """From what ``to_data`` gave; ValueError or msgspec.ValidationError if it was something else."""
        checked = msgspec.convert(data, _Data)
        return cls(checked.regs, checked.sregs, checked.xsave, checked.msrs, checked.system)


class _Data(msgspec.Struct):
    regs: bytes
    sregs: bytes
    xsave: bytes
    msrs: dict[_U32, _U64]
    system: SystemState | None = None


def _in_order(msrs: dict[int, int]) -> KvmMsrs:
    """The deadline comes last: it is compared with the counter, and the timer must be in that mode.

    The counter comes first, and twice. KVM takes a value that is within a second of what the counter of a new VM shows
    for a wish to synchronise it with other processors, and sets another one (``kvm_synchronize_tsc`` in
    ``arch/x86/kvm/x86.c``, before Linux 6.7 even for the first write): the counter of a snapshot that was taken in the
    first second of a VM would go back. After a value that is hours off, no other one is near.
    """
    entries = [KvmMsrEntry(index=index, data=value) for index, value in msrs.items() if index not in _TIME]
    if MSR_IA32_TSC in msrs:
        counter = msrs[MSR_IA32_TSC]
        far = counter + _FAR & _ALL_ONES
        entries[:0] = [KvmMsrEntry(index=MSR_IA32_TSC, data=value) for value in (far, counter)]
    if MSR_IA32_TSC_DEADLINE in msrs:
        entries.append(KvmMsrEntry(index=MSR_IA32_TSC_DEADLINE, data=msrs[MSR_IA32_TSC_DEADLINE]))
    return KvmMsrs.from_entries(entries)


def save_program_state(vcpu: Vcpu, msrs: tuple[int, ...]) -> VcpuState:
    """The state of a processor that runs a program in ring 3, with these MSRs.

    General and special registers are taken from the page that the vCPU shares.
    """
    page = vcpu.run_page
    return VcpuState(
        bytes(page[RUN_SYNC_REGS : RUN_SYNC_REGS + REGS_SIZE]),
        bytes(page[RUN_SYNC_SREGS : RUN_SYNC_SREGS + SREGS_SIZE]),
        vcpu.get_xsave(),
        vcpu.get_msrs(msrs),
    )


def restore_program_state(vcpu: Vcpu, state: VcpuState) -> None:
    """Give it back. General and special registers travel with the next KVM_RUN and cost no ioctl.

    The order: CPUID (set before) comes before MSRs, because Linux since 6.13 checks them against it, and XCR0 before
    XSAVE.
    """
    vcpu.set_msrs(state.msr_structure)
    vcpu.set_xsave(state.xsave)
    page = vcpu.run_page
    page[RUN_SYNC_REGS : RUN_SYNC_REGS + REGS_SIZE + SREGS_SIZE] = state.registers
    page[RUN_VALID_REGS : RUN_VALID_REGS + 8] = page[RUN_DIRTY_REGS : RUN_DIRTY_REGS + 8] = _BOTH


def save_system_state(vm: Vm, vcpu: Vcpu, msrs: list[int]) -> VcpuState:
    """All the state of a processor with a local APIC; ``msrs`` are those of ``Kvm.msr_index_list()``.

    No exit may be half served: a read that the guest waits for is part of no structure (api.rst section 5).
    """
    # Whether it is halted is asked first: KVM then deals with INIT and SIPI that are pending, which changes the rest.
    mp_state = vcpu.get_mp_state()
    clock = vm.get_clock().clock
    return VcpuState(
        bytes(vcpu.get_regs()),
        bytes(vcpu.get_sregs()),
        vcpu.get_xsave(),
        _keepable_msrs(vcpu, msrs),
        SystemState(
            lapic=bytes(vcpu.get_lapic()),
            events=bytes(vcpu.get_vcpu_events()),
            debugregs=bytes(vcpu.get_debugregs()),
            xcr0=_xcr0(vcpu),
            mp_state=mp_state,
            clock_ns=clock,
        ),
    )


def restore_system_state(vm: Vm, vcpu: Vcpu, state: VcpuState, system: SystemState) -> None:
    """Give it back.

    The order, each step before those that need it: CPUID (set before); special registers, which hold the APIC's base
    and so switch it on, and the mode that all else is checked against; XCR0 before the XSAVE area; the local APIC
    before the MSRs, as the TSC deadline is refused or forgotten by a timer in another mode; events last, as setting
    registers drops exceptions that are pending. The clock comes before the MSRs, as setting that of the wall clock
    writes the time at which the clock was 0 into the guest's memory.
    """
    vcpu.set_sregs(KvmSregs.from_buffer_copy(state.sregs))
    vcpu.set_regs(KvmRegs.from_buffer_copy(state.regs))
    xcrs = KvmXcrs(nr_xcrs=1)
    xcrs.xcrs[0] = KvmXcr(xcr=0, value=system.xcr0)
    vcpu.set_xcrs(xcrs)
    vcpu.set_xsave(state.xsave)
    vcpu.set_debugregs(KvmDebugregs.from_buffer_copy(system.debugregs))
    vcpu.set_lapic(KvmLapicState.from_buffer_copy(system.lapic))
    vm.set_clock(KvmClockData(clock=system.clock_ns))
    vcpu.set_msrs(state.msr_structure)
    vcpu.set_mp_state(system.mp_state)
    vcpu.set_vcpu_events(KvmVcpuEvents.from_buffer_copy(system.events))
    vcpu.run_page[RUN_VALID_REGS : RUN_VALID_REGS + 8] = _NONE


def _xcr0(vcpu: Vcpu) -> int:
    xcrs = vcpu.get_xcrs()
    return next((entry.value for entry in xcrs.xcrs[: xcrs.nr_xcrs] if entry.xcr == 0), 1)


def _keepable_msrs(vcpu: Vcpu, indices: list[int]) -> dict[int, int]:
    """Those of ``indices`` that can be read and take back what was read; a few of KVM's list do neither on some hosts,
    because the guest's CPUID lacks their feature.
    """
    kept: dict[int, int] = {}
    for index in indices:
        try:
            value = vcpu.get_msrs((index,))
            if index not in (MSR_IA32_TSC, MSR_IA32_TSC_DEADLINE):
                vcpu.set_msrs(value)
        except KvmError:
            continue
        kept |= value
    return kept
