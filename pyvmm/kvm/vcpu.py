"""A virtual processor: its registers, and running it."""

import ctypes
from collections.abc import Callable, Iterable, Mapping
from ctypes import c_uint64
from errno import EINVAL
from typing import Any

from pyvmm.kvm import ioctls
from pyvmm.kvm.abi.cpuid import KvmCpuid2, KvmMsrEntry, KvmMsrs
from pyvmm.kvm.abi.machine import KvmEnableCap
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
from pyvmm.kvm.abi.run import KvmRun
from pyvmm.kvm.abi.vcpu import (
    KvmGuestDebug,
    KvmInterrupt,
    KvmLapicState,
    KvmMpState,
    KvmSignalMask,
    KvmSyncRegs,
    KvmTprAccessCtl,
    KvmVcpuEvents,
)
from pyvmm.kvm.descriptor import Descriptor
from pyvmm.kvm.errors import KvmError
from pyvmm.kvm.run_page import RunPage, bind_run

__all__ = ["Vcpu", "signal_mask"]


def signal_mask(signals: Iterable[int]) -> KvmSignalMask:
    """The structure for ``Vcpu.set_signal_mask``, to be made once and given to many vCPUs."""
    bits = 0
    for number in signals:
        bits |= 1 << (number - 1)
    # Eight bytes: the kernel's sigset_t, not the C library's.
    return KvmSignalMask.from_entries(bits.to_bytes(8, "little"))


