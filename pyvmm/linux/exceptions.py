"""Processor exceptions as the signals that Linux sends for them (``arch/x86/kernel/traps.c``)."""

from pyvmm.linux.abi.signal import (
    BUS_ADRALN,
    FPE_FLTINV,
    FPE_INTDIV,
    ILL_ILLOPN,
    SI_KERNEL,
    SIGBUS,
    SIGFPE,
    SIGILL,
    SIGSEGV,
    SIGTRAP,
    TRAP_TRACE,
)

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
