"""Open files of ``/proc`` and ``/sys``: their contents are made when they are opened (``seq_file``)."""

from errno import EINVAL, ENOMEM
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import SEEK_CUR, SEEK_SET
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.pseudo import GeneratedInode
    from pyvmm.linux.vfs.quota import Quota

#: So long a text is not counted: what programs look at is there even when nothing else can be had.
_FREE_OF_CHARGE = 4096


class GeneratedFile(OpenFile):
    """A text that was true when the file was opened; reading from the start again makes it anew (``seq_file``)."""

    __slots__ = ("_charged", "_data", "_quota", "_source")

    positioned = True
    in_steps = True

    def __init__(self, inode: "GeneratedInode", flags: int, data: bytes, quota: "Quota") -> None:
        self._source = inode
        self._quota = quota
        self._charged = 0
        self._data: bytes | None = None
        self._keep(data)
        super().__init__(inode, flags)

    def closed(self) -> None:
        """See :meth:`OpenFile.closed`."""
        self._quota.take(-self._charged)
        self._charged = 0

    def _keep(self, data: bytes) -> None:
        """Hold a text for as long as the file is open: it is the monitor's memory, and all of it that is not short
        counts as a file's contents do (ENOMEM).
        """
        charge = max(len(data) - _FREE_OF_CHARGE, 0)
        if charge != self._charged:
            try:
                self._quota.take(charge - self._charged)
            except GuestError:
                raise GuestError(ENOMEM) from None
            self._charged = charge
        self._data = data

    def _text(self, task: "Task") -> bytes:
        if self._data is None:
            self._keep(self._source.produce(task))
            assert self._data is not None
        return self._data

    def read(self, task: "Task", count: int) -> bytes:
        """See :meth:`OpenFile.read`."""
        data = self._text(task)[self.position : self.position + count]
        self.position += len(data)
        return data

    def unread(self, data: bytes) -> None:
        """See :meth:`OpenFile.unread`."""
        self.position -= len(data)

    def pread(self, task: "Task", offset: int, count: int) -> bytes:
        """See :meth:`OpenFile.pread`."""
        return self._text(task)[offset : offset + count]

    def write(self, task: "Task", data: bytes) -> int:
        """See :meth:`OpenFile.write`; what is written means something at once and as a whole."""
        self._source.consume(task, data)
        self._data = None
        return len(data)

    def seek(self, offset: int, whence: int) -> int:
        """``seq_lseek``: only from the start or from here."""
        if whence == SEEK_CUR:
            offset += self.position
        elif whence != SEEK_SET:
            raise GuestError(EINVAL)
        if offset < 0:
            raise GuestError(EINVAL)
        if offset == 0:
            self._data = None
        self.position = offset
        return offset
