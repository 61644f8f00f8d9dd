"""What AF_UNIX sockets have in common (unix(7)): names, paths, credentials."""

from errno import EADDRINUSE, ECONNREFUSED, EEXIST, EINVAL, ENOTCONN, EOPNOTSUPP, EPROTOTYPE
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import AT_FDCWD
from pyvmm.linux.abi.socket import RCV_SHUTDOWN, SEND_SHUTDOWN
from pyvmm.linux.abi.stat import S_IFMT, S_IFSOCK
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.addresses import unix_address, unix_name
from pyvmm.linux.net.network import Network, current_creds
from pyvmm.linux.net.socket import Outgoing, Socket
from pyvmm.linux.vfs.changes import place_for
from pyvmm.linux.vfs.inode import MAY_WRITE
from pyvmm.linux.vfs.namei import lookup

if TYPE_CHECKING:
    from pyvmm.linux.task import Task


class UnixSocket(Socket):
    """A socket that has a name in the file system, an abstract one, or none."""

    unknown_level = EOPNOTSUPP

    def __init__(self, network: Network, domain: int, kind: int, protocol: int, uid: int) -> None:
        super().__init__(network, domain, kind, protocol, uid)
        self.name = b""
        #: Where it is found: device and number of its inode, or its abstract name.
        self._inode: tuple[int, int] | None = None
        self.peer: UnixSocket | None = None

    # ---------------------------------------------------------------------------------------------------------- names

    def bind(self, task: "Task", address: bytes) -> None:
        """See :meth:`Socket.bind`."""
        name = unix_name(address)
        if len(address) == 2:
            self.autobind()
            return
        if self.name:
            raise GuestError(EINVAL)
        if name[:1] == b"\0":
            self.network.bind_abstract(name, self)
        else:
            self._bind_path(task, name)
        self.name = name

    def _bind_path(self, task: "Task", path: bytes) -> None:
        """``unix_bind_bsd()``: make an inode that leads here."""
        try:
            last = place_for(task, AT_FDCWD, path)
            mode = S_IFSOCK | 0o777 & ~task.fs.umask
            inode = last.directory.create(last.name, mode, task.creds, task.kernel.clock.realtime_ns())
        except GuestError as error:
            raise GuestError(EADDRINUSE if error.errno == EEXIST else error.errno) from None
        self._inode = (inode.fs.dev, inode.ino)
        self.network.by_inode[self._inode] = self

    def autobind(self) -> None:
        """Have an abstract name, if there is none."""
        if not self.name:
            self.name = self.network.autobind(self)

    def autobind_for_credentials(self) -> None:
        """Who is told credentials shall be able to answer."""
        if self.options.pass_credentials:
            self.autobind()

    def find(self, task: "Task", address: bytes) -> "UnixSocket":
        """The socket that ``address`` names (``unix_find_other()``): ECONNREFUSED, EACCES, EPROTOTYPE, ENOENT."""
        name = unix_name(address)
        other: Socket | None
        if not name:
            raise GuestError(EINVAL if len(address) <= 2 else ECONNREFUSED)
        if name[:1] == b"\0":
            other = self.network.abstract.get(name)
        else:
            inode = lookup(task, AT_FDCWD, name)
            inode.check(task.creds, MAY_WRITE)
            if inode.mode & S_IFMT != S_IFSOCK:
                raise GuestError(ECONNREFUSED)
            other = self.network.by_inode.get((inode.fs.dev, inode.ino))
        if not isinstance(other, UnixSocket):
            raise GuestError(ECONNREFUSED)
        if other.type != self.type:
            raise GuestError(EPROTOTYPE)
        return other

    def local_name(self) -> bytes:
        """See :meth:`Socket.local_name`."""
        return unix_address(self.name)

    def peer_name(self) -> bytes:
        """See :meth:`Socket.peer_name`."""
        if self.peer is None:
            raise GuestError(ENOTCONN)
        return unix_address(self.peer.name)

    # --------------------------------------------------------------------------------------------- pairs and their end

    def pair_with(self, other: "UnixSocket", task: "Task") -> None:
        """socketpair(2)."""
        self.peer, other.peer = other, self
        self.peer_creds = other.peer_creds = current_creds(task)

    def shutdown(self, how: int) -> None:
        """See :meth:`Socket.shutdown`; of a connection, the other end gets the counterpart."""
        mode = how + 1
        self.shut |= mode
        peer = self.peer
        if self.has_connection and peer is not None:
            peer.shut |= (SEND_SHUTDOWN if mode & RCV_SHUTDOWN else 0) | (RCV_SHUTDOWN if mode & SEND_SHUTDOWN else 0)
            peer.changed.wake()
        self.changed.wake()

    #: Its peer is the other end of a connection, not just where datagrams go.
    has_connection = True

    def creds_for(self, task: "Task", outgoing: Outgoing) -> tuple[int, int, int]:
        """SCM_CREDENTIALS of what is sent: as the sender says, or who it is."""
        return outgoing.creds or current_creds(task)

    def close(self) -> None:
        """See :meth:`Socket.close`. The name in the file system stays, and leads nowhere."""
        if self._inode is not None:
            self.network.by_inode.pop(self._inode, None)
        elif self.name and self.network.abstract.get(self.name) is self:
            del self.network.abstract[self.name]
        super().close()
