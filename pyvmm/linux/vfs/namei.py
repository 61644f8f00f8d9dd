"""Path resolution (path_resolution(7), Linux's ``fs/namei.c``).

One walk serves all: it goes through the components of a path from a starting directory, checks the right to search each
directory, follows symbolic links, and ends at an inode, or (for calls that make or remove a name) at the directory that
has or shall have the last component.
"""

from errno import EAGAIN, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EXDEV
from typing import TYPE_CHECKING, NamedTuple

from pyvmm.linux.abi.fcntl import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_SYMLINK_NOFOLLOW,
    MAXSYMLINKS,
    NAME_MAX,
    PATH_MAX,
    RESOLVE_BENEATH,
    RESOLVE_CACHED,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
)
from pyvmm.linux.abi.stat import S_IFDIR, S_IFLNK, S_IFMT
from pyvmm.linux.errors import GuestError
from pyvmm.linux.vfs.inode import MAY_EXEC, Inode

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_SLASH = ord("/")


class Last(NamedTuple):
    """Where a walk stopped before its last component; ``name`` is ``b""`` for the root itself, and may be ``.`` or
    ``..``.
    """

    directory: Inode
    name: bytes
    #: A slash follows the name: it must be a directory.
    slash: bool
    #: Symbolic links followed so far.
    links: int

    @property
    def is_plain(self) -> bool:
        """LAST_NORM: a name that can be made or removed."""
        return self.name not in (b"", b".", b"..")


def start_of(task: "Task", dirfd: int, path: bytes, resolve: int = 0) -> Inode:
    """The directory in which the walk along ``path`` begins; with RESOLVE_IN_ROOT that is ``dirfd`` for absolute paths
    too.
    """
    if path[:1] == b"/" and not resolve & RESOLVE_IN_ROOT:
        return task.fs.root
    if dirfd == AT_FDCWD:
        return task.fs.cwd
    return task.files.get_raw(dirfd).inode


def lookup(task: "Task", dirfd: int, path: bytes, follow: bool = True, resolve: int = 0) -> Inode:
    """The inode at ``path``.

    :raises GuestError: ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG, EBADF.
    """
    if not path:
        raise GuestError(ENOENT)
    inode = walk(task, start_of(task, dirfd, path, resolve), path, follow, False, 0, resolve)
    assert isinstance(inode, Inode)
    return inode


def lookup_last(task: "Task", dirfd: int, path: bytes) -> Last:
    """The directory and the name that ``path`` ends in, for calls that make or remove the name."""
    if not path:
        raise GuestError(ENOENT)
    last = walk(task, start_of(task, dirfd, path), path, False, True, 0, 0)
    assert isinstance(last, Last)
    return last


def read_path(task: "Task", address: int) -> bytes:
    """The path at ``address`` (``getname()``): EFAULT, ENAMETOOLONG."""
    return task.mem.read_cstring(address, PATH_MAX)


def lookup_at(task: "Task", dirfd: int, address: int, flags: int) -> Inode:
    """The inode that the arguments of an ``*at`` call name, by AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH."""
    if flags & AT_EMPTY_PATH and not address:
        path = b""  # Since Linux 6.11 NULL is as good as an empty path.
    else:
        path = task.mem.read_cstring(address, PATH_MAX)
    if not path and flags & AT_EMPTY_PATH:
        return start_of(task, dirfd, path)
    return lookup(task, dirfd, path, not flags & AT_SYMLINK_NOFOLLOW)


def walk(
    task: "Task", current: Inode, path: bytes, follow: bool, to_last: bool, links: int, resolve: int
) -> "Inode | Last":
    """Go along ``path`` from ``current``; the inode at its end, or with ``to_last`` the :class:`Last` before it.

    ``follow``: a symbolic link at the end is followed; ``links``: how many have been already; ``resolve``: RESOLVE_* of
    openat2(2).
    """
    root = task.fs.root
    creds = task.creds
    if resolve:
        root, current = _confined(root, current, path, resolve)
    slash = path[-1] == _SLASH
    todo = [name for name in path.split(b"/") if name]
    todo.reverse()
    if todo and current.mode & S_IFMT != S_IFDIR:
        raise GuestError(ENOTDIR)
    while todo:
        name = todo.pop()
        mode = current.mode
        if mode & S_IFMT != S_IFDIR:
            raise GuestError(ENOTDIR)
        if mode & 0o111 != 0o111:
            current.check(creds, MAY_EXEC)
        if to_last and not todo:
            return Last(current, name, slash, links)
        if name[0] == 46 and (name == b"." or name == b".."):
            if name == b".":
                continue
            if current is root:
                if resolve & RESOLVE_BENEATH:
                    raise GuestError(EXDEV)
                continue
            above = current.parent or root
            if resolve & RESOLVE_NO_XDEV and above.fs is not current.fs:
                raise GuestError(EXDEV)
            current = above
            continue
        if len(name) > NAME_MAX:
            raise GuestError(ENAMETOOLONG)
        child = current.lookup(name)
        if child is None:
            raise GuestError(ENOENT)
        if child.mode & S_IFMT == S_IFLNK and (todo or follow or slash):
            links += 1
            if links > MAXSYMLINKS or resolve & RESOLVE_NO_SYMLINKS:
                raise GuestError(ELOOP)
            if child.is_magic:
                if resolve & RESOLVE_NO_MAGICLINKS:
                    raise GuestError(ELOOP)
                target = child.jump(task)
                if resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT):
                    raise GuestError(EXDEV)
                if resolve & RESOLVE_NO_XDEV and target.fs is not current.fs:
                    raise GuestError(EXDEV)
                current = target
                continue
            path = child.readlink(task)
            if not path:
                raise GuestError(ENOENT)
            if path[0] == _SLASH:
                if resolve & RESOLVE_BENEATH or (resolve & RESOLVE_NO_XDEV and root.fs is not current.fs):
                    raise GuestError(EXDEV)
                current = root
            if not todo and path[-1] == _SLASH:
                slash = True
            parts = [part for part in path.split(b"/") if part]
            parts.reverse()
            todo += parts
            if to_last and not todo:
                return Last(current, b"", slash, links)
            continue
        if resolve & RESOLVE_NO_XDEV and child.fs is not current.fs:
            raise GuestError(EXDEV)
        current = child
    if to_last:
        return Last(current, b"", slash, links)
    if slash and current.mode & S_IFMT != S_IFDIR:
        raise GuestError(ENOTDIR)
    return current


def _confined(root: Inode, current: Inode, path: bytes, resolve: int) -> tuple[Inode, Inode]:
    """What openat2(2) lets a walk take for the root, and where it then begins."""
    if resolve & RESOLVE_CACHED:
        raise GuestError(EAGAIN)
    if resolve & RESOLVE_BENEATH and path[0] == _SLASH:
        raise GuestError(EXDEV)
    return (current, current) if resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT) else (root, current)
