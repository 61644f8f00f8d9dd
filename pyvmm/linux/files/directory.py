"""Open directories: they are read with getdents(2) only."""

from collections.abc import Iterator
from errno import EINVAL, EISDIR
from typing import TYPE_CHECKING, Any

from pyvmm.linux.abi.fcntl import SEEK_CUR, SEEK_SET
from pyvmm.linux.abi.stat import S_IFDIR
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile

if TYPE_CHECKING:
    from pyvmm.linux.task import Task


class DirectoryFile(OpenFile):
    """A directory; the position is the cookie (``d_off``) of the entry read last."""

    __slots__ = ()

    kind = "directory"
    positioned = True

    def save(self) -> dict[str, Any]:
        """See :meth:`OpenFile.save`."""
        return super().save() | {"ino": self.inode.ino, "path": self.inode.path()}

    def read(self, task: "Task", count: int) -> bytes:
        """``generic_read_dir``: EISDIR."""
        raise GuestError(EISDIR)

    def pread(self, task: "Task", offset: int, count: int) -> bytes:
        """``generic_read_dir``: EISDIR."""
        raise GuestError(EISDIR)

    def seek(self, offset: int, whence: int) -> int:
        """``dcache_dir_lseek``: only from the start or from here."""
        if whence == SEEK_CUR:
            offset += self.position
        elif whence != SEEK_SET:
            raise GuestError(EINVAL)
        if offset < 0:
            raise GuestError(EINVAL)
        self.position = offset
        return offset

    def entries(self) -> Iterator[tuple[int, bytes, int, int]]:
        """See :meth:`OpenFile.entries`; ``.`` and ``..`` come first."""
        inode, position = self.inode, self.position
        if position < 1:
            yield 1, b".", inode.ino, S_IFDIR
        if position < 2:
            yield 2, b"..", (inode.parent or inode).ino, S_IFDIR
        yield from inode.iterate(position)

    def sync(self) -> None:
        """There is no disk: done already."""
