"""What a process's paths start from ("struct fs_struct")."""

from errno import ENOTDIR
from typing import TYPE_CHECKING, Any, Self

from pyvmm.linux.abi.fcntl import AT_FDCWD
from pyvmm.linux.errors import GuestError
from pyvmm.linux.vfs.inode import MAY_EXEC, Inode
from pyvmm.linux.vfs.namei import lookup

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs import Vfs


class FsContext:
    """Working directory, root, umask; shared by the threads of a process.

    A fork's directories are looked up when they are first used: making a fork costs the less.
    """

    __slots__ = ("_cwd", "_saved_cwd", "_vfs", "umask")

    def __init__(self, vfs: "Vfs") -> None:
        self._vfs = vfs
        self._cwd: Inode | None = None
        self._saved_cwd = b"/"
        self.umask = 0o022

    @property
    def root(self) -> Inode:
        """Where absolute paths start."""
        return self._vfs.root

    @property
    def cwd(self) -> Inode:
        """Where relative paths start. A saved one that was removed already is the root."""
        if self._cwd is None:
            self._cwd = self._vfs.find(self._saved_cwd) or self._vfs.root
        return self._cwd

    def chdir(self, task: "Task", path: bytes) -> None:
        """chdir(2)."""
        self.enter(task, lookup(task, AT_FDCWD, path))

    def enter(self, task: "Task", inode: Inode) -> None:
        """Make ``inode`` the working directory (ENOTDIR, EACCES)."""
        if not inode.is_directory:
            raise GuestError(ENOTDIR)
        inode.check(task.creds, MAY_EXEC)
        self._cwd = inode

    def copy(self) -> Self:
        """One of its own (fork(2), CLONE_FS not given)."""
        other = type(self)(self._vfs)
        other._cwd, other._saved_cwd, other.umask = self._cwd, self._saved_cwd, self.umask
        return other

    def save(self) -> dict[str, Any]:
        """Plain data."""
        return {"cwd": self.cwd.path(), "umask": self.umask}

    @classmethod
    def restore(cls, state: dict[str, Any], vfs: "Vfs") -> Self:
        """As :meth:`save` told."""
        fs = cls(vfs)
        fs._saved_cwd, fs.umask = state["cwd"], state["umask"]
        return fs
