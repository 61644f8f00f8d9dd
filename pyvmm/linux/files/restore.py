"""Making the open files of a snapshot again.

The inodes that were held when the snapshot was taken count those holders already; so what is opened here gives its own
back.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.files.control import restore_control
from pyvmm.linux.files.directory import DirectoryFile
from pyvmm.linux.files.epoll import EpollFile
from pyvmm.linux.files.eventfd import EventFile
from pyvmm.linux.files.path import PathFile
from pyvmm.linux.files.pipe import Pipe, PipeFile
from pyvmm.linux.files.regular import RegularFile
from pyvmm.linux.files.signalfd import SignalFile
from pyvmm.linux.files.stdio import StandardError, StandardInput, StandardOutput
from pyvmm.linux.files.timerfd import TimerFile

if TYPE_CHECKING:
    from pyvmm.linux.vfs import Vfs
    from pyvmm.linux.vfs.inode import Inode

State = dict[str, Any]


def restore_file(vfs: "Vfs", state: State) -> OpenFile:
    """The open file that ``OpenFile.save`` described."""
    file = _KINDS[state["kind"]](vfs, state)
    file.position = state["position"]
    file.owner = state["owner"]
    return file


def _stored(vfs: "Vfs", state: State) -> "Inode":
    """The inode by its number; found by its path if it still has that one, so that it knows its name."""
    inode = vfs.find(state["path"])
    if inode is None or inode.ino != state["ino"] or not vfs.is_stored(inode):
        inode = vfs.inode(state["ino"])
    inode.holds -= 1
    return inode


def _named(vfs: "Vfs", state: State) -> "Inode":
    inode = vfs.find(state["path"])
    if inode is None:
        raise ValueError(f"{state['path']!r} was open in the snapshot and is not there")
    return inode


def _directory(vfs: "Vfs", state: State) -> OpenFile:
    """A directory of the store or of a pseudo file system."""
    inode = vfs.find(state["path"])
    return DirectoryFile(inode if inode and not vfs.is_stored(inode) else _stored(vfs, state), state["flags"])


def _path(vfs: "Vfs", state: State) -> OpenFile:
    inode = vfs.find(state["path"])
    return PathFile(inode if inode and not vfs.is_stored(inode) else _stored(vfs, state), state["flags"])


def _device(vfs: "Vfs", state: State) -> OpenFile:
    return vfs.open_device(_named(vfs, state), state["flags"])


def _stdin(vfs: "Vfs", state: State) -> OpenFile:
    inode = vfs.stdio(0)
    inode.consumed = state.get("consumed", 0)
    return StandardInput(inode, state["flags"])


def _pipe(vfs: "Vfs", state: State) -> OpenFile:
    """An end of a pipe, or of a FIFO: whichever end is opened first makes the pipe again."""
    from pyvmm.linux.vfs.anonymous import PipeInode
    from pyvmm.linux.vfs.nodes import SpecialInode

    inode = vfs.restored_pipe(state["ino"]) if state["path"].startswith(b"pipe:[") else _stored(vfs, state)
    assert isinstance(inode, PipeInode | SpecialInode)
    if inode.pipe is None:
        inode.pipe = Pipe.restore(state["pipe"], vfs.store.quota)
    pipe = inode.pipe
    file = PipeFile(inode, state["flags"], pipe)
    pipe.readers -= file.readable
    pipe.writers -= file.writable
    return file


def _anonymous(vfs: "Vfs", name: bytes) -> "Inode":
    from pyvmm.linux.vfs.anonymous import EventInode

    return EventInode(vfs.next_anonymous(), name, vfs.clock.realtime_ns())


def _eventfd(vfs: "Vfs", state: State) -> OpenFile:
    file = EventFile(_anonymous(vfs, b"[eventfd]"), state["flags"], state["counter"])
    file.semaphore = state["semaphore"]
    return file


def _timerfd(vfs: "Vfs", state: State) -> OpenFile:
    file = TimerFile(_anonymous(vfs, b"[timerfd]"), state["flags"], vfs.kernel, state["is_real"])
    file.restore(state)
    return file


#: What a saved state calls a file -> what makes it again.
_KINDS: dict[str, Callable[["Vfs", State], OpenFile]] = {
    "stdin": _stdin,
    "stdout": lambda vfs, state: StandardOutput(vfs.stdio(1), state["flags"]),
    "stderr": lambda vfs, state: StandardError(vfs.stdio(2), state["flags"]),
    "regular": lambda vfs, state: RegularFile(_stored(vfs, state), state["flags"]),
    "directory": _directory,
    "path": _path,
    "device": _device,
    "control": restore_control,
    "pipe": _pipe,
    "eventfd": _eventfd,
    "timerfd": _timerfd,
    "signalfd": lambda vfs, state: SignalFile(
        _anonymous(vfs, b"[signalfd]"), state["flags"], vfs.kernel, state["mask"]
    ),
    "epoll": lambda vfs, state: EpollFile(_anonymous(vfs, b"[eventpoll]"), vfs.store.quota),
}
