"""The memory devices of ``/dev``: null, zero, full, random (mem(4), null(4), random(4))."""

from errno import EINVAL, ENODEV, ENOSPC, ENOTTY
from typing import TYPE_CHECKING, Any

from pyvmm.linux.abi.ioctls import RNDGETENTCNT
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode


class NullFile(OpenFile):
    """``/dev/null``: empty to read, swallows what is written."""

    __slots__ = ()

    kind = "device"
    positioned = True
    in_steps = True

    def save(self) -> dict[str, Any]:
        """See :meth:`OpenFile.save`."""
        return super().save() | {"path": self.inode.path()}

    def read(self, task: "Task", count: int) -> bytes:
        """``read_null``."""
        return b""

    def write(self, task: "Task", data: bytes) -> int:
        """``write_null``."""
        return len(data)

    def pread(self, task: "Task", offset: int, count: int) -> bytes:
        """The offset does not matter."""
        return self.read(task, count)

    def pwrite(self, task: "Task", offset: int, data: bytes) -> int:
        """The offset does not matter."""
        return self.write(task, data)

    def seek(self, offset: int, whence: int) -> int:
        """``null_lseek``: always at the start."""
        return 0


class ZeroFile(NullFile):
    """``/dev/zero``."""

    __slots__ = ()

    def read(self, task: "Task", count: int) -> bytes:
        """``read_iter_zero``."""
        return bytes(count)

    def mapping(self, prot: int, flags: int) -> "Inode | None":
        """Anonymous memory."""
        self.check_mapping(prot, flags)
        return None


class FullFile(ZeroFile):
    """``/dev/full``: zeros to read, no space to write."""

    __slots__ = ()

    def write(self, task: "Task", data: bytes) -> int:
        """``write_full``: ENOSPC."""
        raise GuestError(ENOSPC)

    def mapping(self, prot: int, flags: int) -> "Inode | None":
        """NULL ``mmap``."""
        raise GuestError(ENODEV)


class RandomFile(NullFile):
    """``/dev/random`` and ``/dev/urandom``: both never block and never repeat, in any fork."""

    __slots__ = ()

    def read(self, task: "Task", count: int) -> bytes:
        """``urandom_read_iter``."""
        return task.kernel.random(count)

    def seek(self, offset: int, whence: int) -> int:
        """``noop_llseek``."""
        return self.position

    def ioctl(self, task: "Task", request: int, argument: int) -> int:
        """``random_ioctl``: how much entropy there is."""
        if request == RNDGETENTCNT:
            task.mem.write(argument, (256).to_bytes(4, "little"))
            return 0
        raise GuestError(EINVAL if request >> 8 & 0xFF == ord("R") else ENOTTY)
