"""AF_UNIX datagrams, and SOCK_SEQPACKET, which are datagrams over a connection."""

from errno import EAGAIN, ECONNREFUSED, EMSGSIZE, ENOTCONN, EOPNOTSUPP, EPERM, EPIPE
from typing import TYPE_CHECKING

from pyvmm.linux.abi import socket as abi
from pyvmm.linux.abi.poll import POLLOUT, POLLWRBAND, POLLWRNORM
from pyvmm.linux.abi.socket import MSG_DONTWAIT, MSG_OOB, MSG_PEEK, RCV_SHUTDOWN, SEND_SHUTDOWN
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.addresses import family_of, unix_address
from pyvmm.linux.net.queues import Message
from pyvmm.linux.net.socket import ARRIVED, Outgoing, Received
from pyvmm.linux.net.unix import UnixSocket
from pyvmm.linux.net.unix_connection import UnixConnection

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: ``net.unix.max_dgram_qlen``: a receiver with more than so many messages has no room.
MAX_QUEUE = 10
_WRITABLE = POLLOUT | POLLWRNORM | POLLWRBAND
#: Longer ones would not pass in one step of a transfer.
_MESSAGE_MAX = (1 << 18) - 1


class _Datagrams(UnixSocket):
    """How messages go and come."""

    max_message = _MESSAGE_MAX

    def put(self, task: "Task", data: bytes, outgoing: Outgoing, other: UnixSocket) -> int:
        """Put a message into the queue of ``other``."""
        if len(data) > min(self.options.send_buffer - 32, _MESSAGE_MAX):
            raise GuestError(EMSGSIZE)
        if self.in_flight >= self.send_capacity:
            self.wait_to_send(task, outgoing.flags)
        if other is not self and other.peer is not self and len(other.queue) > MAX_QUEUE:
            self.wait_to_send(task, outgoing.flags, on=other.changed)
        creds = self.creds_for(task, outgoing)
        other.queue.push(Message(data, unix_address(self.name), outgoing.rights, creds), self)
        other.changed.wake(ARRIVED)
        return len(data)

    def receive(self, task: "Task", count: int, flags: int) -> Received:
        """See :meth:`Socket.receive` (``__unix_dgram_recvmsg()``)."""
        if flags & abi.MSG_ERRQUEUE:
            raise GuestError(EAGAIN)
        if flags & MSG_OOB:
            raise GuestError(EOPNOTSUPP)
        self.raise_error()
        if not self.queue:
            if self.shut & RCV_SHUTDOWN and (self.has_connection or not flags & MSG_DONTWAIT):
                return Received(b"")
            self.wait_to_receive(task, flags)
        if flags & MSG_PEEK:
            message = self.queue.first()
            rights = message.rights
            for file in rights:
                file.acquire()
        else:
            was_full = len(self.queue) > MAX_QUEUE
            message = self.queue.pop()
            rights = self.queue.take_rights(message)
            if was_full:
                self.changed.wake()
        told = abi.MSG_TRUNC if len(message.data) > count else 0
        source = message.source if len(message.source) > 2 else b""
        return Received(bytes(message.data[:count]), told, len(message.data), source, rights, message.creds)

    def is_at_mark(self) -> bool:
        """See :meth:`Socket.is_at_mark`: messages have none."""
        raise GuestError(EOPNOTSUPP)

    def unread_bytes(self) -> int:
        """See :meth:`Socket.unread_bytes`: of the next message."""
        return len(self.queue.first()) if self.queue else 0

    def unsent_bytes(self) -> int:
        """See :meth:`Socket.unsent_bytes`."""
        return self.in_flight


class UnixDatagram(_Datagrams):
    """A socket that sends to whom it wants; connected, it has a usual receiver."""

    has_connection = False

    def connect(self, task: "Task", address: bytes, flags: int) -> None:
        """See :meth:`Socket.connect` (``unix_dgram_connect()``)."""
        if family_of(address) == abi.AF_UNSPEC:
            self.peer = None
            return
        self.autobind_for_credentials()
        other = self.find(task, address)
        self._check_may_send(other)
        self.peer = other
        self.changed.wake()

    def _check_may_send(self, other: UnixSocket) -> None:
        """``unix_may_send()``: who is connected hears only its peer."""
        if other.peer is not None and other.peer is not self:
            raise GuestError(EPERM)

    def send(self, task: "Task", data: bytes, outgoing: Outgoing) -> int:
        """See :meth:`Socket.send` (``unix_dgram_sendmsg()``)."""
        if outgoing.flags & MSG_OOB:
            raise GuestError(EOPNOTSUPP)
        self.autobind_for_credentials()
        if outgoing.destination:
            other: UnixSocket | None = self.find(task, outgoing.destination)
        else:
            other = self.peer
            if other is None:
                raise GuestError(ENOTCONN)
        assert other is not None
        self.raise_error()
        if other.is_closed:
            if other is self.peer:
                self.peer = None
            raise GuestError(ECONNREFUSED)
        self._check_may_send(other)
        if other.shut & RCV_SHUTDOWN or self.shut & SEND_SHUTDOWN:
            raise GuestError(EPIPE)
        return self.put(task, data, outgoing, other)

    def poll(self) -> int:
        """``unix_dgram_poll()``."""
        mask = super().poll()
        peer = self.peer
        full = peer is not None and peer.peer is not self and len(peer.queue) > MAX_QUEUE
        return mask if full or self.in_flight * 4 > self.send_capacity else mask | _WRITABLE


class UnixSeqpacket(_Datagrams, UnixConnection):
    """A listener, or one end of a connection that keeps messages apart."""

    def send(self, task: "Task", data: bytes, outgoing: Outgoing) -> int:
        """See :meth:`Socket.send` (``unix_seqpacket_sendmsg()``)."""
        if outgoing.flags & MSG_OOB:
            raise GuestError(EOPNOTSUPP)
        self.raise_error()
        peer = self.peer
        if peer is None:
            raise GuestError(ENOTCONN)
        if self.shut & SEND_SHUTDOWN or peer.is_closed or peer.shut & RCV_SHUTDOWN:
            raise GuestError(EPIPE)
        return self.put(task, data, outgoing, peer)

    def receive(self, task: "Task", count: int, flags: int) -> Received:
        """See :meth:`Socket.receive` (``unix_seqpacket_recvmsg()``)."""
        if not self.is_connected:
            raise GuestError(ENOTCONN)
        return super().receive(task, count, flags)
