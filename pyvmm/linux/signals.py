"""Signals of one process: dispositions, mask, what is pending, and what happens by default (signal(7)).

How a handler is entered and left is in :mod:`pyvmm.linux.sigframe`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from pyvmm.linux.abi.signal import (
    NSIG,
    SI_KERNEL,
    SIG_DFL,
    SIG_IGN,
    SIGCHLD,
    SIGCONT,
    SIGKILL,
    SIGSTOP,
    SIGTSTP,
    SIGTTIN,
    SIGTTOU,
    SIGURG,
    SIGWINCH,
    SS_DISABLE,
)

_IGNORED_BY_DEFAULT = frozenset({SIGCHLD, SIGCONT, SIGURG, SIGWINCH})
_STOPPING = frozenset({SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU})
#: SIGKILL and SIGSTOP cannot be blocked, caught or ignored.
UNBLOCKABLE = 1 << SIGKILL - 1 | 1 << SIGSTOP - 1


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


class SignalState:
    """Dispositions, mask and pending signals. Bit ``signo - 1`` of a mask stands for a signal."""

    def __init__(self) -> None:
        self.actions: dict[int, Action] = {}
        self.blocked = 0
        self.pending: dict[int, SignalInfo] = {}
        #: The mask to go back to after a handler, when a call like ppoll(2) has changed it for its own time.
        self.saved_mask: int | None = None
        self.stack_address = self.stack_size = 0
        self.stack_flags = SS_DISABLE

    def action(self, signo: int) -> Action:
        """The disposition of ``signo``."""
        return self.actions.get(signo, _DEFAULT)

    def is_ignored(self, signo: int) -> bool:
        """Whether ``signo`` would have no effect."""
        handler = self.action(signo).handler
        return handler == SIG_IGN or (handler == SIG_DFL and (signo in _IGNORED_BY_DEFAULT or signo in _STOPPING))

    def send(self, signo: int, info: SignalInfo | None = None) -> None:
        """Make ``signo`` pending; a signal that is pending already is not queued again.

        Stopping a sandbox's only process would be for ever, so stop signals are ignored.
        """
        bit = 1 << signo - 1
        if self.is_ignored(signo) and not self.blocked & bit:
            return
        self.pending.setdefault(signo, info or SignalInfo(signo))

    def next_deliverable(self) -> SignalInfo | None:
        """Take the lowest pending signal that is not blocked."""
        for signo in sorted(self.pending):
            if not self.blocked & 1 << signo - 1:
                return self.pending.pop(signo)
        return None

    def pending_mask(self) -> int:
        """Pending signals as a mask."""
        mask = 0
        for signo in self.pending:
            mask |= 1 << signo - 1
        return mask

    def save(self) -> dict[str, object]:
        """Plain data."""
        return {
            "actions": [(signo, *action) for signo, action in self.actions.items()],
            "blocked": self.blocked,
            "stack": (self.stack_address, self.stack_size, self.stack_flags),
        }

    @classmethod
    def restore(cls, state: "FrozenSignals") -> "SignalState":
        """A copy of saved state."""
        signals = cls()
        signals.actions = dict(state.actions)
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
