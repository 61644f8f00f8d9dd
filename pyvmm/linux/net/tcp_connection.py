"""Connections of TCP: listening, connecting, accepting, and their end (tcp(7)).

There is no wire, so nothing is lost, delayed or sent twice: a segment is in the other end's queue as soon as it is
sent, and a connection is there as soon as its listener has room for it. What remains of the protocol is what programs
see: states, half-closed connections, resets, ports that stay taken for a while.
"""

from errno import EADDRINUSE, EALREADY, ECONNREFUSED, ECONNRESET, EINVAL, EISCONN, ENOTCONN, EPIPE, ETIMEDOUT
from typing import TYPE_CHECKING

from pyvmm.linux.abi import socket as abi
from pyvmm.linux.abi.socket import (
    MSG_DONTWAIT,
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SHUTDOWN_MASK,
    SOMAXCONN,
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TCP_FIN_WAIT2,
    TCP_LISTEN,
    TCP_SYN_SENT,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.addresses import Endpoint, family_of
from pyvmm.linux.net.inet import InetSocket
from pyvmm.linux.net.network import Network
from pyvmm.linux.net.ports import PortTable, TimeWait, accepts
from pyvmm.linux.net.socket import ARRIVED

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: ``net.ipv4.tcp_wmem[1]`` and ``tcp_rmem[1]``, and how far Linux lets the send buffer of a loopback connection grow.
_SEND_BUFFER, _RECEIVE_BUFFER, _GROWN_BUFFER = 16_384, 131_072, 2_626_560
#: A connection is given up after ``net.ipv4.tcp_syn_retries`` (6) retransmissions.
_CONNECT_TIMEOUT_NS = 127_000_000_000


class TcpConnection(InetSocket):
    """A listener, or one end of a connection."""

    def __init__(self, network: Network, domain: int, kind: int, protocol: int, uid: int) -> None:
        super().__init__(network, domain, kind, protocol, uid)
        self.options.send_buffer, self.options.receive_buffer = _SEND_BUFFER, _RECEIVE_BUFFER
        self.state = TCP_CLOSE
        self.peer: TcpConnection | None = None
        #: The other end has said that nothing more will come (SOCK_DONE).
        self.fin_received = False
        #: connect has been called, and has not told its result (SS_CONNECTING).
        self.is_connecting = False
        #: Of a listener: connections that nobody has accepted, clients that wait for room, and how much there is.
        self.unaccepted: dict[TcpConnection, None] = {}
        self.clients: dict[TcpConnection, None] = {}
        self.backlog = 0
        #: Of a client: the listener that has no room yet.
        self.listener: TcpConnection | None = None
        #: It was closed first, and its port is not free yet.
        self.waiting: TimeWait | None = None

    @property
    def ports(self) -> PortTable:
        """See :attr:`InetSocket.ports`."""
        return self.network.tcp

    @property
    def may_bind(self) -> bool:
        """See :attr:`InetSocket.may_bind`."""
        return self.state == TCP_CLOSE

    # ------------------------------------------------------------------------------------------------------- listening

    def listen(self, task: "Task", backlog: int) -> None:
        """See :meth:`Socket.listen`."""
        if self.state not in (TCP_CLOSE, TCP_LISTEN) or self.is_connecting:
            raise GuestError(EINVAL)
        self.backlog = min(backlog & 0xFFFF_FFFF, SOMAXCONN)
        if self.state == TCP_CLOSE:
            local = self.bind_source()
            self.is_listening = True
            if self.ports.conflicts(self, local):
                self.is_listening = False
                raise GuestError(EADDRINUSE)
            self.ports.start_listening(self, local.port)
            self.state, self.shut, self.fin_received = TCP_LISTEN, 0, False
        self._admit()

    def accept(self, task: "Task", flags: int) -> "TcpConnection":
        """See :meth:`Socket.accept`."""
        if self.state != TCP_LISTEN:
            raise GuestError(EINVAL)
        if not self.unaccepted:
            self.wait_to_receive(task, flags)
        socket = next(iter(self.unaccepted))
        del self.unaccepted[socket]
        socket.listener = None
        self._admit()
        return socket

    def _admit(self) -> None:
        """Establish the connections of clients that wait, as far as there is room."""
        while self.clients and len(self.unaccepted) <= self.backlog:
            client = next(iter(self.clients))
            del self.clients[client]
            client.listener = None
            try:
                self._establish(client)
            except GuestError:
                client.reset(ECONNREFUSED)

    def _establish(self, client: "TcpConnection") -> None:
        """The handshake: both ends are connected, though nobody has accepted yet."""
        assert client.local is not None and client.remote is not None
        server = type(self)(self.network, self.domain, self.type, self.protocol, self.uid)
        server.options = self.options.copy()
        server.ip_options = dict(self.ip_options)
        server.local, server.remote = client.remote, client.local
        self.ports.add(server, client.remote.port)
        server.peer, client.peer = client, server
        server.listener = self
        self.unaccepted[server] = None
        for end in (server, client):
            end.state, end.shut = TCP_ESTABLISHED, 0
            if not end.options.send_buffer_set:
                end.options.send_buffer = _GROWN_BUFFER
        client.changed.wake()
        self.changed.wake(ARRIVED)

    def _stop_listening(self) -> None:
        assert self.local is not None
        self.ports.stop_listening(self, self.local.port)
        self.is_listening = False
        self.state = TCP_CLOSE
        clients, self.clients = self.clients, {}
        for client in clients:
            client.listener = None
            client.reset(ECONNREFUSED)
        unaccepted, self.unaccepted = self.unaccepted, {}
        for server in unaccepted:
            server.abort()

    # ------------------------------------------------------------------------------------------------------ connecting

    def connect(self, task: "Task", address: bytes, flags: int) -> None:
        """See :meth:`Socket.connect` (``__inet_stream_connect()``)."""
        if len(address) >= 2 and family_of(address) == abi.AF_UNSPEC:
            return self._disconnect()
        if self.is_connecting:
            return self._connecting(task, flags)
        if self.state != TCP_CLOSE:
            raise GuestError(EISCONN)
        if self.peer is not None:
            raise GuestError(EISCONN)
        target = self.route(address)
        self.bind_source()
        self.local, self.remote = self.source_for(target), target
        self.error, self.shut, self.fin_received = 0, 0, False
        self.state, self.is_connecting = TCP_SYN_SENT, True
        listener = self._listener_at(target)
        if listener is None:
            self.reset(ECONNREFUSED)
        elif len(listener.unaccepted) <= listener.backlog:
            try:
                listener._establish(self)
            except GuestError:
                self.state, self.is_connecting = TCP_CLOSE, False
                self._forget_remote()
                raise
        else:
            listener.clients[self] = None
            self.listener = listener
        if flags & MSG_DONTWAIT:
            # The answer to a SYN is looked at when the call is over, even if it has come.
            self.wait_to_connect(task, flags)
        return self._connecting(task, flags)

    def _connecting(self, task: "Task", flags: int) -> None:
        if self.state == TCP_SYN_SENT:
            if flags & MSG_DONTWAIT:
                raise GuestError(EALREADY)
            if self.options.send_timeout is None:
                until = task.deadline_after(_CONNECT_TIMEOUT_NS)
                if task.kernel.clock.monotonic_ns() >= until:
                    self.reset(ETIMEDOUT)
                else:
                    task.wait(self.changed, until=until)
            else:
                self.wait_to_connect(task, flags)
        self.is_connecting = False
        if self.state == TCP_CLOSE:
            error = self.take_error() or ECONNREFUSED
            self.shut = 0
            self._forget_remote()
            raise GuestError(error)

    def _listener_at(self, target: Endpoint) -> "TcpConnection | None":
        """Who answers a SYN to ``target``: the listener whose address says most about it."""
        found: list[tuple[int, TcpConnection]] = []
        for socket in self.ports.listeners(target.port):
            if isinstance(socket, TcpConnection) and accepts(socket, target):
                assert socket.local is not None
                found.append((2 * (not socket.local.is_any) + (len(socket.local.ip) == len(target.ip)), socket))
        if not found:
            return None
        best = max(score for score, _ in found)
        equals = [socket for score, socket in found if score == best]
        return equals[self.network.random_number(len(equals)) if len(equals) > 1 else 0]

    def _forget_remote(self) -> None:
        """After a connection that failed: the port stays only with who has chosen it."""
        self.remote = None
        if self.local is not None and not self.is_bound:
            self.release_port()

    def _disconnect(self) -> None:
        """``tcp_disconnect()``."""
        error = 0
        if self.state == TCP_LISTEN:
            self._stop_listening()
        elif self.state != TCP_CLOSE:
            self._leave(True)
            error = ECONNRESET
        self.queue.clear()
        self.state, self.peer, self.is_connecting = TCP_CLOSE, None, False
        self.error, self.shut, self.fin_received = error, 0, False
        self._forget_remote()
        self.changed.wake()

    def peer_name(self) -> bytes:
        """See :meth:`Socket.peer_name`."""
        if self.state in (TCP_CLOSE, TCP_SYN_SENT, TCP_LISTEN):
            raise GuestError(ENOTCONN)
        return super().peer_name()

    def accepted_name(self) -> bytes:
        """See :meth:`Socket.accepted_name`: who connected, even if it is gone already."""
        return super().peer_name()

    # ------------------------------------------------------------------------------------------------------- the end

    def shutdown(self, how: int) -> None:
        """See :meth:`Socket.shutdown` (``inet_shutdown()``)."""
        mode = how + 1
        if self.state == TCP_CLOSE:
            self.shut |= mode
            self.changed.wake()
            raise GuestError(ENOTCONN)
        if self.state == TCP_LISTEN:
            if mode & RCV_SHUTDOWN:
                self._stop_listening()
        elif self.state == TCP_SYN_SENT:
            self._disconnect()
        else:
            self.shut |= mode
            if mode & SEND_SHUTDOWN:
                self._send_fin()
        self.changed.wake()

    def _send_fin(self) -> None:
        peer = self.peer
        self.shut |= SEND_SHUTDOWN
        if self.state == TCP_ESTABLISHED:
            self.state = TCP_FIN_WAIT2
        elif self.state == TCP_CLOSE_WAIT:
            self.state = TCP_CLOSE
        if peer is None or peer.fin_received:
            return
        if peer.state == TCP_FIN_WAIT2 or peer.waiting is not None:
            peer.wait()
        if not peer.is_closed:
            peer.fin_received = True
            peer.shut |= RCV_SHUTDOWN
            peer.state = TCP_CLOSE_WAIT if peer.state == TCP_ESTABLISHED else TCP_CLOSE
            peer.changed.wake()

    def reset(self, error: int = 0) -> None:
        """``tcp_reset()``: the other end will not have any more of this."""
        if not error:
            error = EPIPE if self.state == TCP_CLOSE_WAIT else ECONNRESET
        self.error = error
        self.state, self.shut = TCP_CLOSE, SHUTDOWN_MASK
        self.changed.wake()

    def abort(self) -> None:
        """Close a connection that nobody has accepted."""
        self._leave(True)
        super().close()

    def _leave(self, abruptly: bool) -> None:
        """Tell the other end that this one is gone, by FIN or RST."""
        if self.listener is not None:
            self.listener.clients.pop(self, None)
            self.listener = None
        peer = self.peer
        if abruptly:
            if peer is not None and peer.state != TCP_CLOSE:
                peer.reset()
            elif peer is not None:
                peer.stop_waiting()
            return
        if not self.shut & SEND_SHUTDOWN:
            self._send_fin()
        if self.state == TCP_FIN_WAIT2:
            self.wait()

    def wait(self) -> None:
        """``tcp_time_wait()``: it was the first to say that it has nothing more to send, and keeps its port."""
        end = self.waiting or self
        self.stop_waiting()
        self.waiting = self.ports.wait(end)

    def stop_waiting(self) -> None:
        """What has come for the closed end makes it give up its port."""
        if self.waiting is not None:
            self.ports.stop_waiting(self.waiting)
            self.waiting = None

    def close(self) -> None:
        """See :meth:`Socket.close`: data that nobody has read, or SO_LINGER with no time, make it a reset."""
        if self.state == TCP_LISTEN:
            self._stop_listening()
        elif self.state != TCP_CLOSE:
            self._leave(bool(self.queue.size) or self.options.linger == (1, 0))
        self.state = TCP_CLOSE
        super().close()
