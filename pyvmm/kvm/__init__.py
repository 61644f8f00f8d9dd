"""KVM from Python: /dev/kvm, virtual machines and virtual processors by raw ioctls.

::

    with Kvm() as kvm, kvm.create_vm() as vm, vm.create_vcpu() as vcpu:
        vm.set_user_memory_region(slot=0, guest_phys_addr=0, size=len(memory), host_address=address)
        vcpu.set_regs(regs)
        while (reason := vcpu.run()) == KVM_EXIT_IO:
            print(vcpu.kvm_run.io)

Constants are in ``pyvmm.kvm.abi``: exit reasons in ``exits``, capabilities in ``capabilities``, flags next to the
structure that has them. Nothing but ctypes and libc is below, and nothing of pyvmm but its exceptions.
"""

from pyvmm.kvm.abi.cpuid import KvmCpuid2, KvmCpuidEntry2, KvmMsrEntry, KvmMsrs
from pyvmm.kvm.abi.exits import exit_reason_name
from pyvmm.kvm.abi.interrupts import KvmIrqchip, KvmIrqRouting, KvmIrqRoutingEntry, KvmPitState2
from pyvmm.kvm.abi.machine import KvmClockData
from pyvmm.kvm.abi.registers import (
    KvmDebugregs,
    KvmDtable,
    KvmFpu,
    KvmRegs,
    KvmSegment,
    KvmSregs,
    KvmSregs2,
    KvmTranslation,
    KvmXcr,
    KvmXcrs,
)
from pyvmm.kvm.abi.run import KvmRun
from pyvmm.kvm.abi.vcpu import (
    KvmGuestDebug,
    KvmLapicState,
    KvmSignalMask,
    KvmSyncRegs,
    KvmVcpuEvents,
)
from pyvmm.kvm.errors import KvmError
from pyvmm.kvm.system import Kvm
from pyvmm.kvm.vcpu import Vcpu, signal_mask
from pyvmm.kvm.vm import Vm

__all__ = [
    "Kvm",
    "KvmClockData",
    "KvmCpuid2",
    "KvmCpuidEntry2",
    "KvmDebugregs",
    "KvmDtable",
    "KvmError",
    "KvmFpu",
    "KvmGuestDebug",
    "KvmIrqRouting",
    "KvmIrqRoutingEntry",
    "KvmIrqchip",
    "KvmLapicState",
    "KvmMsrEntry",
    "KvmMsrs",
    "KvmPitState2",
    "KvmRegs",
    "KvmRun",
    "KvmSegment",
    "KvmSignalMask",
    "KvmSregs",
    "KvmSregs2",
    "KvmSyncRegs",
    "KvmTranslation",
    "KvmVcpuEvents",
    "KvmXcr",
    "KvmXcrs",
    "Vcpu",
    "Vm",
    "exit_reason_name",
    "signal_mask",
]
