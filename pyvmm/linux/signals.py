"""Signals: dispositions, masks, what is pending, and what happens by default (signal(7)).

Each thread has a mask, an alternate stack and signals that were sent to it; the threads of a process share dispositions
and the signals that were sent to all of them. How a handler is entered and left is in :mod:`pyvmm.linux.sigframe`.
"""

from collections import deque
from dataclasses import dataclass
from errno import EINVAL, ENOMEM, EPERM
from typing import Any, NamedTuple

from pyvmm.linux.abi.signal import (
    MINSIGSTKSZ,
    NSIG,
    SI_KERNEL,
    SIG_DFL,
    SIG_IGN,
    SIGCHLD,
    SIGCONT,
    SIGKILL,
    SIGRTMIN,
    SIGSTOP,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    SIGURG,
    SIGWINCH,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.wait import WaitQueue

_IGNORED_BY_DEFAULT = frozenset({SIGCHLD, SIGCONT, SIGURG, SIGWINCH})
STOPPING = frozenset({SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU})
#: SIGKILL and SIGSTOP cannot be blocked, caught or ignored.
UNBLOCKABLE = 1 << SIGKILL - 1 | 1 << SIGSTOP - 1
STOP_MASK = sum(1 << signo - 1 for signo in STOPPING)
ALL_SIGNALS = (1 << NSIG) - 1
#: RLIMIT_SIGPENDING: real-time signals that are queued in a sandbox, and timers that may send some.
_QUEUED_MAX = 1024


class Action(NamedTuple):
    """``struct kernel_sigaction``."""

    handler: int = SIG_DFL
    flags: int = 0
    restorer: int = 0
    mask: int = 0


_DEFAULT = Action()


@dataclass(slots=True)
class SignalInfo:
    """What ``siginfo_t`` says of one signal; ``address`` for faults, the others for signals that somebody sent."""

    signo: int
    code: int = SI_KERNEL
    address: int = 0
    pid: int = 0
    uid: int = 0
    value: int = 0
    #: For faults: the exception's vector, error code and CR2, as the signal context shows them.
    trapno: int = 0
    error: int = 0
    cr2: int = 0
    #: For SIGCHLD: si_status.
    status: int = 0


class SignalBudget:
    """How many more signals a user may have queued (RLIMIT_SIGPENDING)."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _QUEUED_MAX

    def take(self) -> bool:
        """One more; False if there are too many."""
        if not self.left:
            return False
        self.left -= 1
        return True


class PendingSignals:
    """Signals that wait for delivery: one of each kind, real-time signals queued. Bit ``signo - 1`` stands for one."""

    __slots__ = ("_budget", "_queues", "count", "mask")

    def __init__(self, budget: SignalBudget) -> None:
        self._budget = budget
        self.mask = 0
        self.count = 0
        self._queues: dict[int, deque[SignalInfo]] = {}

    def add(self, info: SignalInfo) -> bool:
        """Queue a signal; False if there is no room. One that is pending already is queued again only if real-time."""
        bit = 1 << info.signo - 1
        if not self.mask & bit:
            self.mask |= bit
            self._queues[info.signo] = deque((info,))
        elif info.signo < SIGRTMIN:
            return True
        elif not self._budget.take():
            return False
        else:
            self._queues[info.signo].append(info)
        self.count += 1
        return True

    def take(self, wanted: int) -> SignalInfo | None:
        """Remove and give the first signal, lowest number first, of those in the mask ``wanted``."""
        ready = self.mask & wanted
        if not ready:
            return None
        signo = (ready & -ready).bit_length()
        queue = self._queues[signo]
        info = queue.popleft()
        self.count -= 1
        if queue:
            self._budget.left += 1
        else:
            del self._queues[signo]
            self.mask &= ~(1 << signo - 1)
        return info

    def discard(self, mask: int) -> None:
        """Forget all signals of ``mask``."""
        for signo in [signo for signo in self._queues if mask & 1 << signo - 1]:
            count = len(self._queues.pop(signo))
            self.count -= count
            self._budget.left += count - 1
        self.mask &= ~mask


class SharedSignals:
    """What the threads of a process have in common (``sighand_struct`` and ``shared_pending``)."""

    __slots__ = ("actions", "arrived", "budget", "pending")

    def __init__(self, actions: dict[int, Action] | None = None, budget: SignalBudget | None = None) -> None:
        self.actions: dict[int, Action] = actions if actions is not None else {}
        #: Shared by all processes of the user, of whom a sandbox has one.
        self.budget = budget or SignalBudget()
        self.pending = PendingSignals(self.budget)
        #: Woken when a signal becomes pending, for the process or one of its threads (``signalfd_wqh``).
        self.arrived = WaitQueue()


class SignalState:
    """One thread's signals."""

    __slots__ = (
        "blocked", "pending", "really_blocked", "saved_mask", "shared", "stack_address", "stack_flags", "stack_size",
    )  # fmt: skip

    def __init__(self, shared: SharedSignals | None = None) -> None:
        self.shared = shared or SharedSignals()
        self.blocked = 0
        self.pending = PendingSignals(self.shared.budget)
        #: The mask outside of sigtimedwait(2), which does not block what it waits for (``real_blocked``): a signal that
        #: is in it is kept though it would be ignored.
        self.really_blocked = 0
        #: The mask to go back to after a handler, when a call like ppoll(2) has changed it for its own time.
        self.saved_mask: int | None = None
        self.stack_address = self.stack_size = 0
        self.stack_flags = SS_DISABLE

    @property
    def actions(self) -> dict[int, Action]:
        """Dispositions that are not the default, by signal."""
        return self.shared.actions

    def action(self, signo: int) -> Action:
        """The disposition of ``signo``."""
        return self.shared.actions.get(signo, _DEFAULT)

    def is_ignored(self, signo: int) -> bool:
        """Whether ``signo`` would have no effect."""
        handler = self.action(signo).handler
        return handler == SIG_IGN or (handler == SIG_DFL and signo in _IGNORED_BY_DEFAULT)

    def on_stack(self, rsp: int) -> bool:
        """Whether a thread with this stack pointer is on its alternate stack (``on_sig_stack()``)."""
        return not self.stack_flags & SS_DISABLE and 0 <= rsp - self.stack_address < self.stack_size

    def set_stack(self, rsp: int, address: int, flags: int, size: int) -> None:
        """Use another alternate stack, or none (``do_sigaltstack()``).

        :raises GuestError: EPERM, it is in use now; EINVAL; ENOMEM, it is too small.
        """
        if self.on_stack(rsp) and not self.stack_flags & SS_AUTODISARM:
            raise GuestError(EPERM)
        mode = flags & ~SS_AUTODISARM
        if mode not in (0, SS_ONSTACK, SS_DISABLE):
            raise GuestError(EINVAL)
        if mode == SS_DISABLE:
            address = size = 0
        elif size < MINSIGSTKSZ:
            raise GuestError(ENOMEM)
        self.stack_address, self.stack_size = address, size
        self.stack_flags = flags & (SS_AUTODISARM | SS_DISABLE)

    def send(self, signo: int, info: SignalInfo | None = None) -> bool:
        """Make ``signo`` pending for this thread; False if its queue is full. One that would have no effect is dropped
        unless it is blocked.
        """
        if self.is_ignored(signo) and not (self.blocked | self.really_blocked) & 1 << signo - 1:
            return True
        return self.pending.add(info or SignalInfo(signo))

    @property
    def deliverable(self) -> int:
        """The mask of the signals that are pending and not blocked."""
        return (self.pending.mask | self.shared.pending.mask) & ~self.blocked

    def next_deliverable(self) -> SignalInfo | None:
        """Take the first signal that is not blocked: one's own before the process's, lowest number first."""
        wanted = ~self.blocked
        return self.pending.take(wanted) or self.shared.pending.take(wanted)

    def take(self, wanted: int) -> SignalInfo | None:
        """Take the first pending signal of ``wanted`` (sigtimedwait(2))."""
        return self.pending.take(wanted) or self.shared.pending.take(wanted)

    def pending_mask(self) -> int:
        """Pending signals as a mask."""
        return self.pending.mask | self.shared.pending.mask

    def reset_for_exec(self) -> None:
        """execve(2): handlers are gone, ignored signals stay so, there is no alternate stack."""
        kept = {signo: Action(SIG_IGN) for signo, action in self.actions.items() if action.handler == SIG_IGN}
        pending, arrived = self.shared.pending, self.shared.arrived
        self.shared = SharedSignals(kept, self.shared.budget)
        self.shared.pending, self.shared.arrived = pending, arrived
        self.stack_address, self.stack_size, self.stack_flags = 0, 0, SS_DISABLE

    def save(self) -> dict[str, object]:
        """Plain data."""
        return {
            "actions": [(signo, *action) for signo, action in self.actions.items()],
            "blocked": self.blocked,
            "stack": (self.stack_address, self.stack_size, self.stack_flags),
        }

    @classmethod
    def restore(cls, state: "FrozenSignals", shared: SharedSignals | None = None) -> "SignalState":
        """A copy of saved state; ``shared`` is that of the process's first thread."""
        signals = cls(shared or SharedSignals(dict(state.actions)))
        signals.blocked = state.blocked
        signals.stack_address, signals.stack_size, signals.stack_flags = state.stack
        return signals


class FrozenSignals:
    """Saved signal state, made ready once for all forks."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.actions = {row[0]: Action(*row[1:]) for row in state["actions"]}
        self.blocked = state["blocked"]
        self.stack = tuple(state["stack"])


def valid(signo: int) -> bool:
    """Whether there is a signal of that number."""
    return 1 <= signo <= NSIG
