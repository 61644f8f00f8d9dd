"""The ioctls of KVM, grouped by the descriptor that takes them.

The number of a request is made, as in ``linux/ioctl.h``, of its direction, its type (``KVMIO``), its own number and the
size of its structure: two requests may share a number and still differ (0x9f is KVM_GET_PIT2 and KVM_GET_VCPU_EVENTS).
An ioctl is called with a descriptor and its argument, returns what the kernel returns and raises ``KvmError``; it is
repeated when a signal interrupts it (KVM_RUN is not called through this table).

Sections in the comments are those of Documentation/virt/kvm/api.rst.
"""

import ctypes
from ctypes import byref, c_uint64
from errno import EINTR
from typing import Any

from pyvmm.kvm import libc
from pyvmm.kvm.abi.cpuid import KvmCpuid2, KvmMsrList, KvmMsrs
from pyvmm.kvm.abi.interrupts import (
    KvmIoeventfd,
    KvmIrqchip,
    KvmIrqfd,
    KvmIrqLevel,
    KvmIrqRouting,
    KvmMsi,
    KvmPitConfig,
    KvmPitState2,
)
from pyvmm.kvm.abi.machine import KVMIO, KvmClockData, KvmEnableCap
from pyvmm.kvm.abi.memory import KvmClearDirtyLog, KvmDirtyLog, KvmUserspaceMemoryRegion
from pyvmm.kvm.abi.registers import (
    KvmDebugregs,
    KvmFpu,
    KvmRegs,
    KvmSregs,
    KvmSregs2,
    KvmTranslation,
    KvmXcrs,
    KvmXsave,
)
from pyvmm.kvm.abi.vcpu import (
    KvmGuestDebug,
    KvmInterrupt,
    KvmLapicState,
    KvmMpState,
    KvmSignalMask,
    KvmTprAccessCtl,
    KvmVcpuEvents,
)
from pyvmm.kvm.errors import KvmError

_NONE, _WRITE, _READ = 0, 1, 2

_ioctl = libc.ioctl
_get_errno = libc.get_errno


class Ioctl:
    """A request whose argument is a plain number (or, by ``raw()``, an address or a bytes object)."""

    __slots__ = ("name", "request", "struct")

    def __init__(self, direction: int, number: int, struct: Any = None) -> None:
        self.name = f"KVM ioctl {number:#x}"  # replaced by the name in the table
        self.struct = struct
        size = 0 if struct is None else ctypes.sizeof(struct)
        self.request = direction << 30 | size << 16 | KVMIO << 8 | number

    def raw(self, fd: int, argument: Any = 0) -> int:
        """Call with whatever ``ctypes.c_void_p`` takes; the caller answers for what it points to."""
        result: int
        while (result := _ioctl(fd, self.request, argument)) < 0:
            errno = _get_errno()
            if errno != EINTR:
                raise KvmError(self.name, errno)
        return result

    def __call__(self, fd: int, argument: Any = 0) -> int:
        return self.raw(fd, argument)

    def __repr__(self) -> str:
        return f"<{self.name} {self.request:#010x}>"


class StructIoctl(Ioctl):
    """A request whose argument is a structure, which the kernel reads, writes or both."""

    __slots__ = ()

    def __call__(self, fd: int, argument: Any = None) -> int:
        # The kernel takes an address and trusts it: a wrong structure would be a wild read or write in this process.
        if not isinstance(argument, self.struct):
            raise TypeError(f"{self.name} takes a {self.struct.__name__}, not a {type(argument).__name__}")
        return self.raw(fd, byref(argument))


class FlexibleIoctl(StructIoctl):
    """A request whose structure says how many elements follow it."""

    __slots__ = ()

    def __call__(self, fd: int, argument: Any = None) -> int:
        if isinstance(argument, self.struct):
            argument.check_room()
        return super().__call__(fd, argument)


def _io(number: int) -> Ioctl:
    return Ioctl(_NONE, number)


def _struct_ioctl(direction: int, number: int, struct: Any) -> StructIoctl:
    return (FlexibleIoctl if hasattr(struct, "check_room") else StructIoctl)(direction, number, struct)


def _ior(number: int, struct: Any) -> StructIoctl:
    return _struct_ioctl(_READ, number, struct)


def _iow(number: int, struct: Any) -> StructIoctl:
    return _struct_ioctl(_WRITE, number, struct)


def _iowr(number: int, struct: Any) -> StructIoctl:
    return _struct_ioctl(_READ | _WRITE, number, struct)


# fmt: off

