"""Making, removing and moving names: the checks of Linux's ``fs/namei.c``, then the work by the inodes."""

from errno import EBUSY, EEXIST, EINVAL, EISDIR, EMLINK, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, EXDEV
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import NAME_MAX, RENAME_EXCHANGE, RENAME_NOREPLACE
from pyvmm.linux.abi.inotify import IN_ATTRIB, IN_ISDIR, IN_MOVE_SELF, IN_MOVED_FROM, IN_MOVED_TO
from pyvmm.linux.abi.stat import S_ISGID, S_ISUID, S_ISVTX, S_IXGRP
from pyvmm.linux.errors import GuestError
from pyvmm.linux.vfs.folders import DirectoryInode
from pyvmm.linux.vfs.inode import MAY_EXEC, MAY_READ, MAY_WRITE, Inode
from pyvmm.linux.vfs.namei import Last, lookup_last
from pyvmm.linux.vfs.nodes import LINK_MAX, RegularInode, StoredInode
from pyvmm.linux.vfs.watches import tell

if TYPE_CHECKING:
    from pyvmm.linux.task import Task


def child_of(last: Last) -> Inode | None:
    """What the last component names now (ENAMETOOLONG for a name of more than 255 bytes)."""
    if len(last.name) > NAME_MAX:
        raise GuestError(ENAMETOOLONG)
    return last.directory.lookup(last.name)


def place_for(task: "Task", dirfd: int, path: bytes, *, directory: bool = False) -> Last:
    """Where a new name goes (``filename_create()``): EEXIST if it is there, ENOENT for a slash after what shall be no
    directory.
    """
    last = lookup_last(task, dirfd, path)
    if not last.is_plain:
        raise GuestError(EEXIST)
    if child_of(last) is not None:
        raise GuestError(EEXIST)
    if last.slash and not directory:
        raise GuestError(ENOENT)
    may_create(task, last.directory)
    return last


def may_create(task: "Task", directory: Inode) -> None:
    """``may_create()``: EACCES; ENOENT for a directory that was removed."""
    if directory.nlink == 0:
        raise GuestError(ENOENT)
    directory.check(task.creds, MAY_WRITE | MAY_EXEC)


def may_delete(task: "Task", directory: Inode, victim: Inode, is_directory: bool) -> None:
    """``may_delete()``: EACCES, EPERM (sticky), ENOTDIR, EISDIR, EBUSY (mounted on)."""
    directory.check(task.creds, MAY_WRITE | MAY_EXEC)
    if directory.mode & S_ISVTX and task.creds.fsuid not in (victim.uid, directory.uid, 0):
        raise GuestError(EPERM)
    if is_directory:
        if not victim.is_directory:
            raise GuestError(ENOTDIR)
        if victim.fs is not directory.fs:
            raise GuestError(EBUSY)
    elif victim.is_directory:
        raise GuestError(EISDIR)


def remove_file(task: "Task", dirfd: int, path: bytes) -> None:
    """unlink(2)."""
    last = lookup_last(task, dirfd, path)
    if not last.is_plain:
        raise GuestError(EISDIR)
    victim = child_of(last)
    if victim is None:
        raise GuestError(ENOENT)
    if last.slash:
        raise GuestError(EISDIR if victim.is_directory else ENOTDIR)
    may_delete(task, last.directory, victim, False)
    last.directory.unlink(last.name, task.kernel.clock.realtime_ns())


def remove_directory(task: "Task", dirfd: int, path: bytes) -> None:
    """rmdir(2)."""
    last = lookup_last(task, dirfd, path)
    if not last.is_plain:
        raise GuestError({b"..": ENOTEMPTY, b".": EINVAL, b"": EBUSY}[last.name])
    victim = child_of(last)
    if victim is None:
        raise GuestError(ENOENT)
    may_delete(task, last.directory, victim, True)
    last.directory.remove_directory(last.name, task.kernel.clock.realtime_ns())


def make_link(task: "Task", inode: Inode, dirfd: int, path: bytes) -> None:
    """link(2): another name for ``inode``."""
    last = place_for(task, dirfd, path)
    directory = last.directory
    if inode.fs is not directory.fs:
        raise GuestError(EXDEV)
    if inode.is_directory or not _may_link(task, inode):
        raise GuestError(EPERM)
    if inode.nlink == 0 and not (isinstance(inode, RegularInode) and inode.linkable):
        raise GuestError(ENOENT)
    if inode.nlink >= LINK_MAX:
        raise GuestError(EMLINK)
    directory.link(last.name, inode, task.kernel.clock.realtime_ns())


def _may_link(task: "Task", inode: Inode) -> bool:
    """``may_linkat()`` with fs.protected_hardlinks = 1: one's own file, or one that is safe and can be read and
    written.
    """
    if inode.is_owned_by(task.creds):
        return True
    privileged = inode.mode & S_ISUID or inode.mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP
    return inode.is_regular and not privileged and inode.permits(task.creds, MAY_READ | MAY_WRITE)


