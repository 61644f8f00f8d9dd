"""The directories of ``/proc``: the root, one for each process, their tasks and their descriptors."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyvmm.linux.abi.stat import PROC_SUPER_MAGIC, S_IFDIR, S_IFLNK, S_IFREG
from pyvmm.linux.files.directory import DirectoryFile
from pyvmm.linux.files.memory import MemoryFile
from pyvmm.linux.vfs.inode import FileSystem, Inode
from pyvmm.linux.vfs.procfs.network import NETWORK_FILES
from pyvmm.linux.vfs.procfs.process import PROCESS_FILES
from pyvmm.linux.vfs.procfs.system import SYSTEM_FILES
from pyvmm.linux.vfs.pseudo import GeneratedInode, LinkInode, MagicLinkInode, PseudoDirectory

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.process import Process
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.vfs import Vfs

PROCFS = FileSystem(
    dev=0x1C, kind=b"proc", magic=PROC_SUPER_MAGIC, mountpoint=b"/proc", options=b"rw,nosuid,nodev,noexec,relatime"
)

#: Inode numbers: the fixed part of the tree counts from 1, a process's files from its pid in the upper half.
_PID_SHIFT = 32
_FD_BASE = 1 << 16
_FDINFO_BASE = 1 << 24
_NET_BASE = 1 << 12
_FIRST_PROCESS_COOKIE = 1 << 20


def make_proc(vfs: "Vfs", now: int) -> "ProcRoot":
    """The root of ``/proc``."""
    root = ProcRoot(vfs, now)
    number = 16
    for path, produce in SYSTEM_FILES.items():
        *folders, name = path.split(b"/")
        directory: PseudoDirectory = root
        for folder in folders:
            child = directory.children.get(folder)
            if not isinstance(child, PseudoDirectory):
                number += 1
                child = PseudoDirectory(PROCFS, number, 0o555, now)
                directory.add(folder, child)
            directory = child
        number += 1
        directory.add(name, GeneratedInode(PROCFS, number, produce, now=now))
    root.add(b"self", LinkInode(PROCFS, 2, lambda task: b"%d" % task.pid, now))
    root.add(b"thread-self", LinkInode(PROCFS, 3, lambda task: b"%d/task/%d" % (task.pid, task.tid), now))
    root.add(b"mounts", LinkInode(PROCFS, 4, b"self/mounts", now))
    root.add(b"net", LinkInode(PROCFS, 5, b"self/net", now))
    return root


class ProcRoot(PseudoDirectory):
    """``/proc`` itself."""

    __slots__ = ("_vfs",)

    def __init__(self, vfs: "Vfs", now: int) -> None:
        super().__init__(PROCFS, 1, 0o555, now)
        self._vfs = vfs

    def _processes(self) -> dict[int, "Task"]:
        """The thread that stands for each process (zombies have none left)."""
        found = {pid: process.leader for pid, process in self._vfs.kernel.processes.items()}
        return {pid: leader for pid, leader in found.items() if leader is not None}

    def lookup(self, name: bytes) -> Inode | None:
        """See :meth:`.Inode.lookup`."""
        child = self.children.get(name)
        if child is not None or not name.isdigit() or name[:1] == b"0":
            return child
        task = self._processes().get(int(name)) if len(name) < 10 else None
        if task is None and len(name) < 10:
            task = self._vfs.kernel.tasks.get(int(name))  # any thread can be found, but only processes are listed
        if task is None:
            return None
        return _placed(TaskDirectory(task, task.pid << _PID_SHIFT, True), self, name)

    def iterate(self, cookie: int) -> Iterator[tuple[int, bytes, int, int]]:
        """See :meth:`.Inode.iterate`."""
        yield from super().iterate(cookie)
        for pid in sorted(self._processes()):
            if pid + _FIRST_PROCESS_COOKIE > cookie:
                yield pid + _FIRST_PROCESS_COOKIE, b"%d" % pid, pid << _PID_SHIFT, S_IFDIR | 0o555


def _placed(inode: Inode, parent: Inode, name: bytes) -> Inode:
    inode.parent, inode.name = parent, name
    return inode


class _OfTask(Inode):
    """A directory that is made when it is looked up, for one task."""

    __slots__ = ("_task",)

    def __init__(self, task: "Task", ino: int, mode: int = 0o555) -> None:
        creds = task.creds
        super().__init__(PROCFS, ino, S_IFDIR | mode, creds.euid, creds.egid, task.kernel.clock.realtime_ns())
        self.nlink = 2
        self._task = task

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """See :meth:`.Inode.open`."""
        return DirectoryFile(self, flags)


class TaskDirectory(_OfTask):
    """``/proc/<pid>`` and ``/proc/<pid>/task/<tid>``."""

    __slots__ = ("is_whole",)

    #: Name -> where the link leads, as it shows and as an inode.
    _LINKS = (b"cwd", b"root", b"exe")
    _DIRECTORIES = (b"fd", b"fdinfo", b"task", b"net")

    def __init__(self, task: "Task", ino: int, whole: bool) -> None:
        super().__init__(task, ino)
        self.nlink = 9 if whole else 7
        self.is_whole = whole

    @property
    def process(self) -> "Process":
        """Whose directory it is."""
        return self._task.process

    def _names(self) -> Iterator[tuple[bytes, int]]:
        for name, (mode, _, _) in PROCESS_FILES.items():
            yield name, S_IFREG | mode
        yield b"mem", S_IFREG | 0o600
        for name in self._LINKS:
            yield name, S_IFLNK | 0o777
        for name in self._DIRECTORIES:
            if self.is_whole or name != b"task":
                yield name, S_IFDIR | 0o555

    def lookup(self, name: bytes) -> Inode | None:
        """See :meth:`.Inode.lookup`."""
        for number, (known, _) in enumerate(self._names(), 1):
            if known == name:
                return _placed(self._make(name, self.ino + number), self, name)
        return None

    def _make(self, name: bytes, ino: int) -> Inode:
        subject, now = self._task, self.ctime
        inode: Inode
        if name == b"fd":
            return FdDirectory(subject, ino, self.ino + _FD_BASE)
        if name == b"fdinfo":
            return FdInfoDirectory(subject, ino, self.ino + _FDINFO_BASE)
        if name == b"task":
            return ThreadsDirectory(subject, ino)
        if name == b"net":
            directory = PseudoDirectory(PROCFS, ino, 0o555, now)
            for number, (child, produce) in enumerate(NETWORK_FILES.items(), self.ino + _NET_BASE):
                directory.add(child, GeneratedInode(PROCFS, number, produce, now=now))
            return directory
        if name == b"mem":
            return MemoryInode(subject, ino)
        if name == b"cwd":
            inode = MagicLinkInode(PROCFS, ino, lambda _: subject.fs.cwd.path(), lambda _: subject.fs.cwd, now)
        elif name == b"root":
            inode = MagicLinkInode(PROCFS, ino, lambda _: subject.fs.root.path(), lambda _: subject.fs.root, now)
        elif name == b"exe":
            vfs = subject.kernel.vfs
            inode = MagicLinkInode(
                PROCFS, ino, lambda _: subject.exe_path, lambda _: vfs.find_followed(subject.exe_path), now
            )
        else:
            mode, produce, consume = PROCESS_FILES[name]
            taken = None if consume is None else (lambda _, data: consume(subject, data))
            inode = GeneratedInode(PROCFS, ino, lambda _: produce(subject), mode, taken, now)
        inode.uid, inode.gid = self.uid, self.gid
        return inode

    def iterate(self, cookie: int) -> Iterator[tuple[int, bytes, int, int]]:
        """See :meth:`.Inode.iterate`."""
        for number, (name, mode) in enumerate(self._names(), 1):
            if number + 2 > cookie:
                yield number + 2, name, self.ino + number, mode


class MemoryInode(Inode):
    """``/proc/<pid>/mem``."""

    __slots__ = ("_task",)

    def __init__(self, task: "Task", ino: int) -> None:
        creds = task.creds
        super().__init__(PROCFS, ino, S_IFREG | 0o600, creds.euid, creds.egid, task.kernel.clock.realtime_ns())
        self._task = task

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """See :meth:`.Inode.open`."""
        return MemoryFile(self, flags, self._task.mm, self._task.mem)

    def truncate(self, size: int, now: int) -> None:
        """O_TRUNC: nothing to cut off."""


class ThreadsDirectory(_OfTask):
    """``/proc/<pid>/task``."""

    __slots__ = ()

    def lookup(self, name: bytes) -> Inode | None:
        """See :meth:`.Inode.lookup`."""
        tid = _number(name)
        thread = self._task.process.threads.get(tid) if tid is not None else None
        if thread is None:
            return None
        return _placed(TaskDirectory(thread, (thread.tid << _PID_SHIFT) + (1 << 28), False), self, name)

    def iterate(self, cookie: int) -> Iterator[tuple[int, bytes, int, int]]:
        """See :meth:`.Inode.iterate`."""
        for tid in sorted(self._task.process.threads):
            if tid + 2 > cookie:
                yield tid + 2, b"%d" % tid, (tid << _PID_SHIFT) + (1 << 28), S_IFDIR | 0o555


class FdDirectory(_OfTask):
    """``/proc/<pid>/fd``: a magic link for each open file."""

    __slots__ = ("_base",)

    def __init__(self, task: "Task", ino: int, base: int) -> None:
        super().__init__(task, ino, 0o500)
        self._base = base

    def lookup(self, name: bytes) -> Inode | None:
        """See :meth:`.Inode.lookup`."""
        task = self._task
        fd = _number(name)
        if fd is None or fd not in task.files:
            return None
        file = task.files.get_raw(fd)
        link = MagicLinkInode(PROCFS, self._base + fd, lambda _: file.path, lambda _: file.inode, self.ctime)
        link.mode = S_IFLNK | (0o500 if file.readable else 0o100) | (0o200 if file.writable else 0)
        link.uid, link.gid = self.uid, self.gid
        return _placed(link, self, name)

    def iterate(self, cookie: int) -> Iterator[tuple[int, bytes, int, int]]:
        """See :meth:`.Inode.iterate`."""
        for fd in self._task.files.numbers():
            if fd + 3 > cookie:
                yield fd + 3, b"%d" % fd, self._base + fd, S_IFLNK | 0o700


class FdInfoDirectory(_OfTask):
    """``/proc/<pid>/fdinfo``."""

    __slots__ = ("_base",)

    def __init__(self, task: "Task", ino: int, base: int) -> None:
        super().__init__(task, ino, 0o555)
        self._base = base

    def lookup(self, name: bytes) -> Inode | None:
        """See :meth:`.Inode.lookup`."""
        fd = _number(name)
        if fd is None or fd not in self._task.files:
            return None
        file = self._task.files.get_raw(fd)

        def produce(_: "Task") -> bytes:
            return b"pos:\t%d\nflags:\t0%o\nmnt_id:\t%d\nino:\t%d\n" % (
                file.position,
                file.flags,
                file.inode.fs.dev,
                file.inode.ino,
            )

        return _placed(GeneratedInode(PROCFS, self._base + fd, produce, 0o444, None, self.ctime), self, name)

    def iterate(self, cookie: int) -> Iterator[tuple[int, bytes, int, int]]:
        """See :meth:`.Inode.iterate`."""
        for fd in self._task.files.numbers():
            if fd + 3 > cookie:
                yield fd + 3, b"%d" % fd, self._base + fd, S_IFREG | 0o444


def _number(name: bytes) -> int | None:
    """A descriptor as ``/proc`` writes it: decimal, without leading zeros."""
    return int(name) if name.isdigit() and len(name) < 8 and (name == b"0" or name[:1] != b"0") else None
