"""How the personality says no.

:class:`GuestError` is the only exception that becomes an errno in the guest. :class:`GuestDeath` ends the guest on
purpose (no memory left for a page that must be there). Whatever else escapes a system call is a bug of ours:
    the dispatcher logs it once and kills that guest, and the guest never sees it as an errno.
"""

import errno as _errno


class GuestError(Exception):
    """A system call fails with ``errno`` (a positive number from ``asm-generic/errno.h``)."""

    __slots__ = ("errno",)

    def __init__(self, errno: int) -> None:
        self.errno = errno

    def __str__(self) -> str:
        return _errno.errorcode.get(self.errno, str(self.errno))


class OutOfMemory(Exception):
    """The guest needs a frame and its limit is reached; what Linux answers with the OOM killer (SIGKILL)."""


class OutputLimitReached(Exception):
    """The guest wrote more to descriptor 1 or 2 than is kept; it is stopped."""


class BadAccess(Exception):
    """An access that Linux answers with a signal: ``signo`` (SIGSEGV or SIGBUS) and its ``si_code``."""

    __slots__ = ("code", "signo")

    def __init__(self, signo: int, code: int) -> None:
        self.signo = signo
        self.code = code


class GuestExit(Exception):
    """The program ends with ``code`` (0 to 255), or by ``signo``."""

    def __init__(self, code: int = 0, signo: int = 0) -> None:
        self.code = code
        self.signo = signo


class ThreadExit(Exception):
    """The thread ends; if it is the last one, the program with ``code``."""

    def __init__(self, code: int) -> None:
        self.code = code


class RegistersSet(Exception):
    """A system call has set all registers itself (rt_sigreturn): its result must not go into RAX."""


class Freeze(Exception):
    """The program asks for what only a fork will have; it is to stop here, before the system call that asks."""
