"""The file tree of one sandbox: image, writable layer, ``/dev``, ``/proc``, ``/sys``.

Nothing here ever opens a path of the host. A fork's Vfs is made of a few empty dicts; inodes come to life when they are
looked at, pseudo file systems when a path leads into them.
"""

from collections.abc import Callable
from errno import EACCES
from typing import TYPE_CHECKING, Any, Self

from pyvmm.linux.abi.fcntl import AT_FDCWD, MAXSYMLINKS
from pyvmm.linux.abi.stat import OVERLAYFS_SUPER_MAGIC, S_IFDIR, S_IFREG, TMPFS_MAGIC
from pyvmm.linux.errors import GuestError
from pyvmm.linux.vfs.anonymous import PipeInode, StdioInode
from pyvmm.linux.vfs.devfs import DEVFS, make_dev
from pyvmm.linux.vfs.devpts import DEVPTS, Terminals
from pyvmm.linux.vfs.folders import DirectoryInode
from pyvmm.linux.vfs.inode import MAY_EXEC, FileSystem, Inode
from pyvmm.linux.vfs.inputs import put_file
from pyvmm.linux.vfs.namei import lookup
from pyvmm.linux.vfs.nodes import RegularInode, StoredInode, SymlinkInode
from pyvmm.linux.vfs.procfs import PROCFS, make_proc
from pyvmm.linux.vfs.pseudo import DeviceInode, DeviceMaker
from pyvmm.linux.vfs.quota import Quota
from pyvmm.linux.vfs.store import Clock, InodeStore
from pyvmm.linux.vfs.sysfs import SYSFS, make_sys

if TYPE_CHECKING:
    from pyvmm.image import Image
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.files.locks import Waits
    from pyvmm.linux.kernel import Kernel
    from pyvmm.linux.limits import Limits
    from pyvmm.linux.task import Task

_ROOT_INO = 1
_USER_ID = 1000
_MOUNTS = ((b"dev", DEVFS), (b"proc", PROCFS), (b"sys", SYSFS))


