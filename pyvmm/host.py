"""This host as a place for VMs: its open /dev/kvm, the processor that guests see, and what is made once for all of
them.
"""

import hashlib
import struct
from functools import cached_property
from pathlib import Path

from pyvmm.cpuid import with_local_apic
from pyvmm.errors import HostError
from pyvmm.kvm import Kvm, KvmCpuid2, KvmXcr, KvmXcrs
from pyvmm.kvm.abi.capabilities import KVM_CAP_SYNC_REGS, KVM_CAP_TSC_DEADLINE_TIMER
from pyvmm.processor import ECX, feature_bits, guest_cpuinfo

_OSXSAVE = 1 << 27
_OSPKE = 1 << 4
_RDPID = 1 << 22
_ALL_ONES = 0xFFFF_FFFF
_EXTENDED_FEATURES = 0x8000_0001
#: State components that a guest may use: x87, SSE, AVX, AVX-512 (three), PKRU. AMX needs a permission of its own
#: (arch_prctl(2)).
_XCR0_OFFERED = 0x2E7


def _cpuinfo() -> str:
    return Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")


class Host:
    """The host, opened. One is enough for a process; it is read-only once made, so threads may share it.

    :raises HostError: /dev/kvm is missing or not permitted, or KVM lacks what pyvmm needs; the message says what to do.
    """

    def __init__(self) -> None:
        self.kvm = Kvm()
        if self.kvm.check_extension(KVM_CAP_SYNC_REGS) & 3 != 3:
            self.kvm.close()
            raise HostError("this KVM has no KVM_CAP_SYNC_REGS for registers; Linux 4.17 or newer on x86-64 is needed")
        self.cpuid = self.kvm.supported_cpuid()
        if self.is_software:
            self._add_instructions()
        self.xcr0 = self._leaf(0xD)[0] & _XCR0_OFFERED
        self.xcrs = KvmXcrs(nr_xcrs=1)
        self.xcrs.xcrs[0] = KvmXcr(xcr=0, value=self.xcr0)

    def _leaf(self, function: int, index: int = 0) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX, EDX of a CPUID leaf; zeros if there is none."""
        for entry in self.cpuid.entries[: self.cpuid.nent]:
            if entry.function == function and (entry.index == index or not entry.flags & 1):
                return entry.eax, entry.ebx, entry.ecx, entry.edx
        return 0, 0, 0, 0

    def _add_instructions(self) -> None:
        """``kvm_pvm`` leaves LZCNT out of what it supports, and on Intel's processors a program's CPUID then shows
        none, though ring 3 executes it. Without it libraries take a processor for one below x86-64-v3, without AVX2.
        """
        instructions = feature_bits(_cpuinfo(), _EXTENDED_FEATURES, 0, ECX)
        for entry in self.cpuid.entries[: self.cpuid.nent]:
            if entry.function == _EXTENDED_FEATURES:
                entry.ecx |= instructions

    @property
    def is_software(self) -> bool:
        """Whether this is ``kvm_pvm``: ring 3 native, ring 0 interpreted."""
        return Path("/sys/module/kvm_pvm").exists()

    def require_hardware(self, what: str) -> None:
        """For what cannot be done on ``kvm_pvm``.

        :raises HostError: this is such a host; the message says what cannot be done, why, and where it can.
        """
        if self.is_software:
            raise HostError(
                f"{what} needs hardware KVM (kvm_intel or kvm_amd), and this host has software KVM (kvm_pvm), which "
                "interprets a guest's ring 0 instruction by instruction and cannot execute some of them; use another "
                "host, or the emulated one of `pyvmm lab`"
            )

    @cached_property
    def system_cpuid(self) -> KvmCpuid2:
        """What CPUID answers a guest with a kernel of its own."""
        return with_local_apic(self.cpuid, bool(self.kvm.check_extension(KVM_CAP_TSC_DEADLINE_TIMER)))

    @cached_property
    def system_msrs(self) -> list[int]:
        """The MSRs that the state of such a guest's processor may have."""
        return self.kvm.msr_index_list()

    @cached_property
    def hwcap(self) -> int:
        """AT_HWCAP on x86: EDX of CPUID leaf 1."""
        return self._leaf(1)[3]

    @cached_property
    def processor(self) -> str:
        """What a snapshot is bound to: vendor, family/model/stepping, and a digest of the features that programs
        look at.

        On ``kvm_pvm`` a program's CPUID shows the real processor whatever the monitor says (on Intel's all but the
        extended leaves), so a snapshot cannot be moved to another model.
        """
        _, ebx, ecx, edx = self._leaf(0)
        vendor = struct.pack("<III", ebx, edx, ecx).decode("ascii", "replace")
        version = self._leaf(1)
        family = (version[0] >> 8 & 15) + (version[0] >> 20 & 255)
        model = (version[0] >> 4 & 15) | (version[0] >> 12 & 0xF0)
        leaf7 = self._leaf(7)
        features = (
            version[2] & ~_OSXSAVE,
            version[3],
            leaf7[1],
            leaf7[2] & ~_OSPKE,
            leaf7[3],
            *self._leaf(0x8000_0001)[2:],
            self.xcr0,
        )
        digest = hashlib.sha256(struct.pack("<8Q", *features)).hexdigest()[:12]
        kind = "pvm" if self.is_software else "hw"
        return f"{vendor} {family:#x}/{model:#x}/{version[0] & 15:#x} {kind} {digest}"

    @cached_property
    def cpuinfo(self) -> bytes:
        """What ``/proc/cpuinfo`` shows in a guest: what its CPUID does, see :attr:`processor`."""
        return guest_cpuinfo(_cpuinfo(), self.xcr0, self._software_leaf if self.is_software else self._leaf)

    def _software_leaf(self, function: int, index: int) -> tuple[int, int, int, int]:
        """What a program finds on ``kvm_pvm``: of the extended features maybe what the monitor says, RDPID maybe not,
        else what the host has.
        """
        if function == _EXTENDED_FEATURES:
            return self._leaf(function)
        return _ALL_ONES, _ALL_ONES, _ALL_ONES & ~_RDPID if function == 7 else _ALL_ONES, _ALL_ONES

    def close(self) -> None:
        """Close /dev/kvm. VMs that are alive go on."""
        self.kvm.close()

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
