"""The open file of ``/proc/<pid>/mem``: memory, its position being the address (fs/proc/base.c, ``mem_rw``).

Unlike on Linux, where a debugger may write to pages that the process itself may not (``FOLL_FORCE``), access is what
the process has.
"""

from errno import EINVAL, EIO
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import SEEK_CUR, SEEK_SET
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.layout import TASK_SIZE

if TYPE_CHECKING:
    from pyvmm.linux.mm import AddressSpace
    from pyvmm.linux.task import Task
    from pyvmm.linux.usermem import UserMemory
    from pyvmm.linux.vfs.inode import Inode

#: Bytes that are copied at once; a longer transfer is a short one.
_STEP = 1 << 20


class MemoryFile(OpenFile):
    """The memory that the process had when the file was opened; empty when nobody has that any more."""

    __slots__ = ("_mem", "_mm")

    positioned = True

    def __init__(self, inode: "Inode", flags: int, mm: "AddressSpace", mem: "UserMemory") -> None:
        super().__init__(inode, flags)
        self._mm, self._mem = mm, mem

    def read(self, task: "Task", count: int) -> bytes:
        """See :meth:`OpenFile.read`."""
        data = self.pread(task, self.position, count)
        self.position += len(data)
        return data

    def unread(self, data: bytes) -> None:
        """See :meth:`OpenFile.unread`."""
        self.position -= len(data)

    def write(self, task: "Task", data: bytes) -> int:
        """See :meth:`OpenFile.write`."""
        written = self.pwrite(task, self.position, data)
        self.position += written
        return written

    def pread(self, task: "Task", offset: int, count: int) -> bytes:
        """See :meth:`OpenFile.pread`; EIO where nothing is mapped."""
        if not count or not self._mm.users:
            return b""
        size = self._mem.readable(offset, min(count, _STEP)) if offset < TASK_SIZE else 0
        if not size:
            raise GuestError(EIO)
        return self._mem.read(offset, size)

    def pwrite(self, task: "Task", offset: int, data: bytes) -> int:
        """See :meth:`OpenFile.pwrite`."""
        if not data or not self._mm.users:
            return 0
        size = self._mem.writable(offset, min(len(data), _STEP)) if offset < TASK_SIZE else 0
        if not size:
            raise GuestError(EIO)
        self._mem.write(offset, data[:size])
        return size

    def seek(self, offset: int, whence: int) -> int:
        """``mem_lseek``: only from the start or from here."""
        if whence == SEEK_CUR:
            offset += self.position
        elif whence != SEEK_SET:
            raise GuestError(EINVAL)
        if not 0 <= offset < 1 << 63:
            raise GuestError(EINVAL)
        self.position = offset
        return offset
