"""Names: making, removing, moving and linking them."""

from errno import EINVAL, ENOENT, EPERM
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_REMOVEDIR,
    AT_SYMLINK_FOLLOW,
    AT_SYMLINK_NOFOLLOW,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
)
from pyvmm.linux.abi.stat import S_IALLUGO, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK
from pyvmm.linux.errors import GuestError
from pyvmm.linux.table import Fd, Flags, Mode, Path, UInt, syscall
from pyvmm.linux.vfs import changes
from pyvmm.linux.vfs.namei import lookup_at, read_path

if TYPE_CHECKING:
    from pyvmm.linux.task import Task


@syscall
def unlink(task: "Task", path: Path) -> int:
    """unlink(2): remove the name of a file."""
    changes.remove_file(task, AT_FDCWD, read_path(task, path))
    return 0


@syscall
def unlinkat(task: "Task", dirfd: Fd, path: Path, flags: Flags) -> int:
    """unlinkat(2): the same relative to a directory, or rmdir."""
    if flags & ~AT_REMOVEDIR:
        raise GuestError(EINVAL)
    (changes.remove_directory if flags else changes.remove_file)(task, dirfd, read_path(task, path))
    return 0


@syscall
def rmdir(task: "Task", path: Path) -> int:
    """rmdir(2): remove an empty directory."""
    changes.remove_directory(task, AT_FDCWD, read_path(task, path))
    return 0


@syscall
def mkdir(task: "Task", path: Path, mode: Mode) -> int:
    """mkdir(2): make a directory."""
    return mkdirat(task, AT_FDCWD, path, mode)


@syscall
def mkdirat(task: "Task", dirfd: Fd, path: Path, mode: Mode) -> int:
    """mkdirat(2): the same, relative to a directory."""
    last = changes.place_for(task, dirfd, read_path(task, path), directory=True)
    mode = mode & 0o1777 & ~task.fs.umask
    last.directory.make_directory(last.name, mode, task.creds, task.kernel.clock.realtime_ns())
    return 0


@syscall
def mknod(task: "Task", path: Path, mode: Mode, dev: UInt) -> int:
    """mknod(2): make a file, a FIFO or a socket's name.

    Devices cannot be made, whoever asks (EPERM).
    """
    return mknodat(task, AT_FDCWD, path, mode, dev)


@syscall
def mknodat(task: "Task", dirfd: Fd, path: Path, mode: Mode, dev: UInt) -> int:
    """mknodat(2): the same, relative to a directory.

    Devices cannot be made, whoever asks (EPERM).
    """
    kind = mode & S_IFMT or S_IFREG
    if kind == S_IFDIR:
        raise GuestError(EPERM)
    if kind not in (S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK):
        raise GuestError(EINVAL)
    last = changes.place_for(task, dirfd, read_path(task, path))
    # A character device 0:0 is a whiteout, which anyone may make.
    if kind == S_IFBLK or (kind == S_IFCHR and dev):
        raise GuestError(EPERM)
    mode = kind | mode & S_IALLUGO & ~task.fs.umask
    last.directory.create(last.name, mode, task.creds, task.kernel.clock.realtime_ns())
    return 0


@syscall
def symlink(task: "Task", target: Path, path: Path) -> int:
    """symlink(2): make a symbolic link."""
    return symlinkat(task, target, AT_FDCWD, path)


@syscall
def symlinkat(task: "Task", target: Path, dirfd: Fd, path: Path) -> int:
    """symlinkat(2): the same, relative to a directory."""
    text = read_path(task, target)
    if not text:
        raise GuestError(ENOENT)
    last = changes.place_for(task, dirfd, read_path(task, path))
    last.directory.make_symlink(last.name, text, task.creds, task.kernel.clock.realtime_ns())
    return 0


@syscall
def link(task: "Task", old: Path, new: Path) -> int:
    """link(2): give a file another name."""
    return linkat(task, AT_FDCWD, old, AT_FDCWD, new, 0)


@syscall
def linkat(task: "Task", old_fd: Fd, old: Path, new_fd: Fd, new: Path, flags: Flags) -> int:
    """linkat(2): the same, relative to directories."""
    if flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
        raise GuestError(EINVAL)
    nofollow = 0 if flags & AT_SYMLINK_FOLLOW else AT_SYMLINK_NOFOLLOW
    inode = lookup_at(task, old_fd, old, nofollow | flags & AT_EMPTY_PATH)
    changes.make_link(task, inode, new_fd, read_path(task, new))
    return 0


@syscall
def rename(task: "Task", old: Path, new: Path) -> int:
    """rename(2): give a file another name instead of its own."""
    changes.rename(task, AT_FDCWD, read_path(task, old), AT_FDCWD, read_path(task, new), 0)
    return 0


@syscall
def renameat(task: "Task", old_fd: Fd, old: Path, new_fd: Fd, new: Path) -> int:
    """renameat(2): the same, relative to directories."""
    changes.rename(task, old_fd, read_path(task, old), new_fd, read_path(task, new), 0)
    return 0


@syscall
def renameat2(task: "Task", old_fd: Fd, old: Path, new_fd: Fd, new: Path, flags: Flags) -> int:
    """renameat2(2): the same, without replacing, or exchanging two names.

    RENAME_WHITEOUT is refused (EINVAL).
    """
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
        raise GuestError(EINVAL)
    changes.rename(task, old_fd, read_path(task, old), new_fd, read_path(task, new), flags)
    return 0