# /dev/kvm
KVM_GET_API_VERSION               = _io(0x00)                             # 4.1
KVM_CREATE_VM                     = _io(0x01)                             # 4.2, returns a descriptor
KVM_GET_MSR_INDEX_LIST            = _iowr(0x02, KvmMsrList)               # 4.3
KVM_CHECK_EXTENSION               = _io(0x03)                             # 4.4, a VM too: KVM_CAP_CHECK_EXTENSION_VM
KVM_GET_VCPU_MMAP_SIZE            = _io(0x04)                             # 4.5, bytes
KVM_GET_SUPPORTED_CPUID           = _iowr(0x05, KvmCpuid2)                # 4.46, KVM_CAP_EXT_CPUID
KVM_GET_EMULATED_CPUID            = _iowr(0x09, KvmCpuid2)                # 4.88, KVM_CAP_EXT_EMUL_CPUID
KVM_GET_MSR_FEATURE_INDEX_LIST    = _iowr(0x0A, KvmMsrList)               # 4.3, KVM_CAP_GET_MSR_FEATURES

# A VM
KVM_CREATE_VCPU                   = _io(0x41)                             # 4.7, returns a descriptor
KVM_GET_DIRTY_LOG                 = _iow(0x42, KvmDirtyLog)               # 4.8
KVM_SET_USER_MEMORY_REGION        = _iow(0x46, KvmUserspaceMemoryRegion)  # 4.35, KVM_CAP_USER_MEMORY
KVM_SET_TSS_ADDR                  = _io(0x47)                             # 4.36, KVM_CAP_SET_TSS_ADDR
KVM_SET_IDENTITY_MAP_ADDR         = _iow(0x48, c_uint64)                  # 4.40, KVM_CAP_SET_IDENTITY_MAP_ADDR
KVM_CREATE_IRQCHIP                = _io(0x60)                             # 4.24, KVM_CAP_IRQCHIP
KVM_IRQ_LINE                      = _iow(0x61, KvmIrqLevel)               # 4.25, KVM_CAP_IRQCHIP
KVM_GET_IRQCHIP                   = _iowr(0x62, KvmIrqchip)               # 4.26, KVM_CAP_IRQCHIP
KVM_SET_IRQCHIP                   = _ior(0x63, KvmIrqchip)                # 4.27, KVM_CAP_IRQCHIP
KVM_IRQ_LINE_STATUS               = _iowr(0x67, KvmIrqLevel)              # KVM_CAP_IRQ_INJECT_STATUS
KVM_SET_GSI_ROUTING               = _iow(0x6A, KvmIrqRouting)             # 4.52, KVM_CAP_IRQ_ROUTING
KVM_REINJECT_CONTROL              = _io(0x71)                             # 4.99, KVM_CAP_REINJECT_CONTROL; a structure
KVM_IRQFD                         = _iow(0x76, KvmIrqfd)                  # 4.75, KVM_CAP_IRQFD
KVM_CREATE_PIT2                   = _iow(0x77, KvmPitConfig)              # 4.71, KVM_CAP_PIT2
KVM_SET_BOOT_CPU_ID               = _io(0x78)                             # 4.41, KVM_CAP_SET_BOOT_CPU_ID
KVM_IOEVENTFD                     = _iow(0x79, KvmIoeventfd)              # 4.59, KVM_CAP_IOEVENTFD
KVM_SET_CLOCK                     = _iow(0x7B, KvmClockData)              # 4.30, KVM_CAP_ADJUST_CLOCK
KVM_GET_CLOCK                     = _ior(0x7C, KvmClockData)              # 4.29, KVM_CAP_ADJUST_CLOCK
KVM_GET_PIT2                      = _ior(0x9F, KvmPitState2)              # 4.72, KVM_CAP_PIT_STATE2
KVM_SET_PIT2                      = _iow(0xA0, KvmPitState2)              # 4.73, KVM_CAP_PIT_STATE2
KVM_SIGNAL_MSI                    = _iow(0xA5, KvmMsi)                    # 4.71, KVM_CAP_SIGNAL_MSI
KVM_CLEAR_DIRTY_LOG               = _iowr(0xC0, KvmClearDirtyLog)         # 4.117, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2

