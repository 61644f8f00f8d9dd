"""All inodes of a sandbox that have contents, by number.

Three layers, the upper ones empty at first: the image (numbers 1 to N, immutable, shared by all forks), the writable
layer as it was saved in the snapshot (plain data, shared by all forks, never changed), and the inodes that this fork
has looked at. So a new fork starts with an empty dict, and an inode costs nothing until it is used.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pyvmm.linux.abi.inotify import IN_DELETE_SELF
from pyvmm.linux.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from pyvmm.linux.vfs.content import Content
from pyvmm.linux.vfs.folders import DirectoryInode
from pyvmm.linux.vfs.inode import FileSystem, Inode
from pyvmm.linux.vfs.nodes import RegularInode, SpecialInode, StoredInode, SymlinkInode
from pyvmm.linux.vfs.quota import Quota
from pyvmm.linux.vfs.watches import tell_end

if TYPE_CHECKING:
    from pyvmm.image import Image, ImageInode


class Clock(Protocol):
    """What the file system needs of the clock."""

    def realtime_ns(self) -> int:
        """Nanoseconds since 1970."""


#: A saved inode: dev, mode, uid, gid, nlink, rdev, atime, mtime, ctime, btime, what its kind
#: adds, and the extended attributes.
Record = list[Any]

_CLASSES: dict[int, type[StoredInode]] = {S_IFREG: RegularInode, S_IFDIR: DirectoryInode, S_IFLNK: SymlinkInode}


class InodeStore:
    """Finds inodes by number, makes new ones, and forgets those that nothing needs any more."""

    def __init__(self, image: "Image", quota: Quota, clock: Clock, filesystems: Mapping[int, FileSystem]) -> None:
        self.image = image
        self.image_count = len(image.inodes)
        self.quota = quota
        self.clock = clock
        #: The view of a guest frame; given by the kernel, needed for shared mappings only.
        self.frame_view: Callable[[int], memoryview] = _no_frames
        #: Number of a directory that something is mounted on -> what makes the root of that.
        self.mounts: dict[int, Callable[[], Inode]] = {}
        self._filesystems = filesystems
        self._image_fs = next(iter(filesystems.values()))
        self._live: dict[int, Inode] = {}
        self._records: Mapping[int, Record] = {}
        self._holds: Mapping[int, int] = {}
        self._forgotten: set[int] = set()
        self._next = self.image_count + 2
        #: How many watches there are; without any, nobody has to be told of anything.
        self.watched = 0
        self._cookie = 0

    def __repr__(self) -> str:
        return f"<InodeStore image={self.image_count} live={len(self._live)} {self.quota!r}>"

    def close(self) -> None:
        """Let go of everything."""
        self._live.clear()
        self.mounts.clear()
        self.frame_view = _no_frames

    def inode(self, ino: int) -> Inode:
        """The inode with number ``ino``, which a directory, an open file or a mapping names."""
        inode = self._live.get(ino)
        if inode is None:
            inode = self._live[ino] = self._awake(ino)
        return inode

    def _awake(self, ino: int) -> Inode:
        mount = self.mounts.get(ino)
        if mount is not None:
            return mount()
        record = self._records.get(ino)
        inode = self._from_image(self.image.inodes[ino - 1]) if record is None else self._from_record(ino, record)
        inode.holds = self._holds.get(ino, 0)
        return inode

    def _from_image(self, known: "ImageInode") -> StoredInode:
        inode = _CLASSES[known.mode & S_IFMT](
            self, self._image_fs, known.ino, known.mode, known.uid, known.gid, known.mtime_ns
        )
        inode.nlink = known.nlink
        if isinstance(inode, RegularInode):
            size = known.size
            inode.content = Content(self.quota, size, partial(self.image.read, known), size)
        elif isinstance(inode, DirectoryInode):
            inode.entries = known.children or {}
        elif isinstance(inode, SymlinkInode):
            inode.target = known.target or b""
        return inode

    def shm_root(self, fs: FileSystem) -> Inode:
        """The root of the tmpfs ``fs``, whose number is the first after the image's."""
        ino = self.image_count + 1
        if ino not in self._live and ino not in self._records:
            root = self._live[ino] = DirectoryInode(self, fs, ino, S_IFDIR | 0o1777, 0, 0, self.clock.realtime_ns())
            root.dirty = True
        return self.inode(ino)

    def unload(self, inode: Inode) -> None:
        """Something is mounted on ``inode``: who asks for its number shall get the root of that."""
        del self._live[inode.ino]

    def mode_of(self, ino: int) -> int:
        """The mode of an inode, without waking it."""
        inode = self._live.get(ino)
        if inode is not None:
            return inode.mode
        if ino in self.mounts:
            return S_IFDIR
        record = self._records.get(ino)
        return self.image.inodes[ino - 1].mode if record is None else record[1]

    # -------------------------------------------------------------------------------------- coming and going

    def new(self, fs: FileSystem, mode: int, uid: int, gid: int, now: int) -> StoredInode:
        """A new inode without a name yet (ENOSPC when there are too many)."""
        self.quota.take_inode()
        ino = self._next
        self._next += 1
        inode = _CLASSES.get(mode & S_IFMT, SpecialInode)(self, fs, ino, mode, uid, gid, now)
        inode.dirty = True
        self._live[ino] = inode
        return inode

    def forget(self, inode: StoredInode) -> None:
        """Nothing names or holds ``inode`` any more: its room is free."""
        if self._live.pop(inode.ino, None) is None:
            return
        inode.clear()
        if inode.watches:
            tell_end(inode, IN_DELETE_SELF)
        if inode.ino in self._records or inode.ino in self._holds:
            self._forgotten.add(inode.ino)
        if inode.ino > self.image_count:
            self.quota.give_inode()

    def next_cookie(self) -> int:
        """A number for the two events of one move."""
        self._cookie = self._cookie + 1 & 0xFFFF_FFFF or 1
        return self._cookie

    def take_bytes(self, count: int) -> None:
        """Count bytes that are not contents (ENOSPC); negative: give them back."""
        self.quota.take(count)

    # ------------------------------------------------------------------------------------------------- state

    def save(self) -> dict[str, Any]:
        """The writable layer as plain data (with integers as keys)."""
        records = {ino: record for ino, record in self._records.items() if ino not in self._forgotten}
        holds = {ino: count for ino, count in self._holds.items() if ino not in self._forgotten}
        for ino, inode in self._live.items():
            if not isinstance(inode, StoredInode):
                continue
            if inode.dirty:
                records[ino] = _record_of(inode)
            if inode.holds > 0:
                holds[ino] = inode.holds
            else:
                holds.pop(ino, None)
        return {
            "inodes": records,
            "holds": holds,
            "next": self._next,
            "bytes_used": self.quota.bytes_used,
            "inodes_used": self.quota.inodes_used,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue with what :meth:`save` gave. The state is shared, not copied: nothing may change it afterwards."""
        self._records = state["inodes"]
        self._holds = state["holds"]
        self._next = state["next"]
        self.quota.bytes_used = state["bytes_used"]
        self.quota.inodes_used = state["inodes_used"]

    def _from_record(self, ino: int, record: Record) -> StoredInode:
        dev, mode, uid, gid, nlink, rdev, atime, mtime, ctime, btime, payload, xattrs = record
        inode = _CLASSES.get(mode & S_IFMT, SpecialInode)(self, self._filesystems[dev], ino, mode, uid, gid, ctime)
        inode.nlink, inode.rdev = nlink, rdev
        inode.atime, inode.mtime, inode.btime = atime, mtime, btime
        inode.xattrs = xattrs
        if isinstance(inode, RegularInode):
            size, base_size, charged, chunks, frames, seals, shared_maps = payload
            content = inode.content = Content(self.quota, size, None, 0)
            if base_size:
                known = self.image.inodes[ino - 1]
                content = inode.content = Content(self.quota, size, partial(self.image.read, known), base_size)
            content.charged = charged
            content.chunks = dict(chunks)
            inode.page_frames = dict(frames) if frames else None
            inode.seals, inode.shared_maps = seals, shared_maps
        elif isinstance(inode, DirectoryInode):
            inode.restore_entries(payload)
        elif isinstance(inode, SymlinkInode):
            inode.target = payload
        return inode


def _record_of(inode: StoredInode) -> Record:
    payload: Any = None
    if isinstance(inode, RegularInode):
        content = inode.content
        chunks = {index: bytes(chunk) for index, chunk in content.chunks.items()}
        frames = dict(inode.page_frames or {})
        payload = [content.size, content.base_size, content.charged, chunks, frames, inode.seals, inode.shared_maps]
    elif isinstance(inode, DirectoryInode):
        payload = inode.save_entries()
    elif isinstance(inode, SymlinkInode):
        payload = inode.target
    return [
        inode.fs.dev, inode.mode, inode.uid, inode.gid, inode.nlink, inode.rdev,
        inode.atime, inode.mtime, inode.ctime, inode.btime, payload, inode.xattrs,
    ]  # fmt: skip


def _no_frames(frame: int) -> memoryview:
    raise RuntimeError("no guest memory is attached to this file system")
