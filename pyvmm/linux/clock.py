"""The clocks of a sandbox (clock_gettime(2)).

CLOCK_REALTIME is the host's. CLOCK_MONOTONIC starts near zero when a template boots and goes on from there in every
fork, whatever host the fork runs on and however long the snapshot lay on disk: it never steps back, and it tells
nothing about the host.

A program reads both without an exit through the vDSO, from the *vvar* page (words, in this order): tsc_base,
tsc_valid, monotonic base (ns), mult, offset of real time (ns), sequence. The page is renewed from the guest's own
counter, which the vDSO passes along: at the first reading in a fork and then every ``_RENEW_SECONDS``, so that the
host's correction of its clock (NTP) is followed closely.
"""

import struct
import time

_VVAR = struct.Struct("<6Q")
_RENEW_SECONDS = 4
_MASK = (1 << 64) - 1


class Clock:
    """The time in one sandbox.

    :param monotonic_ns: what CLOCK_MONOTONIC shall show now.
    :param tsc_khz: frequency of the guest's time-stamp counter (KVM_GET_TSC_KHZ); 0: unknown, the vDSO always makes
        the system call.
    """

    def __init__(self, monotonic_ns: int, tsc_khz: int) -> None:
        self._offset = monotonic_ns - time.monotonic_ns()
        self._cpu_offset = -time.thread_time_ns()
        self._tsc_khz = tsc_khz
        self._sequence = 0
        self._tsc_base = self._mono_base = 0

    def realtime_ns(self) -> int:
        """CLOCK_REALTIME."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC, CLOCK_BOOTTIME."""
        return time.monotonic_ns() + self._offset

    def cpu_ns(self) -> int:
        """CLOCK_PROCESS_CPUTIME_ID: the processor time of the host thread that runs the guest, since it runs it."""
        return max(time.thread_time_ns() + self._cpu_offset, 0)

    def start(self) -> None:
        """The calling host thread runs this guest from now on: processor time counts from here."""
        self._cpu_offset = -time.thread_time_ns()

    def empty(self, view: memoryview, vvar: int) -> None:
        """Empty the vvar page at physical address ``vvar``, so that the first reading comes to :meth:`calibrate`."""
        _VVAR.pack_into(view, vvar, 0, 0, 0, 0, 0, 0)

    def host_monotonic_ns(self, guest_ns: int) -> int:
        """The host's CLOCK_MONOTONIC at the guest's ``guest_ns``: what a wait on the host takes."""
        return guest_ns - self._offset

    def calibrate(self, view: memoryview, vvar: int, tsc: int) -> None:
        """Renew the vvar page at physical address ``vvar``, given that the guest's counter was ``tsc`` a moment ago."""
        if not self._tsc_khz:
            return
        mult = (1_000_000 << 32) // self._tsc_khz
        monotonic = self.monotonic_ns()
        if self._sequence:
            # A reading through the old page must not have been later than one through the new page.
            delta = (tsc - self._tsc_base) & _MASK
            if delta < 1 << 62:
                monotonic = max(monotonic, self._mono_base + (delta * mult >> 32))
        self._tsc_base, self._mono_base = tsc, monotonic
        self._sequence += 1
        real_offset = (self.realtime_ns() - self.monotonic_ns()) & _MASK
        valid = self._tsc_khz * 1000 * _RENEW_SECONDS
        _VVAR.pack_into(view, vvar, tsc, valid, monotonic & _MASK, mult, real_offset, self._sequence)
