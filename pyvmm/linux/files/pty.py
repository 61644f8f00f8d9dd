"""Pseudo-terminals (pty(7)): the master, which plays the keyboard and the screen, and the slave, which is the terminal
of the programs (``drivers/tty/pty.c``, ``drivers/tty/n_tty.c``).
"""

from errno import EAGAIN, EINVAL, EIO, ENOTTY, EPERM, ESRCH
from typing import TYPE_CHECKING

from pyvmm.linux.abi import termios as abi
from pyvmm.linux.abi.fcntl import O_CLOEXEC, O_NONBLOCK
from pyvmm.linux.abi.ioctls import FIONREAD
from pyvmm.linux.abi.poll import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from pyvmm.linux.abi.signal import NSIG, SIGTTIN, SIGTTOU, SIGWINCH
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.files.terminal import Terminal
from pyvmm.linux.wait import WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode

_IN, _OUT = POLLIN | POLLRDNORM, POLLOUT | POLLWRNORM
_HUNG_UP = _IN | _OUT | POLLERR | POLLHUP
_TENTH = 100_000_000


class MasterFile(OpenFile):
    """What ``/dev/ptmx`` gives."""

    __slots__ = ("terminal",)

    def __init__(self, inode: "Inode", flags: int, terminal: Terminal) -> None:
        super().__init__(inode, flags)
        self.terminal = terminal

    def closed(self) -> None:
        """See :meth:`OpenFile.closed`."""
        self.terminal.closed()

    def read(self, task: "Task", count: int) -> bytes:
        """What is on the screen; EIO when nobody can write there any more."""
        terminal = self.terminal
        if not count:
            return b""
        if not terminal.shown:
            if terminal.slave_left:
                raise GuestError(EIO)
            if self.flags & O_NONBLOCK:
                raise GuestError(EAGAIN)
            task.wait(terminal.changed)
        if terminal.packets:
            return bytes((abi.TIOCPKT_DATA,)) + terminal.take_shown(count - 1)
        return terminal.take_shown(count)

    def unread(self, data: bytes) -> None:
        """See :meth:`OpenFile.unread`."""
        self.terminal.put_back_shown(data)

    def write(self, task: "Task", data: bytes) -> int:
        """Type."""
        terminal = self.terminal
        done = terminal.type(data)
        if done == len(data):
            return done
        if self.flags & O_NONBLOCK:
            if done:
                return done
            raise GuestError(EAGAIN)
        task.wait(terminal.changed, progress=done)

    def poll(self, task: "Task") -> int:
        """See :meth:`OpenFile.poll`."""
        terminal = self.terminal
        mask = _IN if terminal.shown else 0
        if terminal.slave_left:
            mask |= POLLHUP
        return mask | _OUT if terminal.room_for_keys() else mask

    def queues(self) -> tuple[WaitQueue, ...]:
        """See :meth:`OpenFile.queues`."""
        return (self.terminal.changed,)

    def ioctl(self, task: "Task", request: int, argument: int) -> int:
        """See :meth:`OpenFile.ioctl`."""
        terminal, mem = self.terminal, task.mem
        if request == abi.TIOCGPTN:
            mem.write_u32(argument, terminal.number)
        elif request == abi.TIOCSPTLCK:
            terminal.is_locked = bool(mem.read_u32(argument))
        elif request == abi.TIOCGPTLCK:
            mem.write_u32(argument, terminal.is_locked)
        elif request == abi.TIOCPKT:
            terminal.packets = bool(mem.read_u32(argument))
        elif request == abi.TIOCGPTPEER:
            task.files.lowest_free()
            inode = task.kernel.vfs.terminals.inode(terminal)
            return task.files.install(inode.open(task, argument & 0xFFFF_FFFF), bool(argument & O_CLOEXEC))
        elif request == abi.TIOCSIG:
            if not 1 <= argument <= NSIG:
                raise GuestError(EINVAL)
            terminal.signal(argument)
        elif request == FIONREAD:
            mem.write_u32(argument, terminal.shown)
        elif request == abi.TIOCOUTQ:
            mem.write_u32(argument, 0)
        elif request == abi.TCFLSH and argument <= abi.TCIOFLUSH:
            terminal.flush((abi.TCOFLUSH, abi.TCIFLUSH, abi.TCIOFLUSH)[argument])
        else:
            return _terminal_ioctl(task, terminal, request, argument, is_master=True)
        return 0


