"""What CPUID answers a guest that has a kernel of its own: one processor, its local APIC, and of KVM's paravirtual
features those that a snapshot can carry (Intel SDM 2A, CPUID; ``Documentation/virt/kvm/x86/cpuid.rst``).
"""

from pyvmm.kvm import KvmCpuid2, KvmCpuidEntry2

_TSC_DEADLINE, _HYPERVISOR, _HTT = 1 << 24, 1 << 31, 1 << 28
_KVM_FEATURES = 0x4000_0001
KVM_FEATURE_CLOCKSOURCE, KVM_FEATURE_NOP_IO_DELAY = 1 << 0, 1 << 1
KVM_FEATURE_CLOCKSOURCE2, KVM_FEATURE_CLOCKSOURCE_STABLE_BIT = 1 << 3, 1 << 24
#: Not offered: asynchronous page faults and end of interrupt in memory, whose state would hang between two machines
#: in a fork, and what helps several processors only.
_OFFERED = (
    KVM_FEATURE_CLOCKSOURCE | KVM_FEATURE_NOP_IO_DELAY | KVM_FEATURE_CLOCKSOURCE2 | KVM_FEATURE_CLOCKSOURCE_STABLE_BIT
)


def with_local_apic(cpuid: KvmCpuid2, has_tsc_deadline: bool) -> KvmCpuid2:
    """``cpuid``, as KVM_GET_SUPPORTED_CPUID gave it, for the only processor of a machine, whose APIC has the number 0.

    :param has_tsc_deadline: KVM's local APIC has the timer mode of that name, which KVM_GET_SUPPORTED_CPUID leaves to
        who makes the APIC (api.rst 4.46).
    """
    return KvmCpuid2.from_entries(_changed(entry, has_tsc_deadline) for entry in cpuid.entries[: cpuid.nent])


def _changed(entry: KvmCpuidEntry2, has_tsc_deadline: bool) -> KvmCpuidEntry2:
    entry = KvmCpuidEntry2.from_buffer_copy(entry)
    leaf = entry.function
    if leaf == 1:
        entry.ecx |= _HYPERVISOR | (_TSC_DEADLINE if has_tsc_deadline else 0)
        entry.ebx = entry.ebx & 0xFFFF | 1 << 16
        entry.edx &= ~_HTT
    elif leaf == 4:  # bits 31:14 of EAX: who shares the cache, and how many cores there are
        entry.eax &= 0x3FFF
    elif leaf in (0xB, 0x1F):  # topology by levels: one thread, one core
        entry.eax, entry.ebx, entry.edx = 0, 1 if entry.index < 2 else 0, 0
    elif leaf == 0x8000_0008:
        entry.ecx = 0
    elif leaf == 0x8000_001D:
        entry.eax &= 0x3FFF
    elif leaf == 0x8000_001E:
        entry.eax = entry.ebx = entry.ecx = 0
    elif leaf == _KVM_FEATURES:
        entry.eax &= _OFFERED
        entry.edx = 0
    return entry
