"""signalfd(2): signals that are read (``fs/signalfd.c``)."""

import struct
from errno import EAGAIN, EINVAL
from typing import TYPE_CHECKING, Any

from pyvmm.linux.abi.fcntl import O_NONBLOCK, O_RDWR
from pyvmm.linux.abi.poll import POLLIN
from pyvmm.linux.abi.signal import SI_KERNEL, SI_TIMER, SIGCHLD
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.wait import WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.kernel import Kernel
    from pyvmm.linux.signals import SignalInfo
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode

#: ``struct signalfd_siginfo``: signo errno code pid uid fd tid band overrun trapno status int ptr utime stime addr.
_SIGINFO = struct.Struct("<IiiIIiIIIIiiQQQQ")
_SIZE = 128
#: Signals that one read gives at most: more are there for the next.
_STEP = 64


class SignalFile(OpenFile):
    """The pending signals of a mask, of whoever reads."""

    __slots__ = ("_kernel", "mask")

    kind = "signalfd"

    def __init__(self, inode: "Inode", flags: int, kernel: "Kernel", mask: int) -> None:
        super().__init__(inode, O_RDWR | flags & O_NONBLOCK)
        self._kernel = kernel
        self.mask = mask

    def read(self, task: "Task", count: int) -> bytes:
        """``signalfd_read_iter``: as many signals as there are and fit."""
        if count < _SIZE:
            raise GuestError(EINVAL)
        found: list[bytes] = []
        while len(found) < min(count // _SIZE, _STEP) and (info := task.signals.take(self.mask)) is not None:
            found.append(_bytes_of(info))
        if not found:
            if self.flags & O_NONBLOCK:
                raise GuestError(EAGAIN)
            task.wait(task.process.signals.arrived)
        return b"".join(found)

    def poll(self, task: "Task") -> int:
        """``signalfd_poll``."""
        return POLLIN if task.signals.pending_mask() & self.mask else 0

    def queues(self) -> tuple[WaitQueue, ...]:
        """Those of the process that asks."""
        return (self._kernel.task.process.signals.arrived,)

    def seek(self, offset: int, whence: int) -> int:
        """``noop_llseek``."""
        return self.position

    def save(self) -> dict[str, Any]:
        """See :meth:`OpenFile.save`."""
        return super().save() | {"mask": self.mask}


def _bytes_of(info: "SignalInfo") -> bytes:
    """``signalfd_copyinfo()``."""
    pid = uid = tid = overrun = status = value = address = 0
    if info.signo == SIGCHLD and 0 < info.code < SI_KERNEL:
        pid, uid, status = info.pid, info.uid, info.status
    elif info.code == SI_TIMER:
        tid, overrun, value = info.pid, info.uid, info.value
    elif 0 < info.code < SI_KERNEL:
        address = info.address
    else:
        pid, uid, value = info.pid, info.uid, info.value
    value &= (1 << 64) - 1
    number = (value & 0xFFFF_FFFF) - ((value & 0x8000_0000) << 1)
    fields = (info.signo, 0, info.code, pid, uid, 0, tid, 0, overrun, info.trapno, status, number, value, 0, 0, address)
    return _SIGINFO.pack(*fields).ljust(_SIZE, b"\0")
