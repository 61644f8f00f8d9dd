"""Connections between AF_UNIX sockets, streams and SOCK_SEQPACKET: listening, connecting, accepting, and their end."""

from errno import ECONNREFUSED, ECONNRESET, EINVAL, EISCONN
from typing import TYPE_CHECKING

from pyvmm.linux.abi.poll import POLLHUP, POLLOUT, POLLWRBAND, POLLWRNORM
from pyvmm.linux.abi.socket import RCV_SHUTDOWN, SHUTDOWN_MASK, SOMAXCONN
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.network import Network, current_creds
from pyvmm.linux.net.socket import ARRIVED, READABLE
from pyvmm.linux.net.unix import UnixSocket

if TYPE_CHECKING:
    from pyvmm.linux.task import Task


class UnixConnection(UnixSocket):
    """A listener, or one end of a connection."""

    def __init__(self, network: Network, domain: int, kind: int, protocol: int, uid: int) -> None:
        super().__init__(network, domain, kind, protocol, uid)
        self.unaccepted: dict[UnixConnection, None] = {}
        self.backlog = 0
        #: A listener's credentials are those that it had when it began to listen.
        self._listen_creds: tuple[int, int, int] | None = None

    @property
    def is_connected(self) -> bool:
        """TCP_ESTABLISHED: it stays so when the other end is gone."""
        return self.peer is not None

    def listen(self, task: "Task", backlog: int) -> None:
        """See :meth:`Socket.listen`."""
        if not self.name or self.is_connected:
            raise GuestError(EINVAL)
        self.backlog = min(backlog & 0xFFFF_FFFF, SOMAXCONN)
        self.is_listening = True
        self._listen_creds = self.peer_creds = current_creds(task)
        self.changed.wake()

    def accept(self, task: "Task", flags: int) -> "UnixConnection":
        """See :meth:`Socket.accept`."""
        if not self.is_listening:
            raise GuestError(EINVAL)
        if not self.unaccepted:
            if self.shut & RCV_SHUTDOWN:
                raise GuestError(EINVAL)
            self.wait_to_receive(task, flags)
        socket = next(iter(self.unaccepted))
        del self.unaccepted[socket]
        self.changed.wake()
        return socket

    def connect(self, task: "Task", address: bytes, flags: int) -> None:
        """See :meth:`Socket.connect` (``unix_stream_connect()``)."""
        self.autobind_for_credentials()
        other = self.find(task, address)
        if not isinstance(other, UnixConnection) or not other.is_listening or other.shut & RCV_SHUTDOWN:
            raise GuestError(ECONNREFUSED)
        if self.is_listening:
            raise GuestError(EINVAL)
        if self.is_connected:
            raise GuestError(EISCONN)
        if len(other.unaccepted) > other.backlog:
            self.wait_to_send(task, flags, on=other.changed)
        server = type(self)(self.network, self.domain, self.type, self.protocol, other.uid)
        server.options = other.options.copy()
        server.name = other.name
        server.peer, self.peer = self, server
        server.peer_creds, self.peer_creds = current_creds(task), other._listen_creds
        other.unaccepted[server] = None
        other.changed.wake(ARRIVED)
        self.changed.wake()

    def close(self) -> None:
        """See :meth:`Socket.close` (``unix_release_sock()``)."""
        peer = self.peer
        if peer is not None and not peer.is_closed:
            peer.shut = SHUTDOWN_MASK
            if self.queue:
                peer.error = ECONNRESET
            peer.changed.wake()
        unaccepted, self.unaccepted = self.unaccepted, {}
        for server in unaccepted:
            assert server.peer is not None
            server.peer.error = ECONNRESET
            server.close()
        super().close()

    def poll(self) -> int:
        """``unix_poll()``."""
        mask = super().poll()
        if self.is_listening:
            return mask | READABLE if self.unaccepted else mask
        if not self.is_connected:
            mask |= POLLHUP
        if self.in_flight * 4 <= self.send_capacity:
            mask |= POLLOUT | POLLWRNORM | POLLWRBAND
        return mask
