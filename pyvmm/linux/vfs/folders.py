"""The directories that can be written to: names and inode numbers, over the image's if they have any there."""

from bisect import bisect_right
from collections.abc import Iterator
from errno import ENOENT, ENOSPC, ENOTEMPTY
from itertools import islice
from typing import TYPE_CHECKING, Any

from pyvmm.linux.abi.inotify import IN_ATTRIB, IN_CREATE, IN_DELETE, IN_ISDIR
from pyvmm.linux.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID, S_IXGRP
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.directory import DirectoryFile
from pyvmm.linux.vfs.inode import Credentials, FileSystem, Inode
from pyvmm.linux.vfs.nodes import RegularInode, StoredInode, SymlinkInode
from pyvmm.linux.vfs.quota import ENTRY_COST
from pyvmm.linux.vfs.watches import tell

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.store import InodeStore

#: Cookies of ``.`` and ``..`` are 1 and 2.
FIRST_COOKIE = 3


class DirectoryInode(StoredInode):
    """A directory: names and inode numbers.

    An image's dict of children is shared by all forks and copied at the first change. An entry keeps its cookie
    (``d_off``) as long as it is there, so that reading a directory goes on rightly whatever is added or removed
    meanwhile.
    """

    __slots__ = ("_cookies", "_listing", "_next_cookie", "charged", "entries")

    def __init__(self, store: "InodeStore", fs: FileSystem, ino: int, mode: int, uid: int, gid: int, now: int) -> None:
        super().__init__(store, fs, ino, mode, uid, gid, now)
        self.nlink = 2
        self.entries: dict[bytes, int] = {}
        self.charged = 0
        self._cookies: dict[bytes, int] | None = None
        self._next_cookie = FIRST_COOKIE
        self._listing: tuple[list[bytes], list[int]] | None = None

    @property
    def size(self) -> int:
        """One block, as a small directory of a disk."""
        return 4096

    @property
    def blocks(self) -> int:
        """One block."""
        return 8

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """See :meth:`Inode.open`."""
        return DirectoryFile(self, flags)

    def lookup(self, name: bytes) -> Inode | None:
        """See :meth:`Inode.lookup`."""
        ino = self.entries.get(name)
        if ino is None:
            return None
        child = self.store.inode(ino)
        child.parent = self
        child.name = name
        return child

    def iterate(self, cookie: int) -> Iterator[tuple[int, bytes, int, int]]:
        """See :meth:`Inode.iterate`."""
        mode_of = self.store.mode_of
        entries = self.entries
        if self._cookies is None:
            skip = max(cookie - FIRST_COOKIE + 1, 0)
            for position, (name, ino) in enumerate(islice(entries.items(), skip, None), FIRST_COOKIE + skip):
                yield position, name, ino, mode_of(ino)
            return
        if self._listing is None:
            self._listing = (list(self._cookies), list(self._cookies.values()))
        names, cookies = self._listing
        for position in range(bisect_right(cookies, cookie), len(names)):
            name = names[position]
            yield cookies[position], name, entries[name], mode_of(entries[name])

    # ---------------------------------------------------------------------------------------------- changing

    def _own(self) -> dict[bytes, int]:
        """The entries and their cookies, made this fork's own."""
        if self._cookies is None:
            self.entries = dict(self.entries)
            self._cookies = {name: cookie for cookie, name in enumerate(self.entries, FIRST_COOKIE)}
            self._next_cookie = len(self.entries) + FIRST_COOKIE
        self._listing = None
        self.dirty = True
        return self._cookies

    def add(self, name: bytes, inode: Inode, now: int) -> None:
        """Enter ``inode`` under ``name``, replacing what is there; link counts are the caller's."""
        if name not in self.entries:
            if self.nlink == 0:
                raise GuestError(ENOENT)
            self.store.take_bytes(ENTRY_COST + len(name))
            self.charged += ENTRY_COST + len(name)
            self._own()[name] = self._next_cookie
            self._next_cookie += 1
        else:
            self._own()
        self.entries[name] = inode.ino
        inode.parent, inode.name = self, name
        self.mtime = self.ctime = now

    def remove(self, name: bytes, now: int) -> None:
        """Take the entry ``name`` away; link counts are the caller's."""
        del self._own()[name]
        del self.entries[name]
        returned = min(ENTRY_COST + len(name), self.charged)
        self.charged -= returned
        self.store.take_bytes(-returned)
        self.mtime = self.ctime = now

    def create(self, name: bytes, mode: int, creds: Credentials, now: int, rdev: int = 0) -> Inode:
        """See :meth:`Inode.create`."""
        inode = self._new(mode, creds, now)
        inode.rdev = rdev
        self._enter(name, inode, now)
        return inode

    def make_directory(self, name: bytes, mode: int, creds: Credentials, now: int) -> Inode:
        """See :meth:`Inode.make_directory`."""
        inode = self._new(S_IFDIR | mode, creds, now)
        self._enter(name, inode, now)
        self.nlink += 1
        return inode

    def make_symlink(self, name: bytes, target: bytes, creds: Credentials, now: int) -> Inode:
        """See :meth:`Inode.make_symlink`."""
        if len(target) > self.store.quota.bytes_free:
            raise GuestError(ENOSPC)
        inode = self._new(S_IFLNK | 0o777, creds, now)
        assert isinstance(inode, SymlinkInode)
        inode.target = b""
        self._enter(name, inode, now)
        self.store.take_bytes(len(target))
        inode.target = target
        return inode

    def make_nameless(self, mode: int, creds: Credentials, now: int) -> Inode:
        """See :meth:`Inode.make_nameless`."""
        inode = self._new(S_IFREG | mode, creds, now)
        assert isinstance(inode, RegularInode)
        inode.nlink = 0
        inode.linkable = True
        inode.parent, inode.name = self, b"#%d" % inode.ino
        return inode

    def _new(self, mode: int, creds: Credentials, now: int) -> StoredInode:
        gid = creds.fsgid
        if self.mode & S_ISGID:
            gid = self.gid
            if mode & S_IFMT == S_IFDIR:
                mode |= S_ISGID
        in_group = gid == creds.fsgid or gid in creds.groups or creds.fsuid == 0
        if mode & S_IFMT != S_IFDIR and mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP and not in_group:
            mode &= ~S_ISGID
        return self.store.new(self.fs, mode, creds.fsuid, gid, now)

    def _enter(self, name: bytes, inode: StoredInode, now: int) -> None:
        try:
            self.add(name, inode, now)
        except GuestError:
            self.store.forget(inode)
            raise
        self.tell_entry(IN_CREATE, name, inode)

    def tell_entry(self, mask: int, name: bytes, inode: Inode, cookie: int = 0) -> None:
        """IN_* has happened to an entry."""
        if self.store.watched:
            tell(self, mask | IN_ISDIR if inode.is_directory else mask, name, cookie)

    def link(self, name: bytes, inode: Inode, now: int) -> None:
        """See :meth:`Inode.link`."""
        assert isinstance(inode, StoredInode)
        self.add(name, inode, now)
        inode.set_links(inode.nlink + 1, now)
        tell(inode, IN_ATTRIB)
        self.tell_entry(IN_CREATE, name, inode)

    def unlink(self, name: bytes, now: int) -> None:
        """See :meth:`Inode.unlink`."""
        inode = self.store.inode(self.entries[name])
        assert isinstance(inode, StoredInode)
        self.remove(name, now)
        tell(inode, IN_ATTRIB)
        inode.set_links(inode.nlink - 1, now)
        self.tell_entry(IN_DELETE, name, inode)

    def remove_directory(self, name: bytes, now: int) -> None:
        """See :meth:`Inode.remove_directory`."""
        child = self.store.inode(self.entries[name])
        assert isinstance(child, DirectoryInode)
        if child.entries:
            raise GuestError(ENOTEMPTY)
        self.remove(name, now)
        self.nlink -= 1
        child.set_links(0, now)
        self.tell_entry(IN_DELETE, name, child)

    def clear(self) -> None:
        """Give the room back."""
        super().clear()
        self.store.take_bytes(-self.charged)
        self.charged = 0

    # -------------------------------------------------------------------------------------------------- state

    def save_entries(self) -> list[object]:
        """Plain data; see :meth:`restore_entries`."""
        cookies = None if self._cookies is None else dict(self._cookies)
        return [dict(self.entries), cookies, self._next_cookie, self.charged]

    def restore_entries(self, state: list[Any]) -> None:
        """Continue with what :meth:`save_entries` gave, which stays shared until the first change."""
        self.entries, cookies, self._next_cookie, self.charged = state
        if cookies is not None:
            # Copied when this fork first looks at the directory: few directories are changed before a snapshot, and
            # they are small.
            self.entries, self._cookies = dict(self.entries), dict(cookies)
