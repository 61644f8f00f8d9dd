"""Processor exceptions: page faults are served, all others become the signal that Linux sends for them
(``arch/x86/kernel/traps.c``).
"""

from typing import TYPE_CHECKING

from pyvmm.linux import sigframe
from pyvmm.linux.abi.signal import (
    BUS_ADRALN,
    FPE_FLTINV,
    FPE_INTDIV,
    ILL_ILLOPN,
    SEGV_PKUERR,
    SI_KERNEL,
    SIGBUS,
    SIGFPE,
    SIGILL,
    SIGSEGV,
    SIGTRAP,
    TRAP_TRACE,
)
from pyvmm.linux.errors import BadAccess
from pyvmm.linux.signals import SignalInfo

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

GENERAL_PROTECTION = 13
_INVALID_OPCODE, _PAGE_FAULT = 6, 14
_INT_N = b"\xcd"
#: Bits of a page fault's error code.
_WRITE, _EXECUTE, _PROTECTION_KEY = 2, 16, 32

_SIGNALS = {
    0: (SIGFPE, FPE_INTDIV),  # #DE
    1: (SIGTRAP, TRAP_TRACE),  # #DB
    3: (SIGTRAP, SI_KERNEL),  # #BP
    4: (SIGSEGV, SI_KERNEL),  # #OF
    5: (SIGSEGV, SI_KERNEL),  # #BR
    6: (SIGILL, ILL_ILLOPN),  # #UD
    11: (SIGBUS, SI_KERNEL),  # #NP
    12: (SIGBUS, SI_KERNEL),  # #SS
    16: (SIGFPE, FPE_FLTINV),  # #MF
    17: (SIGBUS, BUS_ADRALN),  # #AC
    19: (SIGFPE, FPE_FLTINV),  # #XM
}


def signal_of(vector: int) -> tuple[int, int]:
    """(signal, si_code) for an exception; #GP, and an INT n that no gate allows, is a SIGSEGV that does not say
    where.
    """
    return _SIGNALS.get(vector, (SIGSEGV, SI_KERNEL))


def fault(task: "Task", info: SignalInfo) -> None:
    """Give the thread that runs the signal of what it did.

    :raises GuestExit: it has no handler for it.
    """
    sigframe.force(task, task.kernel.registers.processor, info)


def handle_exception(task: "Task", vector: int) -> None:
    """The thread that runs has caused exception ``vector``."""
    cpu = task.cpu
    error, from_program = cpu.enter_exception(vector)
    if not from_program:
        raise RuntimeError(f"exception {vector} inside the monitor's own code, RIP {cpu.rip:#x}")
    if vector == _PAGE_FAULT:
        address = cpu.fault_address
        try:
            if error & _PROTECTION_KEY:
                # No page has a key, but kvm_pvm leaves WRPKRU to programs, which can take their rights from themselves.
                raise BadAccess(SIGSEGV, SEGV_PKUERR)
            task.mm.fault(address, bool(error & _WRITE), bool(error & _EXECUTE))
        except BadAccess as bad:
            fault(task, SignalInfo(bad.signo, bad.code, address, trapno=vector, error=error, cr2=address))
        return
    if vector == _INVALID_OPCODE and task.mem.readable(cpu.rip, 1) and task.mem.read(cpu.rip, 1) == _INT_N:
        # An INT n that no gate allows; kvm_pvm makes #UD of it where a processor would raise #GP.
        vector = GENERAL_PROTECTION
    signo, code = signal_of(vector)
    fault(task, SignalInfo(signo, code, cpu.rip, trapno=vector, error=error))
