"""A virtual machine put together: memory, a virtual processor, and the guest that answers its exits.

The machine knows nothing of what kind of guest it runs. It owns what must be closed, and the run loop.
"""

import ctypes
import threading
import time
from contextlib import ExitStack
from typing import Protocol

from pyvmm.host import Host
from pyvmm.kick import Kick, current
from pyvmm.kvm import KvmError, KvmMsrs, KvmRegs, KvmSregs
from pyvmm.kvm.abi.exits import KVM_EXIT_INTR
from pyvmm.kvm.abi.run import RUN_DIRTY_REGS, RUN_SYNC_REGS, RUN_SYNC_SREGS, RUN_VALID_REGS
from pyvmm.memory import GuestMemory

_REGS_SIZE, _SREGS_SIZE = ctypes.sizeof(KvmRegs), ctypes.sizeof(KvmSregs)
#: A time that does not come (timer_settime takes a time_t).
_NEVER = (1 << 62) - 1
_BOTH = (3).to_bytes(8, "little")


class Guest(Protocol):
    """What answers a machine's exits."""

    def handle_exit(self, reason: int) -> bool:
        """Serve one exit (KVM_EXIT_*, KVM_EXIT_INTR when the alarm rang); False ends the run."""

    def fail(self, message: str) -> None:
        """The machine cannot go on; ``message`` says why."""


class Interrupted(BaseException):
    """The machine was told to stop while its guest slept; only the run loop sees this.

    Not an Exception: what a guest does about those that its own parts raise must not catch it.
    """


class VcpuState:
    """The state of a virtual processor as it is kept in a snapshot; made once, given to every fork.

    ``regs`` and ``sregs`` are the bytes of the structures of the same name, ``xsave`` the XSAVE area, ``msrs``
    model-specific registers by index.
    """

    def __init__(self, regs: bytes, sregs: bytes, xsave: bytes, msrs: dict[int, int]) -> None:
        if len(regs) != _REGS_SIZE or len(sregs) != _SREGS_SIZE:
            raise ValueError("processor state of a wrong size")
        self.regs, self.sregs, self.xsave, self.msrs = regs, sregs, xsave, msrs
        self.msr_structure = KvmMsrs.from_values(msrs)
        self.registers = regs + sregs


class Machine:
    """One VM with one virtual processor. It takes over ``memory`` and closes it.

    :raises KvmError: KVM refuses; everything made so far is closed.
    """

    def __init__(self, host: Host, memory: GuestMemory) -> None:
        self.memory = memory
        self._kick: Kick | None = None
        self._kick_lock = threading.Lock()
        self._stop = False
        self._deadline = self._alarm = _NEVER
        with ExitStack() as undo:
            undo.callback(memory.close)
            self.vm = undo.enter_context(host.kvm.create_vm())
            memory.attach(self.vm.set_user_memory_region)
            self.vcpu = undo.enter_context(self.vm.create_vcpu(0))
            self.vcpu.set_cpuid2(host.cpuid)
            self.vcpu.set_xcrs(host.xcrs)
            self._owned = undo.pop_all()

    def save_vcpu(self, msrs: tuple[int, ...]) -> VcpuState:
        """The processor's state now, with these MSRs."""
        page = self.vcpu.run_page
        return VcpuState(
            bytes(page[RUN_SYNC_REGS : RUN_SYNC_REGS + _REGS_SIZE]),
            bytes(page[RUN_SYNC_SREGS : RUN_SYNC_SREGS + _SREGS_SIZE]),
            self.vcpu.get_xsave(),
            self.vcpu.get_msrs(msrs),
        )

    def restore_vcpu(self, state: VcpuState) -> None:
        """Give the processor a saved state. General and special registers travel with the first KVM_RUN and cost no
        ioctl.

        The order: CPUID (in the constructor) before MSRs, because Linux since 6.13 checks them against it, and XCR0
        before XSAVE.
        """
        self.vcpu.set_msrs(state.msr_structure)
        self.vcpu.set_xsave(state.xsave)
        page = self.vcpu.run_page
        page[RUN_SYNC_REGS : RUN_SYNC_REGS + _REGS_SIZE + _SREGS_SIZE] = state.registers
        page[RUN_VALID_REGS : RUN_VALID_REGS + 8] = page[RUN_DIRTY_REGS : RUN_DIRTY_REGS + 8] = _BOTH

    def run(self, guest: Guest, deadline_ns: int) -> bool:
        """Run until the guest ends (True), or until the deadline (CLOCK_MONOTONIC, ns) or :meth:`stop` (False)."""
        kick = current()
        self._deadline = deadline_ns
        with self._kick_lock:
            self._kick = kick
            if self._stop:
                kick.send()
        self.vcpu.set_signal_mask(kick.mask)
        kick.arm(min(deadline_ns, self._alarm))
        run, handle = self.vcpu.run, guest.handle_exit
        try:
            while True:
                reason = run()
                if reason == KVM_EXIT_INTR:
                    kick.drain()
                    if self._must_stop():
                        return False
                if not handle(reason):
                    return True
        except Interrupted:
            return False
        except KvmError as error:
            guest.fail(f"the virtual processor failed: {error.strerror}")
            return True
        finally:
            with self._kick_lock:
                self._kick = None
            kick.disarm()

    def set_alarm(self, at_ns: int | None) -> None:
        """Called by a guest that wants to be interrupted at ``at_ns`` (CLOCK_MONOTONIC; None: not any more), for its
        own purposes.
        """
        self._alarm = _NEVER if at_ns is None else at_ns
        if self._kick is not None:
            self._kick.arm(min(self._deadline, self._alarm))

    def check(self) -> None:
        """Called by a guest in the middle of long work.

        :raises Interrupted: the machine is to stop.
        """
        if self._must_stop():
            raise Interrupted

    def _must_stop(self) -> bool:
        return self._stop or time.monotonic_ns() >= self._deadline

    def sleep(self, until_ns: int | None) -> None:
        """Called by a guest that waits: sleep until ``until_ns`` (CLOCK_MONOTONIC; None: for ever), using no
        processor time.

        :raises Interrupted: the machine is to stop.
        """
        kick = current()
        while until_ns is None or time.monotonic_ns() < until_ns:
            if kick.wait(until_ns) and self._must_stop():
                raise Interrupted

    def stop(self) -> None:
        """Make :meth:`run` return at once; from any thread, at any time."""
        # Under the lock the running thread cannot leave run(), so the signal cannot go to a thread that has ended.
        with self._kick_lock:
            self._stop = True
            if self._kick is not None:
                self._kick.send()

    def close(self) -> None:
        """Destroy the VM and free its memory; closing twice is fine."""
        self._owned.close()

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Machine {self.vm!r} {self.memory!r}>"
