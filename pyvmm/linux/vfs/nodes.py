"""The inodes that can be written to: regular files, symbolic links, FIFOs and devices of the root file system and of
tmpfs. (Directories are in :mod:`.folders`.)

They begin as the image or a saved state has them; :attr:`StoredInode.dirty` says that this fork's copy differs and must
be saved. Permissions are checked by the callers (:mod:`.namei`, :mod:`.changes`); what is here only does the work, or
fails for want of room.
"""

from collections.abc import Iterator, Mapping
from errno import EFBIG, ENOSPC
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import MAX_FILE_SIZE
from pyvmm.linux.abi.inotify import IN_ATTRIB
from pyvmm.linux.abi.stat import S_IFIFO, S_IFMT
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.pipe import Pipe, open_fifo
from pyvmm.linux.files.regular import RegularFile
from pyvmm.linux.vfs.content import Content
from pyvmm.linux.vfs.inode import FileSystem, Inode
from pyvmm.linux.vfs.watches import tell_with_parent

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.store import InodeStore

#: Names an inode may have: ext4's limit.
LINK_MAX = 65000
#: Bytes of all extended attributes of an inode, and what each costs besides name and value.
XATTRS_MAX, XATTR_COST = 128 << 10, 128
_NO_XATTRS: Mapping[bytes, bytes] = {}


class StoredInode(Inode):
    """An inode of the store: it has a number there, and attributes that can be changed."""

    __slots__ = ("dirty", "store", "xattrs")

    def __init__(self, store: "InodeStore", fs: FileSystem, ino: int, mode: int, uid: int, gid: int, now: int) -> None:
        super().__init__(fs, ino, mode, uid, gid, now)
        self.store = store
        self.dirty = False
        #: Extended attributes; changed by :meth:`set_xattr` only, for the dict without any is everybody's.
        self.xattrs: Mapping[bytes, bytes] = _NO_XATTRS

    def hold(self) -> None:
        """See :meth:`Inode.hold`."""
        self.holds += 1

    def drop(self) -> None:
        """See :meth:`Inode.drop`; without holders and without names the inode and its contents are gone."""
        self.holds -= 1
        if self.holds <= 0 and self.nlink == 0:
            self.store.forget(self)

    def set_mode(self, mode: int, now: int) -> None:
        """``chmod``."""
        self.mode = self.mode & S_IFMT | mode
        self.ctime = now
        self.dirty = True
        self.tell(IN_ATTRIB)

    def set_owner(self, uid: int, gid: int, now: int) -> None:
        """``chown``."""
        self.uid, self.gid = uid, gid
        self.ctime = now
        self.dirty = True
        self.tell(IN_ATTRIB)

    def tell(self, mask: int) -> None:
        """See :meth:`Inode.tell`."""
        if self.store.watched:
            tell_with_parent(self, mask)

    def set_times(self, atime: int | None, mtime: int | None, now: int) -> None:
        """``utimensat``."""
        if atime is not None:
            self.atime = atime
        if mtime is not None:
            self.mtime = mtime
        self.ctime = now
        self.dirty = True
        self.tell(IN_ATTRIB)

    def set_links(self, count: int, now: int) -> None:
        """Another number of names."""
        self.nlink = count
        self.ctime = now
        self.dirty = True
        if not count and self.holds <= 0:
            self.store.forget(self)

    def set_xattr(self, name: bytes, value: bytes | None, now: int) -> None:
        """Give an extended attribute a value, or (``None``) take it away.

        :raises GuestError: ENOSPC, as ext4 has it: all of one inode's together are limited, by a block there.
        """
        changed = {**self.xattrs}
        changed.pop(name, None)
        if value is not None:
            changed[name] = value
        cost = _xattrs_cost(changed)
        if value is not None and cost > XATTRS_MAX:
            raise GuestError(ENOSPC)
        self.store.take_bytes(cost - _xattrs_cost(self.xattrs))
        self.xattrs = changed
        self.ctime = now
        self.dirty = True

    def clear(self) -> None:
        """Give back what the inode takes of the quota."""
        self.store.take_bytes(-_xattrs_cost(self.xattrs))


def _xattrs_cost(xattrs: Mapping[bytes, bytes]) -> int:
    return sum(XATTR_COST + len(name) + len(value) for name, value in xattrs.items())


