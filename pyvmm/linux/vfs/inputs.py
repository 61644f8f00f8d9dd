"""Files that the host hands into a sandbox before its program runs."""

from errno import errorcode
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import NAME_MAX, PATH_MAX
from pyvmm.linux.abi.stat import S_IFREG
from pyvmm.linux.errors import GuestError
from pyvmm.linux.vfs.folders import DirectoryInode
from pyvmm.linux.vfs.nodes import RegularInode

if TYPE_CHECKING:
    from pyvmm.linux.vfs.vfs import Vfs

#: How deep a path may be.
_MAX_PARTS = 64


class _Owner:
    """Whose the new files are."""

    def __init__(self, uid: int, gid: int) -> None:
        self.fsuid, self.fsgid = uid, gid
        self.groups: tuple[int, ...] = (gid,)


def put_file(vfs: "Vfs", path: bytes, data: bytes, mode: int, uid: int, gid: int) -> None:
    """See :meth:`.Vfs.put_file`."""
    parts = _parts_of(path)
    shown = _shown(path)
    owner, now = _Owner(uid, gid), vfs.clock.realtime_ns()
    directory = vfs.root
    try:
        for part in parts[:-1]:
            child = directory.lookup(part)
            if child is None:
                child = directory.make_directory(part, 0o755, owner, now)
            if not isinstance(child, DirectoryInode):
                what = "a symbolic link" if child.is_symlink else "no directory that files can be put into"
                raise ValueError(f"the path {shown} leads through {_shown(part)}, which is {what}")
            directory = child
        if not isinstance(directory, DirectoryInode):
            raise ValueError(f"the path {shown} leads where files cannot be put")
        name = parts[-1]
        inode = directory.lookup(name)
        if inode is not None and not isinstance(inode, RegularInode):
            raise ValueError(f"the path {shown} is there already, and is no regular file")
        if inode is not None:
            directory.unlink(name, now)
        inode = directory.create(name, S_IFREG | mode & 0o777, owner, now)
        if data and inode.write_at(0, data) < len(data):
            raise ValueError(f"the file {shown} is too large for the sandbox")
    except GuestError as error:
        raise ValueError(f"the file {shown} cannot be put into the sandbox: {errorcode.get(error.errno)}") from None


def _parts_of(path: bytes) -> list[bytes]:
    """The components of an absolute path without anything odd in it."""
    if not path.startswith(b"/") or b"\0" in path:
        raise ValueError(f"not a plain absolute path: {_shown(path)}")
    if len(path) >= PATH_MAX:
        raise ValueError(f"the path is longer than {PATH_MAX - 1} bytes: {_shown(path)}")
    parts = path[1:].split(b"/")
    if any(part in (b"", b".", b"..") for part in parts):
        raise ValueError(f"not a plain absolute path: {_shown(path)}")
    if any(len(part) > NAME_MAX for part in parts):
        raise ValueError(f"a name in the path is longer than {NAME_MAX} bytes: {_shown(path)}")
    if len(parts) > _MAX_PARTS:
        raise ValueError(f"the path is deeper than {_MAX_PARTS} directories: {_shown(path)}")
    return parts


def _shown(path: bytes) -> str:
    text = path.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 80 else text[:77] + "...")
