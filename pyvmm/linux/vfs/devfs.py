"""``/dev``: what a container has, and no more (null(4), random(4), full(4), tty(4))."""

from pyvmm.linux.abi.stat import TMPFS_MAGIC, makedev
from pyvmm.linux.files.devices import FullFile, NullFile, RandomFile, ZeroFile
from pyvmm.linux.vfs.devpts import ControllingInode, MultiplexerInode, Terminals
from pyvmm.linux.vfs.inode import FileSystem, Inode
from pyvmm.linux.vfs.pseudo import DeviceInode, LinkInode, PseudoDirectory

DEVFS = FileSystem(
    dev=0x1F, kind=b"tmpfs", magic=TMPFS_MAGIC, mountpoint=b"/dev", options=b"rw,nosuid,size=64k,mode=755"
)

_DEVICES = (
    (b"null", makedev(1, 3), NullFile),
    (b"zero", makedev(1, 5), ZeroFile),
    (b"full", makedev(1, 7), FullFile),
    (b"random", makedev(1, 8), RandomFile),
    (b"urandom", makedev(1, 9), RandomFile),
)
_LINKS = (
    (b"fd", b"/proc/self/fd"),
    (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"),
    (b"stderr", b"/proc/self/fd/2"),
)


def make_dev(shm: Inode, terminals: Terminals, now: int) -> PseudoDirectory:
    """The root of ``/dev``; ``shm`` and ``terminals`` are what is mounted at ``/dev/shm`` and ``/dev/pts``."""
    root = PseudoDirectory(DEVFS, 1, 0o755, now)
    for number, (name, rdev, kind) in enumerate(_DEVICES, 2):
        root.add(name, DeviceInode(DEVFS, number, rdev, kind, now))
    for number, (name, target) in enumerate(_LINKS, 2 + len(_DEVICES)):
        root.add(name, LinkInode(DEVFS, number, target, now))
    root.add(b"shm", shm)
    root.add(b"pts", terminals)
    root.add(b"tty", ControllingInode(DEVFS, 20, now))
    root.add(b"ptmx", MultiplexerInode(DEVFS, 21, terminals, now))
    return root
