"""/dev/kvm itself: what this host's KVM can do, and the making of VMs."""

import errno
import os
from typing import Any

from pyvmm.kvm import ioctls
from pyvmm.kvm.abi import capabilities
from pyvmm.kvm.abi.cpuid import KvmCpuid2, KvmMsrEntry, KvmMsrList, KvmMsrs
from pyvmm.kvm.abi.machine import KVM_API_VERSION
from pyvmm.kvm.descriptor import Descriptor
from pyvmm.kvm.errors import KvmError
from pyvmm.kvm.vm import Vm

__all__ = ["Kvm"]


class Kvm(Descriptor):
    """An open /dev/kvm.

    It may be closed while its VMs live. Raises ``KvmError`` if the device is missing, not permitted or not KVM.
    """

    def __init__(self, path: str = "/dev/kvm") -> None:
        self.path = path
        try:
            super().__init__(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise KvmError("open", error.errno or 0, path) from None
        try:
            self._read_constants()
        except BaseException:
            self.close()
            raise

    def _read_constants(self) -> None:
        try:
            version = ioctls.KVM_GET_API_VERSION(self._fd)
        except KvmError as error:
            raise KvmError(error.ioctl, error.errno or 0, self.path) from None
        if version != KVM_API_VERSION:
            detail = f"{self.path} speaks version {version} of the KVM interface, {KVM_API_VERSION} is needed"
            raise KvmError("KVM_GET_API_VERSION", 0, detail)
        self.vcpu_mmap_size: int = ioctls.KVM_GET_VCPU_MMAP_SIZE(self._fd)
        """Bytes of a vCPU's mapping: kvm_run and the pages behind it."""
        self.xsave_size: int = self.check_extension(capabilities.KVM_CAP_XSAVE2)
        """Bytes that KVM_GET_XSAVE2 writes and KVM_SET_XSAVE reads; 0 on kernels without it (before 5.17).

        A process that lets its guests use AMX (ARCH_REQ_XCOMP_GUEST_PERM) must ask for it before it opens the device.
        """

    def check_extension(self, capability: int) -> int:
        """What KVM says of a capability KVM_CAP_*: 0 for no, 1 or another number for yes (api.rst 4.4)."""
        return ioctls.KVM_CHECK_EXTENSION(self._fd, capability)

    def create_vm(self, machine_type: int = 0) -> Vm:
        """A new VM without memory and vCPUs (api.rst 4.2). ``machine_type`` is 0 on nearly every x86 host."""
        return Vm(ioctls.KVM_CREATE_VM(self._fd, machine_type), self.vcpu_mmap_size, self.xsave_size)

    def supported_cpuid(self) -> KvmCpuid2:
        """The CPUID leaves that this host can give to a guest, ready for ``Vcpu.set_cpuid2`` (api.rst 4.46)."""
        return self._cpuid(ioctls.KVM_GET_SUPPORTED_CPUID)

    def emulated_cpuid(self) -> KvmCpuid2:
        """The CPUID features that KVM emulates although the processor lacks them (api.rst 4.88)."""
        return self._cpuid(ioctls.KVM_GET_EMULATED_CPUID)

    def _cpuid(self, ioctl: ioctls.Ioctl) -> KvmCpuid2:
        room = 64
        while True:
            cpuid = KvmCpuid2.sized(room)
            try:
                ioctl(self._fd, cpuid)
            except KvmError as error:
                if error.errno != errno.E2BIG:
                    raise
                room *= 2
            else:
                return KvmCpuid2.from_entries(cpuid.entries[: cpuid.nent])

    def msr_index_list(self) -> list[int]:
        """Numbers of the MSRs that a snapshot of a vCPU should hold (api.rst 4.3)."""
        return self._msr_list(ioctls.KVM_GET_MSR_INDEX_LIST)

    def msr_feature_index_list(self) -> list[int]:
        """Numbers of the MSRs that describe the host; ``feature_msrs()`` reads them (api.rst 4.3)."""
        return self._msr_list(ioctls.KVM_GET_MSR_FEATURE_INDEX_LIST)

    def _msr_list(self, ioctl: ioctls.Ioctl) -> list[int]:
        room = 0
        while True:
            msrs = KvmMsrList.sized(room)
            try:
                ioctl(self._fd, msrs)
            except KvmError as error:
                # The kernel writes back how many there are.
                if error.errno != errno.E2BIG or msrs.nmsrs <= room:
                    raise
                room = msrs.nmsrs
            else:
                return list(msrs.indices[: msrs.nmsrs])

    def feature_msrs(self, indices: Any = None) -> dict[int, int]:
        """Values of feature MSRs, all of them by default: ``{index: value}`` (api.rst 4.18)."""
        wanted = self.msr_feature_index_list() if indices is None else list(indices)
        msrs = KvmMsrs.from_entries(KvmMsrEntry(index) for index in wanted)
        done = ioctls.KVM_GET_MSRS(self._fd, msrs)
        return {entry.index: entry.data for entry in msrs.entries[:done]}

    def __repr__(self) -> str:
        return f"<Kvm {self.path} {self._state()}>"
