"""TCP on the loopback interface (tcp(7)).

There is no wire, so nothing is lost, delayed or sent twice: a segment is in the other end's queue as soon as it is
sent, and a connection is there as soon as its listener has room for it. What remains of the protocol is what programs
see: states, half-closed connections, resets.
"""

from errno import (
    EADDRINUSE,
    EAGAIN,
    EALREADY,
    ECONNREFUSED,
    ECONNRESET,
    EINVAL,
    EISCONN,
    ENOTCONN,
    EPIPE,
    ETIMEDOUT,
)
from typing import TYPE_CHECKING

from pyvmm.linux.abi import socket as abi
from pyvmm.linux.abi.poll import POLLERR, POLLHUP, POLLOUT, POLLPRI, POLLRDHUP, POLLWRNORM
from pyvmm.linux.abi.socket import (
    MSG_DONTWAIT,
    MSG_ERRQUEUE,
    MSG_OOB,
    MSG_PEEK,
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SHUTDOWN_MASK,
    SOL_TCP,
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
from pyvmm.linux.net.ports import PortTable, accepts
from pyvmm.linux.net.queues import MESSAGE_COST, Message
from pyvmm.linux.net.socket import ARRIVED, READABLE, Outgoing, Received
from pyvmm.linux.net.stream import StreamSocket
from pyvmm.linux.net.tcp_options import get_tcp_option, set_tcp_option

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_WRITABLE = POLLOUT | POLLWRNORM
#: ``net.ipv4.tcp_wmem[1]`` and ``tcp_rmem[1]``, and how far Linux lets the send buffer of a loopback connection grow.
_SEND_BUFFER, _RECEIVE_BUFFER, _GROWN_BUFFER = 16_384, 131_072, 2_626_560
#: The longest segment (the MTU of the loopback interface, less the headers).
_SEGMENT_MAX = 65_483
#: A connection is given up after ``net.ipv4.tcp_syn_retries`` (6) retransmissions.
_CONNECT_TIMEOUT_NS = 127_000_000_000


class TcpSocket(StreamSocket, InetSocket):
    """A listener, or one end of a connection."""

    def __init__(self, network: Network, domain: int, kind: int, protocol: int, uid: int) -> None:
        super().__init__(network, domain, kind, protocol, uid)
        self.options.send_buffer, self.options.receive_buffer = _SEND_BUFFER, _RECEIVE_BUFFER
        self.state = TCP_CLOSE
        self.peer: TcpSocket | None = None
        #: The other end has said that nothing more will come (SOCK_DONE).
        self.fin_received = False
        #: connect has been called, and has not told its result (SS_CONNECTING).
        self.is_connecting = False
        #: Of a listener: connections that nobody has accepted, clients that wait for room, and how much there is.
        self.unaccepted: dict[TcpSocket, None] = {}
        self.clients: dict[TcpSocket, None] = {}
        self.backlog = 0
        #: Of a client: the listener that has no room yet.
        self.listener: TcpSocket | None = None
        #: The byte that came out of band and nobody has read, and how much of the queue is before its place.
        self.urgent = b""
        self.mark: int | None = None

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

    def accept(self, task: "Task", flags: int) -> "TcpSocket":
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

    def _establish(self, client: "TcpSocket") -> None:
        """The handshake: both ends are connected, though nobody has accepted yet."""
        assert client.local is not None and client.remote is not None
        server = TcpSocket(self.network, self.domain, self.type, self.protocol, self.uid)
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

    def _listener_at(self, target: Endpoint) -> "TcpSocket | None":
        """Who answers a SYN to ``target``: the listener whose address says most about it."""
        found: list[tuple[int, TcpSocket]] = []
        for socket in self.ports.listeners(target.port):
            if isinstance(socket, TcpSocket) and accepts(socket, target):
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
        if peer is not None and not peer.fin_received and not peer.is_closed:
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
        elif not self.shut & SEND_SHUTDOWN:
            self._send_fin()

    def close(self) -> None:
        """See :meth:`Socket.close`: data that nobody has read, or SO_LINGER with no time, make it a reset."""
        if self.state == TCP_LISTEN:
            self._stop_listening()
        elif self.state != TCP_CLOSE:
            self._leave(bool(self.queue.size) or self.options.linger == (1, 0))
        self.state = TCP_CLOSE
        super().close()

    # ---------------------------------------------------------------------------------------------- sending, receiving

    @property
    def send_capacity(self) -> int:
        """See :attr:`Socket.send_capacity`: what both ends' buffers hold.

        A segment is at most half of what a receiver offers, which is half of its buffer; in the sender's buffer stand
        as many as begin within it, each with what the kernel keeps of it.
        """
        peer = self.peer
        if peer is None or not self.options.send_buffer_set:
            return self.options.send_buffer
        received = peer.options.receive_buffer
        segment = min(received >> 2, _SEGMENT_MAX)
        return received + segment * -(-self.options.send_buffer // (segment + MESSAGE_COST)) + MESSAGE_COST

    def check_sendable(self, task: "Task", outgoing: Outgoing) -> None:
        """See :meth:`StreamSocket.check_sendable` (``tcp_sendmsg_locked()``)."""
        if self.state == TCP_SYN_SENT:
            self.wait_to_send(task, outgoing.flags)
        if self.state in (TCP_CLOSE, TCP_LISTEN) or self.error or self.shut & SEND_SHUTDOWN:
            raise GuestError(self.take_error() or EPIPE)

    def put(self, data: bytes, outgoing: Outgoing, is_first: bool) -> int:
        """See :meth:`StreamSocket.put`."""
        peer = self.peer
        assert peer is not None
        room = self.send_capacity - self.in_flight
        if room <= 0 or self.state == TCP_CLOSE:
            return 0
        if peer.is_closed:
            # What the buffer holds is accepted, and answered by a reset.
            self.reset()
            return min(len(data), room)
        if outgoing.flags & MSG_OOB:
            return self._put_urgent(peer, data, room, outgoing)
        piece = data[:room]
        if not peer.queue.append(piece):
            peer.queue.push(Message(piece), self)
        peer.changed.wake(ARRIVED)
        return len(piece)

    def _put_urgent(self, peer: "TcpSocket", data: bytes, room: int, outgoing: Outgoing) -> int:
        """The last byte of ``data`` is urgent, and goes beside the others unless SO_OOBINLINE is set."""
        if len(data) > 1:
            return self.put(data[:-1], Outgoing(outgoing.flags & ~MSG_OOB), False)
        peer.mark = peer.queue.size
        if peer.options.others.get(abi.SO_OOBINLINE):
            peer.urgent = b""
            peer.queue.push(Message(data), self)
        else:
            peer.urgent = data
        peer.changed.wake(ARRIVED)
        return 1

    def receive(self, task: "Task", count: int, flags: int) -> Received:
        """See :meth:`Socket.receive`: a read ends before the place of an urgent byte."""
        if flags & MSG_OOB:
            return self._receive_urgent(flags)
        mark = self.mark
        if mark is None:
            return super().receive(task, count, flags)
        received = super().receive(task, min(count, mark) if mark else count, flags)
        if received.data and not flags & MSG_PEEK:
            received.is_end = len(received.data) == mark
            self.mark = mark - len(received.data) if mark else None
            if not mark:
                self.urgent = b""
        return received

    def _receive_urgent(self, flags: int) -> Received:
        """``tcp_recv_urg()``."""
        if self.options.others.get(abi.SO_OOBINLINE) or not self.urgent:
            raise GuestError(ENOTCONN if self.state == TCP_CLOSE and not self.fin_received else EINVAL)
        data = self.urgent
        if not flags & MSG_PEEK:
            self.urgent = b""
        return Received(data, MSG_OOB, 1)

    def is_at_mark(self) -> bool:
        """See :meth:`Socket.is_at_mark`."""
        return self.mark == 0

    def check_receivable(self, flags: int) -> None:
        """See :meth:`StreamSocket.check_receivable`."""
        if flags & MSG_ERRQUEUE:
            raise GuestError(EAGAIN)
        if self.state == TCP_LISTEN:
            raise GuestError(ENOTCONN)

    def check_connected(self) -> None:
        """See :meth:`StreamSocket.check_connected`."""
        if self.state == TCP_CLOSE:
            raise GuestError(ENOTCONN)

    def poll(self) -> int:
        """``tcp_poll()``."""
        if self.state == TCP_LISTEN:
            return READABLE if self.unaccepted else 0
        mask = POLLERR if self.error else 0
        if self.shut == SHUTDOWN_MASK or self.state == TCP_CLOSE:
            mask |= POLLHUP
        if self.shut & RCV_SHUTDOWN:
            mask |= READABLE | POLLRDHUP
        if self.state == TCP_SYN_SENT:
            return mask
        if self.queue.size:
            mask |= READABLE
        if self.urgent or (self.mark is not None and self.options.others.get(abi.SO_OOBINLINE)):
            mask |= POLLPRI
        capacity = self.send_capacity
        if self.shut & SEND_SHUTDOWN or (capacity - self.in_flight) * 3 >= capacity:
            mask |= _WRITABLE
        return mask

    def unread_bytes(self) -> int:
        """See :meth:`Socket.unread_bytes`."""
        if self.state == TCP_LISTEN:
            raise GuestError(EINVAL)
        return self.queue.size

    def unsent_bytes(self) -> int:
        """See :meth:`Socket.unsent_bytes`: what is sent has arrived."""
        if self.state == TCP_LISTEN:
            raise GuestError(EINVAL)
        return 0

    # --------------------------------------------------------------------------------------------------------- options

    def set_option(self, task: "Task", level: int, option: int, data: bytes) -> None:
        """See :meth:`Socket.set_option`."""
        if level != SOL_TCP:
            super().set_option(task, level, option, data)
        else:
            set_tcp_option(self.ip_options, option, data)

    def get_option(self, task: "Task", level: int, option: int) -> bytes:
        """See :meth:`Socket.get_option`."""
        if level != SOL_TCP:
            return super().get_option(task, level, option)
        return get_tcp_option(self.ip_options, option, self.state)
