"""How a running guest is stopped: one signal, blocked everywhere but inside KVM_RUN, and one kernel timer a thread.

``KVM_SET_SIGNAL_MASK`` lets KVM_RUN take a signal that the thread itself has blocked: the run ends with EINTR, no
handler runs, and a signal that comes just before KVM_RUN ends it at once, so nothing is ever lost. The same blocked
signal ends a wait (:meth:`Kick.wait`), so a guest that sleeps stops as promptly as one that spins. A POSIX timer
delivers it to the very thread at the deadline (``SIGEV_THREAD_ID``, timer_create(2)): no watchdog thread, and no
lock that a busy interpreter could hold.
"""

import ctypes
import os
import signal
import threading
import time

from pyvmm.errors import HostError
from pyvmm.kvm import signal_mask

#: The signal that KVM_RUN is woken with. Real-time signals 32 and 33 belong to glibc; this one is rarely used by
#: anybody.
KICK_SIGNAL = signal.SIGRTMIN + 5

_SIGEV_THREAD_ID = 4


class _Sigevent(ctypes.Structure):
    """``struct sigevent`` (sigevent(7)), 64 bytes."""

    _fields_ = (
        ("sigev_value", ctypes.c_void_p),
        ("sigev_signo", ctypes.c_int),
        ("sigev_notify", ctypes.c_int),
        ("sigev_notify_thread_id", ctypes.c_int),
        ("_pad", ctypes.c_int * 11),
    )


class _Itimerspec(ctypes.Structure):
    """``struct itimerspec`` (timer_settime(2))."""

    _fields_ = (
        ("interval_sec", ctypes.c_long),
        ("interval_nsec", ctypes.c_long),
        ("value_sec", ctypes.c_long),
        ("value_nsec", ctypes.c_long),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_timer_create = _libc.timer_create
_timer_create.argtypes = (ctypes.c_int, ctypes.POINTER(_Sigevent), ctypes.POINTER(ctypes.c_void_p))
_timer_settime = _libc.timer_settime
_timer_settime.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Itimerspec), ctypes.c_void_p)
_timer_delete = _libc.timer_delete
_timer_delete.argtypes = (ctypes.c_void_p,)

_SIGNALS = frozenset({KICK_SIGNAL})


class Kick:
    """The kick of one host thread. Get it with :func:`current`; only that thread may arm it and wait."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        #: For KVM_SET_SIGNAL_MASK: what the thread blocks anyway, but not the kick. A signal that is blocked for
        #: good and pending would otherwise end every KVM_RUN; one that is not (SIGINT) still reaches Python at
        #: once.
        self.mask = signal_mask(set(blocked) - _SIGNALS)
        event = _Sigevent(
            sigev_signo=KICK_SIGNAL, sigev_notify=_SIGEV_THREAD_ID, sigev_notify_thread_id=threading.get_native_id()
        )
        self._timer = ctypes.c_void_p()
        if _timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)):
            raise HostError(
                f"timer_create failed: {os.strerror(ctypes.get_errno())}; see `ulimit -i` (pending signals)"
            )
        self._owner = os.getpid()

    def arm(self, deadline_ns: int) -> None:
        """Kick this thread at ``deadline_ns`` (CLOCK_MONOTONIC, nanoseconds); replaces an earlier deadline."""
        seconds, nanoseconds = divmod(max(deadline_ns, 1), 1_000_000_000)
        _timer_settime(self._timer, 1, _Itimerspec(0, 0, seconds, nanoseconds), None)  # 1: TIMER_ABSTIME

    def disarm(self) -> None:
        """No kick by time any more; one that is pending is taken back."""
        _timer_settime(self._timer, 0, _Itimerspec(0, 0, 0, 0), None)
        self.drain()

    def drain(self) -> None:
        """Take every pending kick, so that the next KVM_RUN runs."""
        while signal.sigtimedwait(_SIGNALS, 0) is not None:
            pass

    def wait(self, until_ns: int | None) -> bool:
        """Sleep until ``until_ns`` (CLOCK_MONOTONIC; None: for ever) or a kick; True when it was a kick (which is
        taken).
        """
        if until_ns is None:
            signal.sigwaitinfo(_SIGNALS)
            return True
        left = until_ns - time.monotonic_ns()
        # sigtimedwait takes a time_t; a day at a time is as good as for ever, and the caller asks again.
        return left > 0 and signal.sigtimedwait(_SIGNALS, min(left, 86_400_000_000_000) / 1e9) is not None

    def send(self) -> None:
        """Kick from any thread."""
        signal.pthread_kill(self._thread, KICK_SIGNAL)

    def __del__(self) -> None:
        # A child of os.fork() has a copy of this object, but POSIX timers are not inherited.
        if getattr(self, "_timer", None) and getattr(self, "_owner", None) == os.getpid():
            _timer_delete(self._timer)


_local = threading.local()


def current() -> Kick:
    """The kick of the calling thread, made at its first use and kept as long as the thread."""
    kick: Kick | None = getattr(_local, "kick", None)
    if kick is None or kick._owner != os.getpid():
        kick = _local.kick = Kick()
    return kick
