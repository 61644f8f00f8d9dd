"""What only the administrator of a machine may do to its file tree: nobody here is."""

from errno import EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import AT_FDCWD
from pyvmm.linux.errors import GuestError
from pyvmm.linux.table import Fd, Flags, Int, LongFlags, Path, Pointer, syscall
from pyvmm.linux.vfs.namei import lookup_at

if TYPE_CHECKING:
    from pyvmm.linux.task import Task


@syscall
def chroot(task: "Task", path: Path) -> int:
    """chroot(2): not permitted."""
    lookup_at(task, AT_FDCWD, path, 0)
    raise GuestError(EPERM)


@syscall
def mount(task: "Task", source: Path, target: Path, kind: Path, flags: LongFlags, data: Pointer) -> int:
    """mount(2): not permitted."""
    raise GuestError(EPERM)


@syscall
def umount2(task: "Task", target: Path, flags: Flags) -> int:
    """umount2(2): not permitted."""
    raise GuestError(EPERM)


@syscall
def pivot_root(task: "Task", new: Path, old: Path) -> int:
    """pivot_root(2): not permitted."""
    raise GuestError(EPERM)


@syscall
def name_to_handle_at(task: "Task", dirfd: Fd, path: Path, handle: Pointer, mount_id: Pointer, flags: Int) -> int:
    """name_to_handle_at(2): the file system has no handles."""
    raise GuestError(EOPNOTSUPP)


@syscall
def open_by_handle_at(task: "Task", mount_fd: Fd, handle: Pointer, flags: Int) -> int:
    """open_by_handle_at(2): not permitted."""
    raise GuestError(EPERM)