# A vCPU
KVM_RUN                           = _io(0x80)                             # 4.10
KVM_GET_REGS                      = _ior(0x81, KvmRegs)                   # 4.11
KVM_SET_REGS                      = _iow(0x82, KvmRegs)                   # 4.12
KVM_GET_SREGS                     = _ior(0x83, KvmSregs)                  # 4.13
KVM_SET_SREGS                     = _iow(0x84, KvmSregs)                  # 4.14
KVM_TRANSLATE                     = _iowr(0x85, KvmTranslation)           # 4.15
KVM_INTERRUPT                     = _iow(0x86, KvmInterrupt)              # 4.16
KVM_GET_MSRS                      = _iowr(0x88, KvmMsrs)                  # 4.18, /dev/kvm too: KVM_CAP_GET_MSR_FEATURES
KVM_SET_MSRS                      = _iow(0x89, KvmMsrs)                   # 4.19
KVM_SET_SIGNAL_MASK               = _iow(0x8B, KvmSignalMask)             # 4.21
KVM_GET_FPU                       = _ior(0x8C, KvmFpu)                    # 4.22
KVM_SET_FPU                       = _iow(0x8D, KvmFpu)                    # 4.23
KVM_GET_LAPIC                     = _ior(0x8E, KvmLapicState)             # 4.57, KVM_CAP_IRQCHIP
KVM_SET_LAPIC                     = _iow(0x8F, KvmLapicState)             # 4.58, KVM_CAP_IRQCHIP
KVM_SET_CPUID2                    = _iow(0x90, KvmCpuid2)                 # 4.20, KVM_CAP_EXT_CPUID
KVM_GET_CPUID2                    = _iowr(0x91, KvmCpuid2)                # KVM_CAP_EXT_CPUID
KVM_TPR_ACCESS_REPORTING          = _iowr(0x92, KvmTprAccessCtl)          # KVM_CAP_VAPIC
KVM_GET_MP_STATE                  = _ior(0x98, KvmMpState)                # 4.38, KVM_CAP_MP_STATE
KVM_SET_MP_STATE                  = _iow(0x99, KvmMpState)                # 4.39, KVM_CAP_MP_STATE
KVM_NMI                           = _io(0x9A)                             # 4.64, KVM_CAP_USER_NMI
KVM_SET_GUEST_DEBUG               = _iow(0x9B, KvmGuestDebug)             # 4.87, KVM_CAP_SET_GUEST_DEBUG
KVM_GET_VCPU_EVENTS               = _ior(0x9F, KvmVcpuEvents)             # 4.31, KVM_CAP_VCPU_EVENTS
KVM_SET_VCPU_EVENTS               = _iow(0xA0, KvmVcpuEvents)             # 4.32, KVM_CAP_VCPU_EVENTS
KVM_GET_DEBUGREGS                 = _ior(0xA1, KvmDebugregs)              # 4.33, KVM_CAP_DEBUGREGS
KVM_SET_DEBUGREGS                 = _iow(0xA2, KvmDebugregs)              # 4.34, KVM_CAP_DEBUGREGS
KVM_SET_TSC_KHZ                   = _io(0xA2)                             # 4.55, KVM_CAP_TSC_CONTROL; a VM too
KVM_GET_TSC_KHZ                   = _io(0xA3)                             # 4.56, KVM_CAP_GET_TSC_KHZ; a VM too
KVM_ENABLE_CAP                    = _iow(0xA3, KvmEnableCap)              # 4.37, KVM_CAP_ENABLE_CAP; a VM too
KVM_GET_XSAVE                     = _ior(0xA4, KvmXsave)                  # 4.42, KVM_CAP_XSAVE
KVM_SET_XSAVE                     = _iow(0xA5, KvmXsave)                  # 4.43, KVM_CAP_XSAVE
KVM_GET_XCRS                      = _ior(0xA6, KvmXcrs)                   # 4.44, KVM_CAP_XCRS
KVM_SET_XCRS                      = _iow(0xA7, KvmXcrs)                   # 4.45, KVM_CAP_XCRS
KVM_KVMCLOCK_CTRL                 = _io(0xAD)                             # 4.70, KVM_CAP_KVMCLOCK_CTRL
KVM_SMI                           = _io(0xB7)                             # 4.96, KVM_CAP_X86_SMM
KVM_GET_SREGS2                    = _ior(0xCC, KvmSregs2)                 # 4.131, KVM_CAP_SREGS2
KVM_SET_SREGS2                    = _iow(0xCD, KvmSregs2)                 # 4.132, KVM_CAP_SREGS2
KVM_GET_XSAVE2                    = _ior(0xCF, KvmXsave)                  # 4.134, KVM_CAP_XSAVE2; writes xsave_size

# fmt: on

IOCTLS = {name: value for name, value in list(globals().items()) if isinstance(value, Ioctl)}
"""Name in the header -> ioctl."""

for _name, _entry in IOCTLS.items():
    _entry.name = _name
