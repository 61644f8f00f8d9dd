"""A virtual machine put together: memory, a virtual processor, and the guest that answers its exits.

The machine knows nothing of what kind of guest it runs. It owns what must be closed, and the run loop.
"""

import threading
import time
from contextlib import ExitStack
from typing import Protocol

from pyvmm.host import Host
from pyvmm.kick import Kick, current
from pyvmm.kvm import KvmError
from pyvmm.kvm.abi.exits import KVM_EXIT_INTR
from pyvmm.memory import GuestMemory
from pyvmm.vcpu_state import (
    VcpuState,
    restore_program_state,
    restore_system_state,
    save_program_state,
    save_system_state,
)

#: Three pages and one below 4 GiB that no guest uses: Intel's VMX needs them while the guest is in real mode.
_TSS, _IDENTITY_MAP = 0xFFFB_D000, 0xFFFB_C000
#: A time that does not come (timer_settime takes a time_t).
_NEVER = (1 << 62) - 1


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


class Machine:
    """One VM with one virtual processor. It takes over ``memory`` and closes it.

    :param has_apic: the processor has a local APIC, in the kernel, as a guest with a kernel of its own needs; an I/O
        APIC, if any, is a device like others. Otherwise it runs programs in ring 3 and gets no interrupts.
    :raises KvmError: KVM refuses; everything made so far is closed.
    """

    def __init__(self, host: Host, memory: GuestMemory, *, has_apic: bool = False) -> None:
        self.memory = memory
        self._kick: Kick | None = None
        self._kick_lock = threading.Lock()
        self._stop = self._interrupted = False
        self._deadline = self._alarm = _NEVER
        with ExitStack() as undo:
            undo.callback(memory.close)
            self.vm = undo.enter_context(host.kvm.create_vm())
            memory.attach(self.vm.set_user_memory_region)
            if has_apic:
                self.vm.set_identity_map_addr(_IDENTITY_MAP)
                self.vm.set_tss_addr(_TSS)
                self.vm.create_split_irqchip()
            self.vcpu = undo.enter_context(self.vm.create_vcpu(0))
            self.vcpu.set_cpuid2(host.system_cpuid if has_apic else host.cpuid)
            self._msrs = host.system_msrs if has_apic else None
            if not has_apic:
                self.vcpu.set_xcrs(host.xcrs)
            self._owned = undo.pop_all()

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop

    @property
    def has_apic(self) -> bool:
        """Whether the processor has a local APIC; then KVM delivers interrupts and serves HLT."""
        return self._msrs is not None

    def save_vcpu(self, msrs: tuple[int, ...] = ()) -> VcpuState:
        """The processor's state now; with these MSRs, or with all if it has a local APIC."""
        if self._msrs is None:
            return save_program_state(self.vcpu, msrs)
        return save_system_state(self.vm, self.vcpu, self._msrs)

    def restore_vcpu(self, state: VcpuState) -> None:
        """Give the processor a saved state.

        :raises KvmError: KVM refuses it.
        """
        if state.system is None:
            restore_program_state(self.vcpu, state)
        else:
            restore_system_state(self.vm, self.vcpu, state, state.system)

    def run(self, guest: Guest, deadline_ns: int) -> bool:
        """Run until the guest ends (True), or until the deadline (CLOCK_MONOTONIC, ns) or :meth:`stop` (False)."""
        kick = current()
        self._deadline = deadline_ns
        with self._kick_lock:
            self._kick = kick
            if self._stop or self._interrupted:
                kick.send()
            self._interrupted = False
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

    def settle(self, guest: Guest) -> None:
        """Finish what the last exit left half done without running the guest further: the read that it waits for, the
        end of an interrupt that KVM has not told of yet. To be called between runs, before the processor's state is
        read, as none of this is in it.
        """
        # With a kick pending, KVM_RUN completes the access and serves its own requests, but does not enter the guest.
        # (With immediate_exit it would not get as far as the requests.)
        kick = current()
        self.vcpu.set_signal_mask(kick.mask)
        kick.send()
        try:
            # An access that crosses a page is a second exit, and must not stay half done whatever the guest says of it.
            while (reason := self.vcpu.run()) != KVM_EXIT_INTR:
                guest.handle_exit(reason)
        finally:
            kick.drain()

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
        self._stop = True
        self.interrupt()

    def interrupt(self) -> None:
        """Let the guest's ``handle_exit`` be called with KVM_EXIT_INTR soon; from any thread. If the machine does
        not run, then when it does.
        """
        # Under the lock the running thread cannot leave run(), so the signal cannot go to a thread that has ended.
        with self._kick_lock:
            if self._kick is not None:
                self._kick.send()
            else:
                self._interrupted = True

    def close(self) -> None:
        """Destroy the VM and free its memory; closing twice is fine."""
        self._owned.close()

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Machine {self.vm!r} {self.memory!r}>"