def rename(task: "Task", old_fd: int, old_path: bytes, new_fd: int, new_path: bytes, flags: int) -> None:
    """renameat2(2)."""
    old = lookup_last(task, old_fd, old_path)
    new = lookup_last(task, new_fd, new_path)
    if old.directory.fs is not new.directory.fs:
        raise GuestError(EXDEV)
    if not old.is_plain:
        raise GuestError(EBUSY)
    if not new.is_plain:
        raise GuestError(EEXIST if flags & RENAME_NOREPLACE else EBUSY)
    source = child_of(old)
    if source is None:
        raise GuestError(ENOENT)
    target = child_of(new)
    exchange = bool(flags & RENAME_EXCHANGE)
    if target is not None and flags & RENAME_NOREPLACE:
        raise GuestError(EEXIST)
    if target is None and exchange:
        raise GuestError(ENOENT)
    if exchange and target is not None and not target.is_directory and new.slash:
        raise GuestError(ENOTDIR)
    if not source.is_directory and (old.slash or (new.slash and not exchange)):
        raise GuestError(ENOTDIR)
    if _is_below(new.directory, source):
        raise GuestError(EINVAL)
    if target is not None and _is_below(old.directory, target):
        raise GuestError(EINVAL if exchange else ENOTEMPTY)
    if source is target:
        return
    may_delete(task, old.directory, source, source.is_directory)
    if target is None:
        may_create(task, new.directory)
    else:
        may_delete(task, new.directory, target, target.is_directory if exchange else source.is_directory)
    if old.directory is not new.directory:
        for moved in (source, target if exchange else None):
            if moved is not None and moved.is_directory:
                moved.check(task.creds, MAY_WRITE)
    if not isinstance(old.directory, DirectoryInode) or not isinstance(new.directory, DirectoryInode):
        raise GuestError(EPERM)
    now = task.kernel.clock.realtime_ns()
    if exchange and target is not None:
        _exchange(old.directory, old.name, source, new.directory, new.name, target, now)
    else:
        _move(old.directory, old.name, source, new.directory, new.name, target, now)


def _is_below(inode: Inode, ancestor: Inode) -> bool:
    """Whether ``ancestor`` is ``inode`` or above it."""
    above: Inode | None = inode
    while above is not None:
        if above is ancestor:
            return True
        above = above.parent
    return False


def _move(
    old: DirectoryInode,
    old_name: bytes,
    source: Inode,
    new: DirectoryInode,
    new_name: bytes,
    target: Inode | None,
    now: int,
) -> None:
    assert isinstance(source, StoredInode)
    if isinstance(target, DirectoryInode) and target.entries:
        raise GuestError(ENOTEMPTY)
    # What is there is replaced in place: the name exists at every moment, and no room is needed.
    new.add(new_name, source, now)
    old.remove(old_name, now)
    _tell_move(source, old, old_name, new, new_name)
    if isinstance(target, StoredInode):
        # ``fsnotify_link_count()``
        tell(target, IN_ATTRIB | IN_ISDIR if target.is_directory else IN_ATTRIB)
    tell(source, IN_MOVE_SELF)
    if isinstance(target, StoredInode):
        if isinstance(target, DirectoryInode):
            new.nlink -= 1
            target.set_links(0, now)
        else:
            target.set_links(target.nlink - 1, now)
    if source.is_directory and old is not new:
        old.nlink -= 1
        new.nlink += 1
    source.ctime = now
    source.dirty = True


def _tell_move(inode: StoredInode, old: DirectoryInode, old_name: bytes, new: DirectoryInode, new_name: bytes) -> None:
    """``fsnotify_move()``: both directories hear of it, with the same cookie."""
    store = inode.store
    if store.watched:
        cookie = store.next_cookie()
        old.tell_entry(IN_MOVED_FROM, old_name, inode, cookie)
        new.tell_entry(IN_MOVED_TO, new_name, inode, cookie)


def _exchange(
    old: DirectoryInode, old_name: bytes, source: Inode, new: DirectoryInode, new_name: bytes, target: Inode, now: int
) -> None:
    new.add(new_name, source, now)
    old.add(old_name, target, now)
    moved = source.is_directory - target.is_directory
    old.nlink -= moved
    new.nlink += moved
    for inode in (source, target):
        assert isinstance(inode, StoredInode)
        inode.ctime = now
        inode.dirty = True
    assert isinstance(source, StoredInode)
    assert isinstance(target, StoredInode)
    _tell_move(source, old, old_name, new, new_name)
    tell(source, IN_MOVE_SELF)
    _tell_move(target, new, new_name, old, old_name)
    tell(target, IN_MOVE_SELF)
