"""Watching files and directories: inotify_init(2), inotify_add_watch(2), inotify_rm_watch(2)."""

from errno import EINVAL, ENOTDIR
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import AT_FDCWD, O_CLOEXEC, O_NONBLOCK
from pyvmm.linux.abi.inotify import ALL_INOTIFY_BITS, IN_DONT_FOLLOW, IN_MASK_ADD, IN_MASK_CREATE, IN_ONLYDIR
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.inotify import InotifyFile
from pyvmm.linux.table import Fd, Flags, Int, Path, syscall
from pyvmm.linux.vfs.anonymous import EventInode
from pyvmm.linux.vfs.inode import MAY_READ
from pyvmm.linux.vfs.namei import lookup, read_path

if TYPE_CHECKING:
    from pyvmm.linux.task import Task


@syscall
def inotify_init(task: "Task") -> int:
    """inotify_init(2): what happens to files, as a file."""
    return inotify_init1(task, 0)


@syscall
def inotify_init1(task: "Task", flags: Flags) -> int:
    """inotify_init1(2): the same, with flags."""
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise GuestError(EINVAL)
    vfs = task.kernel.vfs
    inode = EventInode(vfs.next_anonymous(), b"inotify", task.kernel.clock.realtime_ns())
    return task.files.install(InotifyFile(inode, flags, vfs.store), bool(flags & O_CLOEXEC))


def _inotify(task: "Task", fd: int) -> InotifyFile:
    file = task.files.get(fd)
    if not isinstance(file, InotifyFile):
        raise GuestError(EINVAL)
    return file


@syscall
def inotify_add_watch(task: "Task", fd: Fd, path: Path, mask: Flags) -> int:
    """inotify_add_watch(2).

    Nothing ever happens to pseudo files, and what is written to a shared mapping or to extended attributes is not told.
    """
    if not mask & ALL_INOTIFY_BITS:
        raise GuestError(EINVAL)
    file = task.files.get(fd)
    if mask & IN_MASK_ADD and mask & IN_MASK_CREATE:
        raise GuestError(EINVAL)
    file = _inotify(task, fd)
    inode = lookup(task, AT_FDCWD, read_path(task, path), not mask & IN_DONT_FOLLOW)
    if mask & IN_ONLYDIR and not inode.is_directory:
        raise GuestError(ENOTDIR)
    inode.check(task.creds, MAY_READ)
    return file.add(inode, mask)


@syscall
def inotify_rm_watch(task: "Task", fd: Fd, number: Int) -> int:
    """inotify_rm_watch(2)."""
    _inotify(task, fd).remove(number)
    return 0