class TerminalFile(OpenFile):
    """What ``/dev/pts/N`` and ``/dev/tty`` give."""

    __slots__ = ("_hang_ups", "terminal")

    def __init__(self, inode: "Inode", flags: int, terminal: Terminal) -> None:
        super().__init__(inode, flags)
        self.terminal = terminal
        self._hang_ups = terminal.hang_ups
        terminal.slaves += 1
        terminal.slave_left = False

    @property
    def is_hung_up(self) -> bool:
        """``tty_hung_up_p()``."""
        return self._hang_ups != self.terminal.hang_ups

    def closed(self) -> None:
        """See :meth:`OpenFile.closed`."""
        terminal = self.terminal
        if not self.is_hung_up:
            terminal.slaves -= 1
            if not terminal.slaves:
                terminal.slave_left = True
                terminal.changed.wake()

    def read(self, task: "Task", count: int) -> bytes:
        """``n_tty_read()``."""
        terminal = self.terminal
        if self.is_hung_up or not count:
            return b""
        terminal.check_background(task, SIGTTIN)
        discipline = terminal.discipline
        if discipline.is_canonical:
            if not discipline.has_line:
                self._wait(task, None)
            data = discipline.take_line(count)
        else:
            data = self._read_raw(task, count)
        terminal.pump()
        return data

    def _read_raw(self, task: "Task", count: int) -> bytes:
        """By VMIN and VTIME (termios(3))."""
        discipline = self.terminal.discipline
        cc, waiting = discipline.settings.cc, discipline.waiting
        least, time = cc[abi.VMIN], cc[abi.VTIME] * _TENTH
        if waiting < min(max(least, 1), count) and (least or time):
            now, until = task.kernel.clock.monotonic_ns(), None
            if time and not least:
                until = task.deadline_after(time)
            elif time and waiting:
                # The time counts anew from each byte on.
                if task.scratch is None or task.scratch[0] != waiting:
                    task.scratch = (waiting, now + time)
                until = task.scratch[1]
            if (until is None or now < until) and not (waiting and self.flags & O_NONBLOCK):
                self._wait(task, until)
        return discipline.take_raw(count)

    def _wait(self, task: "Task", until: int | None) -> None:
        if self.flags & O_NONBLOCK:
            raise GuestError(EAGAIN)
        task.wait(self.terminal.changed, until=until)

    def write(self, task: "Task", data: bytes) -> int:
        """``n_tty_write()``."""
        terminal = self.terminal
        if self.is_hung_up:
            raise GuestError(EIO)
        if terminal.discipline.settings.lflag & abi.TOSTOP:
            terminal.check_background(task, SIGTTOU)
        done = terminal.show(data)
        if done == len(data):
            return done
        if self.flags & O_NONBLOCK:
            if done:
                return done
            raise GuestError(EAGAIN)
        task.wait(terminal.changed, progress=done)

    def poll(self, task: "Task") -> int:
        """``n_tty_poll()``."""
        if self.is_hung_up:
            return _HUNG_UP
        terminal = self.terminal
        discipline = terminal.discipline
        if discipline.is_canonical:
            mask = _IN if discipline.has_line else 0
        else:
            cc = discipline.settings.cc
            least = cc[abi.VMIN] if cc[abi.VMIN] and not cc[abi.VTIME] else 1
            mask = _IN if discipline.waiting >= least else 0
        return mask | _OUT if terminal.can_show else mask

    def queues(self) -> tuple[WaitQueue, ...]:
        """See :meth:`OpenFile.queues`."""
        return (self.terminal.changed,)

    def ioctl(self, task: "Task", request: int, argument: int) -> int:
        """See :meth:`OpenFile.ioctl`."""
        terminal = self.terminal
        if self.is_hung_up:
            raise GuestError(ENOTTY if request == abi.TIOCSPGRP else EIO)
        if request in _CHANGES:
            terminal.check_background(task, SIGTTOU)
        if request == FIONREAD:
            task.mem.write_u32(argument, terminal.discipline.waiting)
        elif request == abi.TIOCOUTQ:
            task.mem.write_u32(argument, terminal.shown)
        elif request == abi.TCFLSH and argument <= abi.TCIOFLUSH:
            terminal.flush(argument)
        elif request == abi.TIOCSTI:
            raise GuestError(EIO)  # dev.tty.legacy_tiocsti = 0
        elif request == abi.TIOCSCTTY:
            self._become_controlling(task)
        elif request == abi.TIOCNOTTY:
            if task.process.terminal is not terminal:
                raise GuestError(ENOTTY)
            if task.process.session == task.pid:
                terminal.give_up()
            task.process.terminal = None
        else:
            return _terminal_ioctl(task, terminal, request, argument, is_master=False)
        return 0

    def _become_controlling(self, task: "Task") -> None:
        process, terminal = task.process, self.terminal
        is_leader = process.session == process.pid
        if is_leader and terminal.session == process.session:
            return
        if not is_leader or process.terminal is not None or terminal.session:
            raise GuestError(EPERM)
        terminal.control(process)


