"""open(2): from a path and flags to an open file (``do_filp_open()``).

Every permission is checked before the first effect: a file is neither created nor cut off by a call that fails.
"""

from errno import EEXIST, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ENXIO, EPERM, EXDEV
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import (
    MAXSYMLINKS,
    NAME_MAX,
    O_ACCMODE,
    O_CLOEXEC,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_LARGEFILE,
    O_NOATIME,
    O_NOFOLLOW,
    O_PATH,
    O_RDONLY,
    O_RDWR,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
    RESOLVE_NO_SYMLINKS,
    TMPFILE_BIT,
    VALID_OPEN_FLAGS,
)
from pyvmm.linux.abi.inotify import IN_OPEN
from pyvmm.linux.abi.stat import S_IALLUGO, S_IFMT, S_IFREG, S_IFSOCK
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.files.path import PathFile
from pyvmm.linux.files.regular import resize
from pyvmm.linux.vfs.changes import may_create
from pyvmm.linux.vfs.inode import MAY_EXEC, MAY_READ, MAY_WRITE, Inode
from pyvmm.linux.vfs.namei import Last, lookup, start_of, walk
from pyvmm.linux.vfs.nodes import RegularInode

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: Rights that an access mode asks for. Mode 3 asks for both and gives neither.
_ACCESS = {O_RDONLY: MAY_READ, O_WRONLY: MAY_WRITE, O_RDWR: MAY_READ | MAY_WRITE, O_ACCMODE: MAY_READ | MAY_WRITE}
_PATH_FLAGS = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC


def open_path(task: "Task", dirfd: int, path: bytes, flags: int, mode: int, resolve: int = 0) -> OpenFile:
    """Open ``path``, creating it if ``flags`` say so; ``mode`` is before the umask."""
    flags = _checked_flags(flags)
    if flags & O_PATH:
        inode = lookup(task, dirfd, path, not flags & O_NOFOLLOW, resolve)
        if flags & O_DIRECTORY and not inode.is_directory:
            raise GuestError(ENOTDIR)
        return PathFile(inode, flags)
    if flags & TMPFILE_BIT:
        return _open_nameless(task, lookup(task, dirfd, path, not flags & O_NOFOLLOW, resolve), flags, mode)
    if flags & O_CREAT:
        return _open_or_create(task, dirfd, path, flags, mode, resolve)
    return open_inode(task, lookup(task, dirfd, path, not flags & O_NOFOLLOW, resolve), flags)


def _checked_flags(flags: int) -> int:
    """``build_open_flags()``."""
    flags = flags & VALID_OPEN_FLAGS | O_LARGEFILE
    if flags & O_PATH:
        return flags & _PATH_FLAGS
    if flags & TMPFILE_BIT:
        if flags & O_TMPFILE != O_TMPFILE or not _ACCESS[flags & O_ACCMODE] & MAY_WRITE or flags & O_CREAT:
            raise GuestError(EINVAL)
    elif flags & (O_CREAT | O_DIRECTORY) == O_CREAT | O_DIRECTORY:
        raise GuestError(EINVAL)
    return flags


def open_inode(task: "Task", inode: Inode, flags: int) -> OpenFile:
    """Open what is there (``do_open()``, ``may_open()``)."""
    kind = inode.mode & S_IFMT
    if flags & O_DIRECTORY and not inode.is_directory:
        raise GuestError(ENOTDIR)
    access = _ACCESS[flags & O_ACCMODE]
    if flags & O_TRUNC:
        access |= MAY_WRITE
    if inode.is_symlink:
        raise GuestError(ELOOP)
    if inode.is_directory and access & MAY_WRITE:
        raise GuestError(EISDIR)
    inode.check(task.creds, access)
    if flags & O_NOATIME and not inode.is_owned_by(task.creds):
        raise GuestError(EPERM)
    if kind == S_IFSOCK:
        raise GuestError(ENXIO)
    if flags & O_TRUNC and kind == S_IFREG:
        if isinstance(inode, RegularInode):
            file = inode.open(task, flags)
            inode.tell(IN_OPEN)
            resize(task, inode, 0)
            return file
        inode.truncate(0, task.kernel.clock.realtime_ns())
    file = inode.open(task, flags)
    inode.tell(IN_OPEN)
    return file


def _open_or_create(task: "Task", dirfd: int, path: bytes, flags: int, mode: int, resolve: int) -> OpenFile:
    """O_CREAT: go to the last component, following links that stand there, and create what is not there."""
    if not path:
        raise GuestError(ENOENT)
    directory, links = start_of(task, dirfd, path, resolve), 0
    while path:
        last = walk(task, directory, path, False, True, links, resolve)
        assert isinstance(last, Last)
        directory, links = last.directory, last.links
        if last.slash and last.is_plain:
            raise GuestError(EISDIR)
        if not last.is_plain:
            raise GuestError(EEXIST if flags & O_EXCL else EISDIR)
        if len(last.name) > NAME_MAX:
            raise GuestError(ENAMETOOLONG)
        inode = directory.lookup(last.name)
        if inode is None:
            return _create(task, last, flags, mode)
        if flags & O_EXCL:
            raise GuestError(EEXIST)
        if not inode.is_symlink or flags & O_NOFOLLOW:
            return _open_existing(task, inode, flags)
        if resolve:
            # A walk that goes on from here would not know where it is confined to.
            raise GuestError(ELOOP if resolve & RESOLVE_NO_SYMLINKS else EXDEV)
        links += 1
        if links > MAXSYMLINKS:
            raise GuestError(ELOOP)
        if inode.is_magic:
            return _open_existing(task, inode.jump(task), flags)
        path = inode.readlink(task)
        if path[:1] == b"/":
            directory = task.fs.root
    raise GuestError(ENOENT)


def _open_existing(task: "Task", inode: Inode, flags: int) -> OpenFile:
    if inode.is_directory:
        raise GuestError(EISDIR)
    return open_inode(task, inode, flags)


def _create(task: "Task", last: Last, flags: int, mode: int) -> OpenFile:
    may_create(task, last.directory)
    mode = S_IFREG | mode & S_IALLUGO & ~task.fs.umask
    inode = last.directory.create(last.name, mode, task.creds, task.kernel.clock.realtime_ns())
    # The creator may do with a new file what it asked for, whatever the new file's mode.
    file = inode.open(task, flags)
    inode.tell(IN_OPEN)
    return file


def _open_nameless(task: "Task", directory: Inode, flags: int, mode: int) -> OpenFile:
    """O_TMPFILE."""
    if not directory.is_directory:
        raise GuestError(ENOTDIR)
    directory.check(task.creds, MAY_WRITE | MAY_EXEC)
    mode = S_IFREG | mode & S_IALLUGO & ~task.fs.umask
    inode = directory.make_nameless(mode, task.creds, task.kernel.clock.realtime_ns())
    if isinstance(inode, RegularInode) and flags & O_EXCL:
        inode.linkable = False
    return inode.open(task, flags & ~O_DIRECTORY)