class Vcpu(Descriptor):
    """A vCPU, made by ``Vm.create_vcpu()``. Every method raises ``KvmError`` when the kernel refuses.

    All calls for a vCPU should come from one thread. Structures passed to ``set_*`` are only read: one may be given to
    any number of vCPUs.
    """

    run: Callable[[], int]
    """Run the guest until it needs its VMM; returns the exit reason, KVM_EXIT_* (api.rst 4.10).

    A signal, or ``kvm_run.immediate_exit``, gives KVM_EXIT_INTR. The GIL is released meanwhile. May be kept in a local
    variable by a loop: it has everything bound, and raises ``KvmError`` once the vCPU is closed.
    """
    kvm_run: KvmRun
    """The structure that the vCPU and its VMM share."""
    run_page: memoryview
    """All bytes of the shared mapping, of which ``kvm_run`` is the beginning; RUN_* are offsets into it."""
    sync_regs: KvmSyncRegs
    """The registers in ``kvm_run``; ``kvm_valid_regs`` and ``kvm_dirty_regs`` (KVM_SYNC_X86_*) say which count."""

    def __init__(self, fd: int, vcpu_id: int, mmap_size: int, xsave_size: int) -> None:
        super().__init__(fd)
        self.id = vcpu_id
        self._xsave_size = xsave_size
        try:
            self._page = page = RunPage(fd, mmap_size)
        except BaseException:
            super().close()
            raise
        self.run_page = page.view
        self.kvm_run = page.kvm_run
        self.sync_regs = page.kvm_run.s.regs
        self.run, self._unbind = bind_run(fd, page.view)

    def close(self) -> None:
        """Unmap ``kvm_run`` and close the descriptor; does nothing if that was done already."""
        page = self.__dict__.pop("_page", None)
        try:
            if page is not None:
                self._unbind()
                del self.run, self._unbind, self.run_page, self.kvm_run, self.sync_regs
                page.release()
        finally:
            super().close()

    def __getattr__(self, name: str) -> Any:
        # Reached only for what close() took away, or for what never was.
        if name in ("run", "run_page", "kvm_run", "sync_regs") and self.closed:
            raise KvmError("KVM_RUN", 0, f"vCPU {self.id} is closed")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def enable_cap(self, capability: int, *arguments: int, flags: int = 0) -> None:
        """Turn a capability of the vCPU on, with up to four arguments (api.rst 4.37 and 6)."""
        ioctls.KVM_ENABLE_CAP(self._fd, KvmEnableCap(capability, flags, (c_uint64 * 4)(*arguments)))

    def set_signal_mask(self, signals: KvmSignalMask | Iterable[int] | None) -> None:
        """Which signals are blocked while the guest runs, in place of the thread's own mask; None: no difference.

        A signal that the thread blocks and this mask does not, interrupts ``run()`` and stays pending: no handler runs,
        and one that comes before ``run()`` is not lost (api.rst 4.21).
        """
        if signals is None:
            ioctls.KVM_SET_SIGNAL_MASK.raw(self._fd, None)
            return
        mask = signals if isinstance(signals, KvmSignalMask) else signal_mask(signals)
        ioctls.KVM_SET_SIGNAL_MASK(self._fd, mask)

    # Registers

    def get_regs(self) -> KvmRegs:
        """General registers (api.rst 4.11)."""
        regs = KvmRegs()
        ioctls.KVM_GET_REGS(self._fd, regs)
        return regs

    def set_regs(self, regs: KvmRegs) -> None:
        """Set the general registers (api.rst 4.12)."""
        ioctls.KVM_SET_REGS(self._fd, regs)

    def get_sregs(self) -> KvmSregs:
        """Segment, control and descriptor-table registers (api.rst 4.13)."""
        sregs = KvmSregs()
        ioctls.KVM_GET_SREGS(self._fd, sregs)
        return sregs

    def set_sregs(self, sregs: KvmSregs) -> None:
        """Set segment, control and descriptor-table registers (api.rst 4.14)."""
        ioctls.KVM_SET_SREGS(self._fd, sregs)

    def get_sregs2(self) -> KvmSregs2:
        """As ``get_sregs``, with PAE page-directory pointers and without the pending interrupt (api.rst 4.131)."""
        sregs = KvmSregs2()
        ioctls.KVM_GET_SREGS2(self._fd, sregs)
        return sregs

    def set_sregs2(self, sregs: KvmSregs2) -> None:
        """Set what ``get_sregs2`` gets (api.rst 4.132)."""
        ioctls.KVM_SET_SREGS2(self._fd, sregs)

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """Model-specific registers, ``{index: value}`` (api.rst 4.18).

        Raises ``KvmError`` that names the first one the kernel does not know.
        """
        msrs = KvmMsrs.from_entries(KvmMsrEntry(index) for index in indices)
        done = ioctls.KVM_GET_MSRS(self._fd, msrs)
        if done < msrs.nmsrs:
            raise KvmError("KVM_GET_MSRS", EINVAL, f"MSR {msrs.entries[done].index:#x} cannot be read")
        return msrs.values()

    def set_msrs(self, values: KvmMsrs | Mapping[int, int]) -> None:
        """Set model-specific registers, in order (api.rst 4.19).

        Raises ``KvmError`` that names the first one the kernel refused; those before it are set.
        """
        msrs = values if isinstance(values, KvmMsrs) else KvmMsrs.from_values(values)
        done = ioctls.KVM_SET_MSRS(self._fd, msrs)
        if done < msrs.nmsrs:
            entry = msrs.entries[done]
            raise KvmError("KVM_SET_MSRS", EINVAL, f"MSR {entry.index:#x} does not take the value {entry.data:#x}")

    def set_cpuid2(self, cpuid: KvmCpuid2) -> None:
        """What CPUID answers; before the vCPU runs for the first time (api.rst 4.20)."""
        ioctls.KVM_SET_CPUID2(self._fd, cpuid)

    def get_cpuid2(self) -> KvmCpuid2:
        """What CPUID answers, as ``set_cpuid2`` and the kernel made it."""
        cpuid = KvmCpuid2.sized(256)  # KVM_MAX_CPUID_ENTRIES
        ioctls.KVM_GET_CPUID2(self._fd, cpuid)
        entries = cpuid.entries[: cpuid.nent]
        # Before 6.4 Linux did not say how many entries it gave: behind the last one all is zero, as it was before.
        while entries and not any(bytes(entries[-1])):
            entries.pop()
        return KvmCpuid2.from_entries(entries)

    def get_fpu(self) -> KvmFpu:
        """x87 and SSE registers (api.rst 4.22)."""
        fpu = KvmFpu()
        ioctls.KVM_GET_FPU(self._fd, fpu)
        return fpu

    def set_fpu(self, fpu: KvmFpu) -> None:
        """Set x87 and SSE registers (api.rst 4.23)."""
        ioctls.KVM_SET_FPU(self._fd, fpu)

    @property
    def xsave_size(self) -> int:
        """Bytes of the XSAVE area: at least 4096; more when the process may use AMX or its like."""
        return self._xsave_size or ctypes.sizeof(KvmXsave)

    def get_xsave(self) -> bytes:
        """The XSAVE area, ``xsave_size`` bytes in the processor's own layout (api.rst 4.42 and 4.134)."""
        buffer = ctypes.create_string_buffer(self.xsave_size)
        request = ioctls.KVM_GET_XSAVE2 if self._xsave_size else ioctls.KVM_GET_XSAVE
        request.raw(self._fd, buffer)
        return buffer.raw

    def set_xsave(self, area: bytes | bytearray | memoryview) -> None:
        """Set the XSAVE area (api.rst 4.43). Raises ValueError if it has not ``xsave_size`` bytes."""
        if len(area) != self.xsave_size:
            raise ValueError(f"the XSAVE area of this host has {self.xsave_size} bytes, not {len(area)}")
        # ctypes passes the address of a bytes object; anything else has to become one.
        ioctls.KVM_SET_XSAVE.raw(self._fd, area if type(area) is bytes else bytes(area))

    def get_xcrs(self) -> KvmXcrs:
        """Extended control registers, XCR0 above all (api.rst 4.44)."""
        xcrs = KvmXcrs()
        ioctls.KVM_GET_XCRS(self._fd, xcrs)
        return xcrs

    def set_xcrs(self, xcrs: KvmXcrs) -> None:
        """Set the extended control registers; after ``set_cpuid2``, before ``set_xsave`` (api.rst 4.45)."""
        ioctls.KVM_SET_XCRS(self._fd, xcrs)

    def get_debugregs(self) -> KvmDebugregs:
        """Debug registers of the guest (api.rst 4.33)."""
        debugregs = KvmDebugregs()
        ioctls.KVM_GET_DEBUGREGS(self._fd, debugregs)
        return debugregs

    def set_debugregs(self, debugregs: KvmDebugregs) -> None:
        """Set the debug registers of the guest (api.rst 4.34)."""
        ioctls.KVM_SET_DEBUGREGS(self._fd, debugregs)

    def get_lapic(self) -> KvmLapicState:
        """The local APIC; needs an irqchip, split or not (api.rst 4.57)."""
        lapic = KvmLapicState()
        ioctls.KVM_GET_LAPIC(self._fd, lapic)
        return lapic

    def set_lapic(self, lapic: KvmLapicState) -> None:
        """Set the local APIC (api.rst 4.58)."""
        ioctls.KVM_SET_LAPIC(self._fd, lapic)

    # Events and run state

    def get_vcpu_events(self) -> KvmVcpuEvents:
        """Exceptions and interrupts under way (api.rst 4.31)."""
        events = KvmVcpuEvents()
        ioctls.KVM_GET_VCPU_EVENTS(self._fd, events)
        return events

    def has_pending_exception(self) -> bool:
        """Whether an exception or interrupt is about to be delivered to the guest, whose registers must not be
        exchanged meanwhile.
        """
        events = self.get_vcpu_events()
        return bool(events.exception.injected or events.exception.pending or events.interrupt.injected)

    def set_vcpu_events(self, events: KvmVcpuEvents) -> None:
        """Set exceptions and interrupts under way; ``flags`` says which fields count (api.rst 4.32)."""
        ioctls.KVM_SET_VCPU_EVENTS(self._fd, events)

    def get_mp_state(self) -> int:
        """Whether the vCPU runs, is halted, waits: KVM_MP_STATE_* (api.rst 4.38)."""
        state = KvmMpState()
        ioctls.KVM_GET_MP_STATE(self._fd, state)
        return state.mp_state

    def set_mp_state(self, state: int) -> None:
        """Set the run state, KVM_MP_STATE_* (api.rst 4.39)."""
        ioctls.KVM_SET_MP_STATE(self._fd, KvmMpState(state))

    def interrupt(self, vector: int) -> None:
        """Inject an interrupt into a vCPU without local APIC, or of a split irqchip (api.rst 4.16)."""
        ioctls.KVM_INTERRUPT(self._fd, KvmInterrupt(vector))

    def nmi(self) -> None:
        """Queue a non-maskable interrupt (api.rst 4.64)."""
        ioctls.KVM_NMI(self._fd)

    def smi(self) -> None:
        """Queue a system management interrupt (api.rst 4.96)."""
        ioctls.KVM_SMI(self._fd)

    def tpr_access_reporting(self, enabled: bool) -> None:
        """Whether accesses to the task priority register exit (KVM_CAP_VAPIC)."""
        ioctls.KVM_TPR_ACCESS_REPORTING(self._fd, KvmTprAccessCtl(enabled=enabled))

    def set_guest_debug(self, debug: KvmGuestDebug) -> None:
        """Single-step, break points: what the host's debugger wants (api.rst 4.87)."""
        ioctls.KVM_SET_GUEST_DEBUG(self._fd, debug)

    def translate(self, address: int) -> KvmTranslation:
        """Where a guest virtual address leads by the guest's page tables (api.rst 4.15); see ``valid``."""
        translation = KvmTranslation(linear_address=address)
        ioctls.KVM_TRANSLATE(self._fd, translation)
        return translation

    # Time

    def get_tsc_khz(self) -> int:
        """The frequency of the time stamp counter in kHz (api.rst 4.56)."""
        return ioctls.KVM_GET_TSC_KHZ(self._fd)

    def set_tsc_khz(self, khz: int) -> None:
        """Set the frequency of the time stamp counter (api.rst 4.55; needs KVM_CAP_TSC_CONTROL)."""
        ioctls.KVM_SET_TSC_KHZ(self._fd, khz)

    def kvmclock_ctrl(self) -> None:
        """Tell a guest that uses the paravirtual clock that it was paused (api.rst 4.70)."""
        ioctls.KVM_KVMCLOCK_CTRL(self._fd)

    def __repr__(self) -> str:
        return f"<Vcpu {self.id} {self._state()}>"
