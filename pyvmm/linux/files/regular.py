"""Open regular files."""

from errno import EFBIG, EINVAL, ENOTTY, ENXIO, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING, Any, cast

from pyvmm.linux.abi.fcntl import (
    F_SEAL_FUTURE_WRITE,
    F_SEAL_GROW,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
    MAX_FILE_SIZE,
    O_APPEND,
    SEEK_CUR,
    SEEK_DATA,
    SEEK_END,
    SEEK_HOLE,
    SEEK_SET,
)
from pyvmm.linux.abi.inotify import IN_ACCESS, IN_MODIFY
from pyvmm.linux.abi.ioctls import FIGETBSZ, FIONREAD
from pyvmm.linux.abi.mman import MAP_PRIVATE, MAP_TYPE, PROT_WRITE
from pyvmm.linux.abi.signal import SIGXFSZ
from pyvmm.linux.abi.stat import S_ISGID, S_ISUID, S_IXGRP
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.limits import RLIMIT_FSIZE

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode
    from pyvmm.linux.vfs.nodes import RegularInode


class RegularFile(OpenFile):
    """A regular file of the store, memfds included."""

    __slots__ = ()

    kind = "regular"
    positioned = True
    in_steps = True

    @property
    def regular(self) -> "RegularInode":
        """The inode, as what it is."""
        return cast("RegularInode", self.inode)

    def save(self) -> dict[str, Any]:
        """See :meth:`OpenFile.save`."""
        return super().save() | {"ino": self.inode.ino, "path": self.inode.path()}

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
        if not data:
            return 0
        if self.flags & O_APPEND:
            self.position = self.inode.size
        done = self._write(task, self.position, data)
        self.position += done
        return done

    def pread(self, task: "Task", offset: int, count: int) -> bytes:
        """See :meth:`OpenFile.pread`."""
        data = self.inode.read_at(offset, count)
        if data:
            self.inode.tell(IN_ACCESS)
        return data

    def pwrite(self, task: "Task", offset: int, data: bytes) -> int:
        """See :meth:`OpenFile.pwrite`. With O_APPEND it appends whatever the offset, as pwrite(2) admits in BUGS."""
        return self._write(task, self.inode.size if self.flags & O_APPEND else offset, data)

    def _write(self, task: "Task", offset: int, data: bytes) -> int:
        inode = self.regular
        limit = task.rlimits[RLIMIT_FSIZE][0]
        if offset + len(data) > limit:
            if offset >= limit:
                task.send_signal(SIGXFSZ)
                raise GuestError(EFBIG)
            data = data[: limit - offset]
        if inode.seals:
            self._check_seals(inode.seals, offset + len(data))
        done = inode.write_at(offset, data)
        inode.tell(IN_MODIFY)
        if inode.mode & (S_ISUID | S_ISGID) and task.creds.fsuid != 0:
            self._strip_privileges(inode)
        return done

    def _check_seals(self, seals: int, end: int) -> None:
        if seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) or (seals & F_SEAL_GROW and end > self.inode.size):
            raise GuestError(EPERM)

    @staticmethod
    def _strip_privileges(inode: "RegularInode") -> None:
        """``file_remove_privs()``: what somebody has changed does not run as its owner any more."""
        mode = inode.mode & ~S_ISUID
        if mode & S_IXGRP:
            mode &= ~S_ISGID
        inode.mode = mode

    def seek(self, offset: int, whence: int) -> int:
        """See :meth:`OpenFile.seek`."""
        if whence == SEEK_CUR:
            offset += self.position
        elif whence != SEEK_SET:
            offset = self._seek_from_contents(offset, whence)
        if not 0 <= offset <= MAX_FILE_SIZE:
            raise GuestError(EINVAL)
        self.position = offset
        return offset

    def _seek_from_contents(self, offset: int, whence: int) -> int:
        size = self.inode.size
        if whence == SEEK_END:
            return offset + size
        if whence not in (SEEK_DATA, SEEK_HOLE):
            raise GuestError(EINVAL)
        if not 0 <= offset < size:
            raise GuestError(ENXIO)
        content = self.regular.content
        if whence == SEEK_HOLE:
            return content.seek_hole(offset)
        data = content.seek_data(offset)
        if data is None:
            raise GuestError(ENXIO)
        return data

    def ioctl(self, task: "Task", request: int, argument: int) -> int:
        """See :meth:`OpenFile.ioctl`."""
        if request == FIONREAD:
            left = self.inode.size - self.position
            task.mem.write(argument, (left & 0xFFFF_FFFF).to_bytes(4, "little"))
            return 0
        if request == FIGETBSZ:
            task.mem.write(argument, (4096).to_bytes(4, "little"))
            return 0
        raise GuestError(ENOTTY)

    def sync(self) -> None:
        """There is no disk: done already."""

    def truncate(self, task: "Task", size: int) -> None:
        """See :meth:`OpenFile.truncate`."""
        inode = self.regular
        resize(task, inode, size)

    def allocate(self, task: "Task", mode: int, offset: int, count: int) -> None:
        """See :meth:`OpenFile.allocate`."""
        inode = self.regular
        if mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE):
            raise GuestError(EOPNOTSUPP)
        keep = mode & FALLOC_FL_KEEP_SIZE
        end = offset + count
        if end > MAX_FILE_SIZE:
            raise GuestError(EFBIG)
        now = task.kernel.clock.realtime_ns()
        if inode.seals and (
            (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) and inode.seals & F_SEAL_WRITE)
            or (inode.seals & F_SEAL_GROW and end > inode.size)
        ):
            raise GuestError(EPERM)
        if mode & FALLOC_FL_PUNCH_HOLE:
            inode.punch(offset, count, now)
            return
        if end > inode.size and not keep:
            _check_limit(task, end)
        if mode & FALLOC_FL_ZERO_RANGE:
            inode.punch(offset, count, now)
        inode.content.allocate(offset, count)
        if end > inode.size and not keep:
            inode.truncate(end, now)
        inode.mtime = inode.ctime = now
        inode.dirty = True

    def mapping(self, prot: int, flags: int) -> "Inode | None":
        """See :meth:`OpenFile.mapping`."""
        self.check_mapping(prot, flags)
        seals = self.regular.seals
        if (
            seals
            and seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)
            and flags & MAP_TYPE != MAP_PRIVATE
            and prot & PROT_WRITE
        ):
            raise GuestError(EPERM)
        return self.inode


def resize(task: "Task", inode: "RegularInode", size: int) -> None:
    """``do_truncate()``: change the size, if limits and seals allow."""
    if size > inode.size:
        _check_limit(task, size)
    if inode.seals and (
        (inode.seals & F_SEAL_SHRINK and size < inode.size) or (inode.seals & F_SEAL_GROW and size > inode.size)
    ):
        raise GuestError(EPERM)
    inode.truncate(size, task.kernel.clock.realtime_ns())
    inode.tell(IN_MODIFY)


def _check_limit(task: "Task", size: int) -> None:
    if size > task.rlimits[RLIMIT_FSIZE][0]:
        task.send_signal(SIGXFSZ)
        raise GuestError(EFBIG)
