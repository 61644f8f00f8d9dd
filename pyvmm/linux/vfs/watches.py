"""Telling those who watch a file or directory what happens to it (``fs/notify``).

An inode knows its watches. Whoever changes something tells it; the directory that an inode was last found in hears of
what is done with its children also.
"""

from typing import TYPE_CHECKING, Protocol

from pyvmm.linux.abi.inotify import IN_ISDIR, IN_ONESHOT

if TYPE_CHECKING:
    from pyvmm.linux.vfs.inode import Inode


class Owner(Protocol):
    """Who is told."""

    def happened(self, watch: "Watch", mask: int, name: bytes, cookie: int) -> None:
        """``mask`` (IN_*) has happened, to the child ``name`` if there is one."""

    def forget(self, watch: "Watch") -> None:
        """The watch is over."""


class Watch:
    """What one owner wants to know of one inode."""

    __slots__ = ("inode", "mask", "number", "owner")

    def __init__(self, owner: Owner, number: int, inode: "Inode", mask: int) -> None:
        self.owner = owner
        self.number = number
        self.inode = inode
        self.mask = mask


def tell(inode: "Inode", mask: int, name: bytes = b"", cookie: int = 0) -> None:
    """Something has happened to ``inode``, or to its child ``name``."""
    for watch in tuple(inode.watches.values()) if inode.watches else ():
        if watch.mask & mask & ~IN_ISDIR:
            watch.owner.happened(watch, mask, name, cookie)
            if watch.mask & IN_ONESHOT:
                watch.owner.forget(watch)


def tell_with_parent(inode: "Inode", mask: int) -> None:
    """Something was done with ``inode`` that its directory hears of as well."""
    if inode.is_directory:
        mask |= IN_ISDIR
    if inode.parent is not None and inode.parent.watches:
        tell(inode.parent, mask, inode.name)
    tell(inode, mask)


def tell_end(inode: "Inode", mask: int) -> None:
    """``inode`` is gone, and with it all that watch it."""
    tell(inode, mask)
    for watch in tuple(inode.watches.values()) if inode.watches else ():
        watch.owner.forget(watch)
