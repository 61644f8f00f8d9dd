"""Extended attributes (xattr(7)): of the four namespaces ``user`` can be written to; the others are read as empty.

As an unprivileged program sees them on Linux: ``security`` and ``trusted`` belong to the system, and only regular files
and directories have attributes of their users. There are no access control lists.
"""

from collections.abc import Callable, Mapping
from errno import E2BIG, EEXIST, EINVAL, ENAMETOOLONG, ENODATA, EOPNOTSUPP, EPERM, ERANGE
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import AT_FDCWD, AT_SYMLINK_NOFOLLOW
from pyvmm.linux.abi.stat import S_ISVTX
from pyvmm.linux.errors import GuestError
from pyvmm.linux.table import Fd, Flags, Path, Pointer, Size, syscall
from pyvmm.linux.vfs.inode import MAY_READ, MAY_WRITE, Inode
from pyvmm.linux.vfs.namei import lookup_at
from pyvmm.linux.vfs.nodes import StoredInode

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: linux/limits.h, linux/xattr.h.
XATTR_NAME_MAX, XATTR_SIZE_MAX, XATTR_LIST_MAX = 255, 65536, 65536
XATTR_CREATE, XATTR_REPLACE = 1, 2
_USER, _SYSTEM = b"user.", b"system."
_NAMESPACES = (_USER, _SYSTEM, b"security.", b"trusted.")


def _name(task: "Task", address: int) -> bytes:
    """The name of an attribute: ERANGE if it is empty or too long."""
    try:
        name = task.mem.read_cstring(address, XATTR_NAME_MAX + 1)
    except GuestError as error:
        raise GuestError(ERANGE if error.errno == ENAMETOOLONG else error.errno) from None
    if not name:
        raise GuestError(ERANGE)
    return name


def _attributes(inode: Inode) -> Mapping[bytes, bytes]:
    return inode.xattrs if isinstance(inode, StoredInode) else {}


def _check_namespace(inode: Inode, name: bytes) -> None:
    """EOPNOTSUPP for a namespace that no file system has, EINVAL for a namespace without a name."""
    namespace = next((each for each in _NAMESPACES if name.startswith(each)), None)
    if namespace is None or not isinstance(inode, StoredInode):
        raise GuestError(EOPNOTSUPP)
    if name == namespace:
        raise GuestError(EINVAL)
    if namespace == _SYSTEM:
        raise GuestError(EOPNOTSUPP)


def _get(task: "Task", inode: Inode, name: bytes, value: int, size: int) -> int:
    if name.startswith(_USER):
        if not inode.is_regular and not inode.is_directory:
            raise GuestError(ENODATA)
        inode.check(task.creds, MAY_READ)
    _check_namespace(inode, name)
    found = _attributes(inode).get(name)
    if found is None:
        raise GuestError(ENODATA)
    if size:
        if len(found) > size:
            raise GuestError(ERANGE)
        task.mem.write(value, found)
    return len(found)


def _check_change(task: "Task", inode: Inode, name: bytes) -> StoredInode:
    """Whether the attribute may be changed (``xattr_permission()``)."""
    if name.startswith((b"trusted.", b"security.")):
        raise GuestError(EPERM)
    if name.startswith(_USER):
        if not inode.is_regular and not inode.is_directory:
            raise GuestError(EPERM)
        if inode.is_directory and inode.mode & S_ISVTX and not inode.is_owned_by(task.creds):
            raise GuestError(EPERM)
        inode.check(task.creds, MAY_WRITE)
    _check_namespace(inode, name)
    assert isinstance(inode, StoredInode)
    return inode


def _set(task: "Task", find: Callable[[], Inode], name: int, value: int, size: int, flags: int) -> int:
    if flags & ~(XATTR_CREATE | XATTR_REPLACE):
        raise GuestError(EINVAL)
    text = _name(task, name)
    if size > XATTR_SIZE_MAX:
        raise GuestError(E2BIG)
    data = task.mem.read(value, size) if size else b""
    inode = _check_change(task, find(), text)
    known = text in inode.xattrs
    if flags & XATTR_REPLACE and not known:
        raise GuestError(ENODATA)
    if flags & XATTR_CREATE and known:
        raise GuestError(EEXIST)
    inode.set_xattr(text, data, task.kernel.clock.realtime_ns())
    return 0


def _list(task: "Task", inode: Inode, names: int, size: int) -> int:
    listed = b"".join(name + b"\0" for name in _attributes(inode))
    if size:
        if len(listed) > size:
            raise GuestError(ERANGE)
        task.mem.write(names, listed)
    return len(listed)


def _remove(task: "Task", find: Callable[[], Inode], name: int) -> int:
    text = _name(task, name)
    inode = _check_change(task, find(), text)
    if text not in inode.xattrs:
        raise GuestError(ENODATA)
    inode.set_xattr(text, None, task.kernel.clock.realtime_ns())
    return 0


@syscall
def getxattr(task: "Task", path: Path, name: Pointer, value: Pointer, size: Size) -> int:
    """getxattr(2)."""
    text = _name(task, name)
    return _get(task, lookup_at(task, AT_FDCWD, path, 0), text, value, size)


@syscall
def lgetxattr(task: "Task", path: Path, name: Pointer, value: Pointer, size: Size) -> int:
    """lgetxattr(2)."""
    text = _name(task, name)
    return _get(task, lookup_at(task, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), text, value, size)


@syscall
def fgetxattr(task: "Task", fd: Fd, name: Pointer, value: Pointer, size: Size) -> int:
    """fgetxattr(2)."""
    return _get(task, task.files.get(fd).inode, _name(task, name), value, size)


@syscall
def setxattr(task: "Task", path: Path, name: Pointer, value: Pointer, size: Size, flags: Flags) -> int:
    """setxattr(2)."""
    return _set(task, lambda: lookup_at(task, AT_FDCWD, path, 0), name, value, size, flags)


@syscall
def lsetxattr(task: "Task", path: Path, name: Pointer, value: Pointer, size: Size, flags: Flags) -> int:
    """lsetxattr(2)."""
    return _set(task, lambda: lookup_at(task, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), name, value, size, flags)


@syscall
def fsetxattr(task: "Task", fd: Fd, name: Pointer, value: Pointer, size: Size, flags: Flags) -> int:
    """fsetxattr(2)."""
    file = task.files.get(fd)
    return _set(task, lambda: file.inode, name, value, size, flags)


@syscall
def listxattr(task: "Task", path: Path, names: Pointer, size: Size) -> int:
    """listxattr(2)."""
    return _list(task, lookup_at(task, AT_FDCWD, path, 0), names, size)


@syscall
def llistxattr(task: "Task", path: Path, names: Pointer, size: Size) -> int:
    """llistxattr(2)."""
    return _list(task, lookup_at(task, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), names, size)


@syscall
def flistxattr(task: "Task", fd: Fd, names: Pointer, size: Size) -> int:
    """flistxattr(2)."""
    return _list(task, task.files.get(fd).inode, names, size)


@syscall
def removexattr(task: "Task", path: Path, name: Pointer) -> int:
    """removexattr(2)."""
    return _remove(task, lambda: lookup_at(task, AT_FDCWD, path, 0), name)


@syscall
def lremovexattr(task: "Task", path: Path, name: Pointer) -> int:
    """lremovexattr(2)."""
    return _remove(task, lambda: lookup_at(task, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW), name)


@syscall
def fremovexattr(task: "Task", fd: Fd, name: Pointer) -> int:
    """fremovexattr(2)."""
    file = task.files.get(fd)
    return _remove(task, lambda: file.inode, name)