class Vfs:
    """All file systems of a sandbox.

    :param image: the read-only tree underneath; shared, never changed.
    :param clock: gives the time stamps.
    :param limits: how many bytes the writable layer may take of the host's memory, and how many inodes it may have
        (ENOSPC beyond).
    """

    #: Set by the kernel when it takes this tree: what ``/proc`` tells about.
    kernel: "Kernel"

    def __init__(self, image: "Image", clock: Clock, limits: "Limits") -> None:
        quota = Quota(limits.file_bytes, limits.inodes)
        self.clock = clock
        self.rootfs = FileSystem(0x1D, b"overlay", OVERLAYFS_SUPER_MAGIC, b"/", b"rw,relatime", quota=quota)
        self.shmfs = FileSystem(0x20, b"tmpfs", TMPFS_MAGIC, b"/dev/shm", b"rw,nosuid,nodev", quota=quota)
        self.memfs = FileSystem(0x01, b"tmpfs", TMPFS_MAGIC, quota=quota)
        self.store: InodeStore = InodeStore(
            image, quota, clock, {fs.dev: fs for fs in (self.rootfs, self.shmfs, self.memfs)}
        )
        self._stdio: dict[int, StdioInode] = {}
        self._restored_pipes: dict[int, PipeInode] = {}
        self._devices: dict[bytes, tuple[int, DeviceMaker]] = {}
        self.terminals = Terminals(quota, 0)
        #: Who waits for a lock of a byte range.
        self.lock_waits: Waits = {}
        self._next_anonymous = 16
        self._root: Inode | None = None
        self._boot_id: bytes | None = None

    def __repr__(self) -> str:
        return f"<Vfs {self.store!r}>"

    @property
    def root(self) -> Inode:
        """The root directory."""
        if self._root is None:
            self._root = self.store.inode(_ROOT_INO)
            self._mount(self._root)
        return self._root

    def _mount(self, root: Inode) -> None:
        assert isinstance(root, DirectoryInode)
        now = 0
        for name, fs in _MOUNTS:
            ino = root.entries.get(name)
            if ino is None:
                # An image without this mount point: it gets one.
                now = now or self.clock.realtime_ns()
                place = self.store.new(self.rootfs, S_IFDIR | 0o755, 0, 0, now)
                root.add(name, place, now)
                root.nlink += 1
                self.store.unload(place)
                ino = place.ino
            self.store.mounts[ino] = {DEVFS: self._make_dev, PROCFS: self._make_proc, SYSFS: self._make_sys}[fs]

    def _make_dev(self) -> Inode:
        now = self.clock.realtime_ns()
        root = make_dev(self.store.shm_root(self.shmfs), self.terminals, now)
        for number, (name, (rdev, make)) in enumerate(self._devices.items(), 100):
            root.add(name, DeviceInode(DEVFS, number, rdev, make, now))
        return root

    def _make_proc(self) -> Inode:
        return make_proc(self, self.clock.realtime_ns())

    def _make_sys(self) -> Inode:
        return make_sys(self.clock.realtime_ns())

    # --------------------------------------------------------------------------------------- for the memory manager

    def inode(self, ino: int) -> Inode:
        """The inode with number ``ino``, which an area or an open file keeps."""
        return self.store.inode(ino)

    def hold(self, ino: int, shared: bool = False) -> None:
        """A mapping needs inode ``ino``."""
        inode = self.store.inode(ino)
        inode.hold()
        if shared:
            assert isinstance(inode, RegularInode)
            inode.shared_maps += 1

    def drop(self, ino: int, shared: bool = False) -> list[int]:
        """A mapping needs inode ``ino`` no longer; the frames of its pages, if it was the last shared one."""
        inode = self.store.inode(ino)
        frames: list[int] = []
        if shared:
            assert isinstance(inode, RegularInode)
            inode.shared_maps -= 1
            if not inode.shared_maps:
                frames = inode.unshare_pages()
        inode.drop()
        return frames

    # ------------------------------------------------------------------------------------------------------- looking

    def find(self, path: bytes) -> Inode | None:
        """The inode at an absolute path, without following links, whatever the permissions; for the host's own use."""
        inode: Inode | None = self.root
        for name in path.split(b"/"):
            if name:
                inode = inode.lookup(name) if inode is not None and inode.is_directory else None
        return inode

    def find_followed(self, path: bytes) -> Inode | None:
        """As :meth:`find`, following links; for the host's own use."""
        todo = path.split(b"/")[::-1]
        inode, links = self.root, 0
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                inode = inode.parent or inode
                continue
            child = inode.lookup(name) if inode.is_directory else None
            if child is None:
                return None
            if isinstance(child, SymlinkInode):
                links += 1
                if links > MAXSYMLINKS:
                    return None
                inode = self.root if child.target.startswith(b"/") else inode
                todo += child.target.split(b"/")[::-1]
                continue
            inode = child
        return inode

    def is_stored(self, inode: Inode) -> bool:
        """Whether the inode has a number in the store (and can be found again by it)."""
        return isinstance(inode, StoredInode)

    def find_executable(self, task: "Task", path: bytes) -> Inode:
        """The program at ``path``, as execve(2) looks for it.

        :raises GuestError: what path resolution says; EACCES for what is no regular file, or may not be run.
        """
        inode = lookup(task, AT_FDCWD, path)
        if not inode.is_regular:
            raise GuestError(EACCES)
        inode.check(task.creds, MAY_EXEC)
        return inode

    # -------------------------------------------------------------------------------------------------------- making

    def add_device(self, name: bytes, rdev: int, make: DeviceMaker) -> None:
        """One more device in ``/dev``, before anything has looked there."""
        self._devices[name] = (rdev, make)

    def stdio(self, number: int) -> StdioInode:
        """What descriptors 0, 1 and 2 stand on."""
        inode = self._stdio.get(number)
        if inode is None:
            inode = self._stdio[number] = StdioInode(number, _USER_ID, _USER_ID, self.clock.realtime_ns())
        return inode

    def restored_pipe(self, ino: int) -> PipeInode:
        """What the ends of a pipe that came with a snapshot stand on."""
        inode = self._restored_pipes.get(ino)
        if inode is None:
            inode = self._restored_pipes[ino] = PipeInode(ino, _USER_ID, _USER_ID, self.clock.realtime_ns())
        return inode

    def mounted(self) -> tuple[FileSystem, ...]:
        """What is mounted, as ``/proc/self/mounts`` lists it."""
        return (self.rootfs, DEVFS, PROCFS, SYSFS, self.shmfs, DEVPTS)

    def boot_id(self, random: Callable[[int], bytes]) -> bytes:
        """Sixteen bytes that are this sandbox's own: drawn at the first use, and never saved."""
        if self._boot_id is None:
            self._boot_id = random(16)
        return self._boot_id

    def next_anonymous(self) -> int:
        """A number for an inode without a place."""
        self._next_anonymous += 1
        return self._next_anonymous

    def make_memfd(self, name: bytes, uid: int, gid: int, mode: int, seals: int) -> RegularInode:
        """What a memfd stands on."""
        inode = self.store.new(self.memfs, mode, uid, gid, self.clock.realtime_ns())
        assert isinstance(inode, RegularInode)
        inode.nlink = 0
        inode.name = b"/memfd:" + name + b" (deleted)"
        inode.seals = seals
        return inode

    def make_shared_memory(self, size: int) -> RegularInode:
        """What a shared anonymous mapping of ``size`` bytes stands on: a file that nobody can open."""
        inode = self.store.new(self.memfs, S_IFREG | 0o600, _USER_ID, _USER_ID, self.clock.realtime_ns())
        assert isinstance(inode, RegularInode)
        inode.nlink = 0
        inode.content.size = size
        inode.name = b"/dev/zero (deleted)"
        return inode

    def open_device(self, inode: Inode, flags: int) -> "OpenFile":
        """Open a device that was open in a snapshot."""
        if not isinstance(inode, DeviceInode):
            raise ValueError(f"not a device: {inode!r}")
        return inode.open_device(flags)

    def put_file(self, path: bytes, data: bytes, mode: int = 0o644, uid: int = _USER_ID, gid: int = _USER_ID) -> None:
        """Put a file of the host's into the tree, with the directories on its way.

        :raises ValueError: a path that is no plain absolute path, is too long, or is in the way of another.
        """
        put_file(self, path, data, mode, uid, gid)

    def close(self) -> None:
        """Forget all inodes: they refer to one another, and their contents are not to wait for the collector."""
        self.store.close()
        self.__dict__.pop("kernel", None)
        self._root = None
        self._stdio.clear()
        self._restored_pipes.clear()
        self.lock_waits.clear()

    # --------------------------------------------------------------------------------------------------------- state

    @property
    def bytes_used(self) -> int:
        """Host memory that contents and names take."""
        return self.store.quota.bytes_used

    def save(self) -> dict[str, Any]:
        """The writable layer as plain data."""
        return self.store.save() | {"next_anonymous": self._next_anonymous}

    @classmethod
    def restore(cls, image: "Image", state: dict[str, Any], clock: Clock, limits: "Limits") -> Self:
        """A tree as :meth:`save` told. ``state`` is shared by all forks, and must not be changed."""
        vfs = cls(image, clock, limits)
        vfs.store.restore(state)
        vfs._next_anonymous = state["next_anonymous"]
        return vfs
