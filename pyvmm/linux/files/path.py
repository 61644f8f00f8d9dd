"""Files opened with O_PATH: they name a place, and nothing can be read or written through them."""

from errno import EBADF
from typing import TYPE_CHECKING, Any

from pyvmm.linux.abi.fcntl import O_PATH
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile

if TYPE_CHECKING:
    from pyvmm.linux.vfs.inode import Inode


class PathFile(OpenFile):
    """A place in the file system. ``FdTable.get`` refuses it (EBADF); ``get_raw`` is for the calls that take it."""

    __slots__ = ()

    kind = "path"
    is_path = True

    def __init__(self, inode: "Inode", flags: int) -> None:
        super().__init__(inode, flags | O_PATH)

    def save(self) -> dict[str, Any]:
        """See :meth:`OpenFile.save`."""
        return super().save() | {"ino": self.inode.ino, "path": self.inode.path()}

    def mapping(self, prot: int, flags: int) -> "Inode | None":
        """``empty_fops``: EBADF."""
        raise GuestError(EBADF)
