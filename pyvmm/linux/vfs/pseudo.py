"""The building blocks of ``/dev``, ``/proc`` and ``/sys``: inodes that exist by program, and that nobody can change."""

from collections.abc import Callable, Iterator
from errno import EACCES, ENOENT, ENXIO
from typing import TYPE_CHECKING

from pyvmm.linux.abi.stat import S_IFCHR, S_IFDIR, S_IFLNK, S_IFREG
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.directory import DirectoryFile
from pyvmm.linux.files.generated import GeneratedFile
from pyvmm.linux.vfs.inode import FileSystem, Inode

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.task import Task

#: Opens a device: from its inode and the flags of open(2).
DeviceMaker = Callable[[Inode, int], "OpenFile"]
#: Makes the text of a file, for the task that opens it.
Producer = Callable[["Task"], bytes]
#: Takes what a task writes to the file.
Consumer = Callable[["Task", bytes], None]


class GeneratedInode(Inode):
    """A regular file (of size 0, as ``/proc`` has it) whose text is made when it is opened."""

    __slots__ = ("_consume", "produce")

    def __init__(
        self,
        fs: FileSystem,
        ino: int,
        produce: Producer,
        mode: int = 0o444,
        consume: Consumer | None = None,
        now: int = 0,
    ) -> None:
        super().__init__(fs, ino, S_IFREG | mode, 0, 0, now)
        self.produce = produce
        self._consume = consume

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """See :meth:`Inode.open`."""
        return GeneratedFile(self, flags, self.produce(task), task.kernel.vfs.store.quota)

    def consume(self, task: "Task", data: bytes) -> None:
        """Something was written."""
        if self._consume is None:
            raise GuestError(EACCES)
        self._consume(task, data)

    def truncate(self, size: int, now: int) -> None:
        """O_TRUNC: nothing to cut off."""


class LinkInode(Inode):
    """A symbolic link whose target may depend on who asks."""

    __slots__ = ("_target",)

    def __init__(self, fs: FileSystem, ino: int, target: bytes | Producer, now: int = 0) -> None:
        super().__init__(fs, ino, S_IFLNK | 0o777, 0, 0, now)
        self._target = target

    def readlink(self, task: "Task") -> bytes:
        """See :meth:`Inode.readlink`."""
        return self._target if isinstance(self._target, bytes) else self._target(task)


class MagicLinkInode(LinkInode):
    """A link that leads to an inode, whatever the path that it shows; ``find`` gives ``None`` when there is none."""

    __slots__ = ("_find",)

    is_magic = True

    def __init__(
        self, fs: FileSystem, ino: int, target: Producer, find: Callable[["Task"], Inode | None], now: int = 0
    ) -> None:
        super().__init__(fs, ino, target, now)
        self._find = find

    def jump(self, task: "Task") -> Inode:
        """See :meth:`Inode.jump`."""
        inode = self._find(task)
        if inode is None:
            raise GuestError(ENOENT)
        return inode


class DeviceInode(Inode):
    """A character device; ``make`` opens it."""

    __slots__ = ("_make",)

    def __init__(self, fs: FileSystem, ino: int, rdev: int, make: DeviceMaker | None, now: int = 0) -> None:
        super().__init__(fs, ino, S_IFCHR | 0o666, 0, 0, now)
        self.rdev = rdev
        self._make = make

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """See :meth:`Inode.open`; ENXIO for a device that nothing answers."""
        return self.open_device(flags)

    def open_device(self, flags: int) -> "OpenFile":
        """Open it, for whomever."""
        if self._make is None:
            raise GuestError(ENXIO)
        return self._make(self, flags)


class PseudoDirectory(Inode):
    """A directory with a fixed list of children."""

    __slots__ = ("children",)

    def __init__(self, fs: FileSystem, ino: int, mode: int = 0o555, now: int = 0) -> None:
        super().__init__(fs, ino, S_IFDIR | mode, 0, 0, now)
        self.nlink = 2
        self.children: dict[bytes, Inode] = {}

    def add(self, name: bytes, child: Inode) -> None:
        """Enter a child."""
        child.parent, child.name = self, name
        self.children[name] = child
        self.nlink += child.is_directory

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """See :meth:`Inode.open`."""
        return DirectoryFile(self, flags)

    def lookup(self, name: bytes) -> Inode | None:
        """See :meth:`Inode.lookup`."""
        return self.children.get(name)

    def iterate(self, cookie: int) -> Iterator[tuple[int, bytes, int, int]]:
        """See :meth:`Inode.iterate`."""
        for position, (name, child) in enumerate(self.children.items(), 3):
            if position > cookie:
                yield position, name, child.ino, child.mode
