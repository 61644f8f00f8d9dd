"""What goes wrong between Python and /dev/kvm."""

import errno as _errno
import os

from pyvmm.errors import HostError

__all__ = ["KvmError"]

_ADVICE = {
    _errno.ENOMEM: "the host, or the memory limit of this process's cgroup, has no memory left for the VM",
    _errno.EMFILE: "this process has too many open descriptors (two for each VM): raise the limit with ulimit -n",
    _errno.ENFILE: "the whole host has too many open descriptors: raise the sysctl fs.file-max",
    _errno.EBADF: "the object was closed",
}

_ADVICE_FOR = {
    ("open", _errno.ENOENT): (
        "this host has no KVM: load the module (modprobe kvm_intel or kvm_amd), enable virtualisation in the firmware, "
        "or give the container the device (--device /dev/kvm)"
    ),
    ("open", _errno.EACCES): "this user may not use KVM: add the user to the group that owns the device (mostly kvm)",
    ("open", _errno.EPERM): "this process may not open the device: allow it in the container's device cgroup",
    ("open", _errno.ENXIO): "the device node is there, but no KVM module is loaded (modprobe kvm_intel or kvm_amd)",
    ("open", _errno.ENODEV): "the device node is there, but no KVM module is loaded (modprobe kvm_intel or kvm_amd)",
    ("KVM_GET_API_VERSION", _errno.ENOTTY): "this file is not the KVM device",
    ("KVM_CREATE_VM", _errno.EBUSY): "another hypervisor uses the processor's virtualisation: stop it first",
    ("KVM_CREATE_VCPU", _errno.EEXIST): "the VM has a vCPU of that number already",
    ("KVM_SET_USER_MEMORY_REGION", _errno.EEXIST): "the region overlaps another slot",
    ("KVM_SET_USER_MEMORY_REGION", _errno.EINVAL): "addresses and size must be multiples of the page size",
    ("KVM_RUN", _errno.ENOSPC): "the VM has no memory: give it a region first",
    ("KVM_CREATE_IRQCHIP", _errno.EEXIST): "the VM has an interrupt controller already",
    ("KVM_SET_CPUID2", _errno.EINVAL): "the CPUID of a vCPU cannot be changed once it has run",
}


class KvmError(HostError, OSError):
    """An ioctl failed, or the KVM device could not be opened or is of no use.

    ``ioctl`` is the name of the request as in ``linux/kvm.h`` (or ``open``, ``mmap``), ``errno`` the error number (0 if
    the kernel gave none); ``str()`` has both, the system's text and, where it is known, what to do.
    """

    def __init__(self, ioctl: str, errno: int, detail: str = "") -> None:
        super().__init__(errno, os.strerror(errno) if errno else "no error of the kernel")
        self.ioctl = ioctl
        self.detail = detail

    def __str__(self) -> str:
        number = self.errno or 0
        parts = [f"{self.ioctl} failed" if number else self.ioctl]
        if self.detail:
            parts.append(self.detail)
        if number:
            parts.append(f"{_errno.errorcode.get(number, number)} ({os.strerror(number)})")
        advice = _ADVICE_FOR.get((self.ioctl, number)) or _ADVICE.get(number)
        return ": ".join(parts) + (f"; {advice}" if advice else "")

    def __reduce__(self) -> tuple[type["KvmError"], tuple[str, int, str]]:
        return type(self), (self.ioctl, self.errno or 0, self.detail)