class RegularInode(StoredInode):
    """A regular file."""

    __slots__ = ("content", "linkable", "page_frames", "seals", "shared_maps")

    def __init__(self, store: "InodeStore", fs: FileSystem, ino: int, mode: int, uid: int, gid: int, now: int) -> None:
        super().__init__(store, fs, ino, mode, uid, gid, now)
        self.content = Content(store.quota)
        #: Pages that are mapped shared: page index -> guest frame. The frame holds what the page contains now; the
        #: memory manager fills the dict by :meth:`share_page` and empties it by :meth:`unshare_pages`, reading and
        #: writing go through it.
        self.page_frames: dict[int, int] | None = None
        #: How many areas of all address spaces map it shared.
        self.shared_maps = 0
        #: F_SEAL_* of a memfd; ``None``: the file system knows no seals.
        self.seals: int | None = None
        #: Made by O_TMPFILE: it may be given its first name.
        self.linkable = False

    @property
    def size(self) -> int:
        """``st_size``."""
        return self.content.size

    @property
    def blocks(self) -> int:
        """``st_blocks``."""
        content = self.content
        return content.charged >> 9 or ((content.base_size + 4095) >> 12) << 3

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """See :meth:`Inode.open`."""
        return RegularFile(self, flags)

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset`` on."""
        data = self.content.read(offset, count)
        if self.page_frames:
            mixed = bytearray(data)
            for start, view in self._shared_views(offset, len(data)):
                mixed[start : start + len(view)] = view
            data = bytes(mixed)
        return data

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Write at ``offset``; how much could be.

        :raises GuestError: ENOSPC, EFBIG.
        """
        if offset + len(data) > MAX_FILE_SIZE:
            if offset >= MAX_FILE_SIZE:
                raise GuestError(EFBIG)
            data = data[: MAX_FILE_SIZE - offset]
        done = self.content.write(offset, data)
        if self.page_frames:
            for start, view in self._shared_views(offset, done):
                view[:] = data[start : start + len(view)]
        self.mtime = self.ctime = self.store.clock.realtime_ns()
        self.dirty = True
        return done

    def truncate(self, size: int, now: int) -> None:
        """Cut off, or extend by a hole."""
        old = self.content.size
        if size < old and self.page_frames:
            for _, view in self._shared_views(size, old - size):
                view[:] = bytes(len(view))
        self.content.truncate(size)
        self.mtime = self.ctime = now
        self.dirty = True

    def punch(self, offset: int, count: int, now: int) -> None:
        """Make a hole."""
        self.content.punch(offset, count)
        if self.page_frames:
            for _, view in self._shared_views(offset, count):
                view[:] = bytes(len(view))
        self.mtime = self.ctime = now
        self.dirty = True

    # -------------------------------------------------------------------------------------- shared mappings

    def shared_frame(self, index: int) -> int | None:
        """The frame that all shared mappings of page ``index`` use; ``None`` if there is none yet."""
        return self.page_frames.get(index) if self.page_frames else None

    def share_page(self, index: int, frame: int) -> None:
        """From now on page ``index`` is what ``frame`` contains, which gets the present contents first."""
        view = self.store.frame_view(frame)
        data = self.read_at(index << 12, 4096)
        view[: len(data)] = data
        view[len(data) :] = bytes(len(view) - len(data))
        if self.page_frames is None:
            self.page_frames = {}
        self.page_frames[index] = frame
        self.dirty = True

    def unshare_pages(self) -> list[int]:
        """Write all shared pages back and forget them; the frames that they had."""
        frames, self.page_frames = self.page_frames or {}, None
        if not self.nlink and self.holds <= 1:
            return list(frames.values())  # Nobody will ever read it again.
        for index, frame in frames.items():
            data = self.store.frame_view(frame)[: max(self.content.size - (index << 12), 0)]
            if len(data) and bytes(data) != self.content.read(index << 12, len(data)):
                try:
                    self.content.write(index << 12, bytes(data))
                except GuestError:
                    break  # No room: what was written to the mapping is lost, as on a full disk.
        return list(frames.values())

    def _shared_views(self, offset: int, count: int) -> Iterator[tuple[int, memoryview]]:
        """The pieces of ``[offset, offset + count)`` that lie in shared pages: (position relative to ``offset``,
        writable view).
        """
        frames = self.page_frames or {}
        wanted = range(offset >> 12, (offset + count + 4095) >> 12)
        for index in wanted if len(wanted) < len(frames) else list(frames):
            frame = frames.get(index)
            if frame is None:
                continue
            start, end = max(index << 12, offset), min((index + 1) << 12, offset + count)
            if start < end:
                base = index << 12
                yield start - offset, self.store.frame_view(frame)[start - base : end - base]

    def clear(self) -> None:
        """Give the room back."""
        super().clear()
        self.content.clear()


class SymlinkInode(StoredInode):
    """A symbolic link."""

    __slots__ = ("target",)

    target: bytes

    @property
    def size(self) -> int:
        """The length of the target."""
        return len(self.target)

    def readlink(self, task: "Task") -> bytes:
        """The target."""
        return self.target

    def clear(self) -> None:
        """Give the room back."""
        super().clear()
        if self.ino > self.store.image_count:
            self.store.take_bytes(-len(self.target))


class SpecialInode(StoredInode):
    """A FIFO, or the name of a device (which opens nothing outside ``/dev``: ENXIO)."""

    __slots__ = ("pipe",)

    def __init__(self, store: "InodeStore", fs: FileSystem, ino: int, mode: int, uid: int, gid: int, now: int) -> None:
        super().__init__(store, fs, ino, mode, uid, gid, now)
        self.pipe: Pipe | None = None

    def open(self, task: "Task", flags: int) -> "OpenFile":
        """See :meth:`Inode.open`."""
        if self.mode & S_IFMT != S_IFIFO:
            return super().open(task, flags)
        if self.pipe is None:
            self.pipe = Pipe()
        return open_fifo(task, self, self.pipe, flags)
