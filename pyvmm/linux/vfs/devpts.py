"""``/dev/pts``, ``/dev/ptmx`` and ``/dev/tty``: the names of terminals (pts(4), tty(4), ``fs/devpts``)."""

from collections.abc import Iterator
from errno import EIO, ENXIO
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import O_NOCTTY
from pyvmm.linux.abi.stat import S_IFCHR, S_IFDIR, S_IFMT, makedev
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.directory import DirectoryFile
from pyvmm.linux.files.pty import MasterFile, TerminalFile
from pyvmm.linux.files.terminal import TERMINAL_COST, Terminal
from pyvmm.linux.vfs.inode import FileSystem, Inode

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.kernel import Kernel
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.quota import Quota

DEVPTS = FileSystem(
    dev=0x22, kind=b"devpts", magic=0x1CD1, mountpoint=b"/dev/pts", options=b"rw,nosuid,noexec,mode=620,ptmxmode=666"
)
_TTY_GROUP = 5
_SLAVE_MAJOR = 136


class TerminalInode(Inode):
    """``/dev/pts/N``."""

    __slots__ = ("terminal",)

    def __init__(self, terminal: Terminal, uid: int, now: int) -> None:
        super().__init__(DEVPTS, terminal.number + 3, S_IFCHR | 0o620, uid, _TTY_GROUP, now)
        self.rdev = makedev(_SLAVE_MAJOR, terminal.number)
        self.terminal = terminal

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """A session leader without a terminal gets this one for its own, unless O_NOCTTY."""
        terminal = self.terminal
        if terminal.is_locked or not terminal.is_open:
            raise GuestError(EIO)
        file = TerminalFile(self, flags, terminal)
        process = task.process
        if (
            not flags & O_NOCTTY
            and process.session == process.pid
            and process.terminal is None
            and not terminal.session
            and file.readable
        ):
            terminal.control(process)
        return file

    def set_mode(self, mode: int, now: int) -> None:
        """See :meth:`Inode.set_mode`."""
        self.mode = self.mode & S_IFMT | mode
        self.ctime = now

    def set_owner(self, uid: int, gid: int, now: int) -> None:
        """See :meth:`Inode.set_owner`."""
        self.uid, self.gid, self.ctime = uid, gid, now

    def set_times(self, atime: int | None, mtime: int | None, now: int) -> None:
        """See :meth:`Inode.set_times`."""
        self.atime = self.atime if atime is None else atime
        self.mtime = self.mtime if mtime is None else mtime
        self.ctime = now


class Terminals(Inode):
    """The directory of all terminals; it numbers them."""

    __slots__ = ("_inodes", "_quota")

    def __init__(self, quota: "Quota", now: int) -> None:
        super().__init__(DEVPTS, 1, S_IFDIR | 0o755, 0, 0, now)
        self.nlink = 2
        self.name = b"pts"
        self._quota = quota
        self._inodes: dict[int, TerminalInode] = {}

    def make(self, kernel: "Kernel", uid: int) -> Terminal:
        """A new terminal, by the lowest free number; ENOSPC."""
        self._quota.take(TERMINAL_COST)
        number = 0
        while number in self._inodes:
            number += 1
        terminal = Terminal(kernel, number)
        inode = self._inodes[number] = TerminalInode(terminal, uid, kernel.clock.realtime_ns())
        inode.parent, inode.name = self, b"%d" % number
        return terminal

    def remove(self, terminal: Terminal) -> None:
        """Its master is closed."""
        del self._inodes[terminal.number]
        self._quota.take(-TERMINAL_COST)

    def inode(self, terminal: Terminal) -> TerminalInode:
        """The inode of a terminal."""
        return self._inodes[terminal.number]

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """See :meth:`Inode.open`."""
        return DirectoryFile(self, flags)

    def lookup(self, name: bytes) -> Inode | None:
        """See :meth:`Inode.lookup`."""
        return self._inodes.get(int(name)) if name.isdigit() and name == b"%d" % int(name) else None

    def iterate(self, cookie: int) -> Iterator[tuple[int, bytes, int, int]]:
        """See :meth:`Inode.iterate`."""
        for number, inode in sorted(self._inodes.items()):
            if number + 3 > cookie:
                yield number + 3, inode.name, inode.ino, inode.mode


class MultiplexerInode(Inode):
    """``/dev/ptmx``: each open makes a terminal."""

    __slots__ = ("_terminals",)

    def __init__(self, fs: FileSystem, ino: int, terminals: Terminals, now: int) -> None:
        super().__init__(fs, ino, S_IFCHR | 0o666, 0, 0, now)
        self.rdev = makedev(5, 2)
        self._terminals = terminals

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """``ptmx_open()``."""
        return MasterFile(self, flags, self._terminals.make(task.kernel, task.creds.fsuid))


class ControllingInode(Inode):
    """``/dev/tty``: the terminal of whoever opens it."""

    __slots__ = ()

    def __init__(self, fs: FileSystem, ino: int, now: int) -> None:
        super().__init__(fs, ino, S_IFCHR | 0o666, 0, 0, now)
        self.rdev = makedev(5, 0)

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """``tty_open_current_tty()``: ENXIO for a process without one."""
        terminal = task.process.terminal
        if not isinstance(terminal, Terminal):
            raise GuestError(ENXIO)
        if not terminal.is_open:
            raise GuestError(EIO)
        return TerminalFile(self, flags, terminal)
