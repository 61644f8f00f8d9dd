"""TCP on the loopback interface (tcp(7)): what goes through a connection."""

from errno import EAGAIN, EINVAL, ENOTCONN, EPIPE
from typing import TYPE_CHECKING

from pyvmm.linux.abi import socket as abi
from pyvmm.linux.abi.poll import POLLERR, POLLHUP, POLLOUT, POLLPRI, POLLRDHUP, POLLWRNORM
from pyvmm.linux.abi.socket import (
    MSG_ERRQUEUE,
    MSG_OOB,
    MSG_PEEK,
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SHUTDOWN_MASK,
    SOL_TCP,
    TCP_CLOSE,
    TCP_LISTEN,
    TCP_SYN_SENT,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.network import Network
from pyvmm.linux.net.queues import MESSAGE_COST, Message
from pyvmm.linux.net.socket import ARRIVED, READABLE, Outgoing, Received
from pyvmm.linux.net.stream import StreamSocket
from pyvmm.linux.net.tcp_connection import TcpConnection
from pyvmm.linux.net.tcp_options import get_tcp_option, set_tcp_option

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_WRITABLE = POLLOUT | POLLWRNORM
#: The longest segment (the MTU of the loopback interface, less the headers).
_SEGMENT_MAX = 65_483


class TcpSocket(StreamSocket, TcpConnection):
    """A listener, or one end of a byte stream."""

    peer: "TcpSocket | None"

    def __init__(self, network: Network, domain: int, kind: int, protocol: int, uid: int) -> None:
        super().__init__(network, domain, kind, protocol, uid)
        #: The byte that came out of band and nobody has read, and how much of the queue is before its place.
        self.urgent = b""
        self.mark: int | None = None

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
            peer.stop_waiting()
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
        peer.send_sigurg()
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