#: What a process in the background may not do.
_CHANGES = frozenset(
    {
        abi.TCSETS, abi.TCSETSW, abi.TCSETSF, abi.TCSETS2, abi.TCSETSW2, abi.TCSETSF2,
        abi.TCSBRK, abi.TCSBRKP, abi.TCXONC, abi.TCFLSH, abi.TIOCSPGRP,
    }
)  # fmt: skip
_SET = {abi.TCSETS, abi.TCSETSW, abi.TCSETSF, abi.TCSETS2, abi.TCSETSW2, abi.TCSETSF2}
_SET_AND_FLUSH = {abi.TCSETSF, abi.TCSETSF2}


def _terminal_ioctl(task: "Task", terminal: Terminal, request: int, argument: int, *, is_master: bool) -> int:
    """What both ends answer alike: the settings and the size are the terminal's."""
    mem, discipline = task.mem, terminal.discipline
    if request in (abi.TCGETS, abi.TCGETS2):
        mem.write(argument, discipline.settings.pack(with_speeds=request == abi.TCGETS2))
    elif request in _SET:
        size = abi.TERMIOS.size if request <= abi.TCSETSF else abi.TERMIOS2.size
        data = mem.read(argument, size)
        if request in _SET_AND_FLUSH:
            terminal.flush(abi.TCIFLUSH)
        discipline.set(data)
        terminal.pump()
    elif request == abi.TIOCGWINSZ:
        mem.write(argument, terminal.winsize)
    elif request == abi.TIOCSWINSZ:
        winsize = mem.read(argument, abi.WINSIZE.size)
        if winsize != terminal.winsize:
            terminal.winsize = winsize
            terminal.signal(SIGWINCH)
    elif request in (abi.TIOCGPGRP, abi.TIOCGSID):
        if not is_master and task.process.terminal is not terminal:
            raise GuestError(ENOTTY)
        if request == abi.TIOCGSID and not terminal.session:
            raise GuestError(ENOTTY)
        mem.write_u32(argument, terminal.foreground if request == abi.TIOCGPGRP else terminal.session)
    elif request == abi.TIOCSPGRP:
        _set_foreground(task, terminal, mem.read_u32(argument))
    elif request == abi.TIOCGETD:
        mem.write_u32(argument, discipline.settings.line)
    elif request == abi.TCXONC:
        if argument > abi.TCION:
            raise GuestError(EINVAL)
        if argument in (abi.TCOOFF, abi.TCOON):
            discipline.is_stopped = argument == abi.TCOOFF
            terminal.pump()
    elif request == abi.TCFLSH:
        raise GuestError(EINVAL)
    elif request not in (abi.TCSBRK, abi.TCSBRKP, abi.TIOCEXCL, abi.TIOCNXCL):
        raise GuestError(ENOTTY)
    return 0


def _set_foreground(task: "Task", terminal: Terminal, group: int) -> None:
    """tcsetpgrp(3): ENOTTY, EINVAL, ESRCH, EPERM."""
    process = task.process
    if process.terminal is not terminal or terminal.session != process.session:
        raise GuestError(ENOTTY)
    if group >> 31:
        raise GuestError(EINVAL)
    members = [each for each in task.kernel.processes.values() if each.group == group]
    if not members:
        raise GuestError(ESRCH)
    if members[0].session != process.session:
        raise GuestError(EPERM)
    terminal.foreground = group
