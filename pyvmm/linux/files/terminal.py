"""Terminals: what is between the keyboard and screen at one end and the programs at the other, and whose a terminal is
(``drivers/tty/tty_jobctrl.c``). The two ends as open files are in :mod:`.pty`.
"""

from errno import EIO
from typing import TYPE_CHECKING

from pyvmm.linux.abi import termios as abi
from pyvmm.linux.abi.signal import (
    SI_KERNEL,
    SIG_IGN,
    SIGCONT,
    SIGHUP,
    SIGTTIN,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.discipline import LineDiscipline
from pyvmm.linux.process import is_orphaned_group
from pyvmm.linux.signalling import send_to_all
from pyvmm.linux.signals import SignalInfo
from pyvmm.linux.wait import Interrupted, WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.kernel import Kernel
    from pyvmm.linux.process import Process
    from pyvmm.linux.task import Task

#: Bytes on their way to the master, and from it, before a writer has to wait.
_SCREEN_MAX = 65536
_KEYS_MAX = 16384
#: What a terminal takes of the sandbox's memory, with full buffers.
TERMINAL_COST = _SCREEN_MAX + _KEYS_MAX + 16384


class Terminal:
    """One pseudo-terminal."""

    def __init__(self, kernel: "Kernel", number: int) -> None:
        self.kernel = kernel
        self.number = number
        self.discipline = LineDiscipline(self.signal)
        self.winsize = bytes(abi.WINSIZE.size)
        #: What the master can read, and what it has written that has no room in the discipline yet.
        self._screen = bytearray()
        self._keys = bytearray()
        self.is_locked = True
        self.is_open = True
        self.packets = False
        #: Open files of the slave, how often they were hung up, and whether the last one has been closed.
        self.slaves = 0
        self.hang_ups = 0
        self.slave_left = False
        #: Whose controlling terminal it is (0: nobody's), and the process group in front.
        self.session = 0
        self.foreground = 0
        self.changed = WaitQueue()

    def __repr__(self) -> str:
        return f"<Terminal {self.number} session={self.session} foreground={self.foreground}>"

    # ------------------------------------------------------------------------------------------ keyboard and screen

    def room_for_keys(self) -> int:
        """How many the master can type."""
        return _KEYS_MAX - len(self._keys)

    def type(self, keys: bytes) -> int:
        """The master types; how much could be taken."""
        done = min(len(keys), self.room_for_keys())
        self._keys += keys[:done]
        self.pump()
        return done

    def pump(self) -> None:
        """Let the discipline have what was typed, as far as there is room, and show what it echoes."""
        if self._keys:
            del self._keys[: self.discipline.type(bytes(self._keys))]
        echoed = self.discipline.echoed
        if echoed and not self.discipline.is_stopped:
            if len(self._screen) < _SCREEN_MAX:
                self._screen += self.discipline.output(bytes(echoed))
            echoed.clear()
        self.changed.wake()

    def show(self, data: bytes) -> int:
        """The program writes; how much of it could be shown."""
        if self.discipline.is_stopped:
            return 0
        room = _SCREEN_MAX - len(self._screen)
        data = data[: max(room, 0)]
        shown = self.discipline.output(data)
        while len(shown) > room and data:
            data = data[: len(data) // 2]  # Line ends take more than one byte.
            shown = self.discipline.output(data)
        self._screen += shown
        if data:
            self.changed.wake()
        return len(data)

    @property
    def can_show(self) -> bool:
        """Whether the program can write."""
        return len(self._screen) < _SCREEN_MAX - 1 and not self.discipline.is_stopped

    @property
    def shown(self) -> int:
        """Bytes that the master can read."""
        return len(self._screen)

    def take_shown(self, count: int) -> bytes:
        """The master reads."""
        data = bytes(self._screen[:count])
        del self._screen[:count]
        self.changed.wake()
        return data

    def put_back_shown(self, data: bytes) -> None:
        """The master could not take it."""
        self._screen[:0] = data

    def flush(self, which: int) -> None:
        """tcflush(3)."""
        if which in (abi.TCIFLUSH, abi.TCIOFLUSH):
            self.discipline.flush_input()
            self._keys.clear()
        if which in (abi.TCOFLUSH, abi.TCIOFLUSH):
            self._screen.clear()
        self.changed.wake()

    # ----------------------------------------------------------------------------------------------------- processes

    def signal(self, signo: int) -> None:
        """Send a signal to the process group in front."""
        signal_group(self.kernel, self.foreground, signo)

    def control(self, process: "Process") -> None:
        """Become the controlling terminal of the session that ``process`` leads."""
        self.session, self.foreground = process.session, process.group
        process.terminal = self

    def let_go(self) -> None:
        """Its session has it no longer."""
        for process in self.kernel.processes.values():
            if process.terminal is self:
                process.terminal = None
        self.session = self.foreground = 0

    def give_up(self) -> None:
        """The leader of its session does not want it any more (``disassociate_ctty()``)."""
        for signo in (SIGHUP, SIGCONT):
            self.signal(signo)
        self.let_go()

    def session_ended(self) -> None:
        """The leader of its session has ended. The slave can still be used, as that of a pseudo-terminal can."""
        self.signal(SIGHUP)
        self.let_go()

    def _cut_off(self) -> None:
        """Whoever has the slave open has nothing any more (``__tty_hangup()``)."""
        self.hang_ups += 1
        if self.slaves:
            self.slaves, self.slave_left = 0, True
        self.changed.wake()

    def closed(self) -> None:
        """The master is gone."""
        self.is_open = False
        self.kernel.vfs.terminals.remove(self)
        leader = self.kernel.processes.get(self.session)
        if leader is not None:
            leader.former_foreground = self.foreground
            for signo in (SIGHUP, SIGCONT):
                send_to_all((leader,), SignalInfo(signo, SI_KERNEL))
        self.let_go()
        self._cut_off()

    def check_background(self, task: "Task", signo: int) -> None:
        """A process in the background wants what only those in front may do: it is stopped
        (``__tty_check_change()``); EIO where that has no use.
        """
        process = task.process
        if process.terminal is not self or not self.foreground or process.group == self.foreground:
            return
        if task.signals.blocked & 1 << signo - 1 or task.signals.action(signo).handler == SIG_IGN:
            if signo == SIGTTIN:
                raise GuestError(EIO)
            return
        if process.group == self.kernel.first_process.group or is_orphaned_group(process):
            raise GuestError(EIO)
        signal_group(self.kernel, process.group, signo)
        raise Interrupted(restart=True)


def signal_group(kernel: "Kernel", group: int, signo: int) -> None:
    """Send a signal of the terminal's to a process group; 0 is none."""
    if group:
        members = [each for each in kernel.processes.values() if each.group == group]
        send_to_all(members, SignalInfo(signo, SI_KERNEL))


def leader_ended(leader: "Process") -> None:
    """A session leader has ended (``disassociate_ctty()``): who is in front hears of it."""
    if leader.terminal is not None:
        leader.terminal.session_ended()
    elif leader.former_foreground:
        for signo in (SIGHUP, SIGCONT):
            signal_group(leader.kernel, leader.former_foreground, signo)
