"""AF_UNIX streams, and the byte that comes out of band in them (``CONFIG_AF_UNIX_OOB``)."""

from errno import EAGAIN, EINVAL, EISCONN, ENOTCONN, EOPNOTSUPP, EPIPE
from typing import TYPE_CHECKING

from pyvmm.linux.abi.poll import POLLPRI
from pyvmm.linux.abi.socket import MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, RCV_SHUTDOWN, SEND_SHUTDOWN, SO_OOBINLINE
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.network import Network, current_creds
from pyvmm.linux.net.queues import Message
from pyvmm.linux.net.socket import ARRIVED, Outgoing, Received
from pyvmm.linux.net.stream import StreamSocket
from pyvmm.linux.net.unix_connection import UnixConnection

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: ``SKB_MAX_ALLOC`` and the pages that may follow: what of a stream travels in one piece.
_PIECE_MAX = 1 << 16


class UnixStream(StreamSocket, UnixConnection):
    """A listener, or one end of a stream."""

    def __init__(self, network: Network, domain: int, kind: int, protocol: int, uid: int) -> None:
        super().__init__(network, domain, kind, protocol, uid)
        #: The message, of one byte, that came out of band last and nobody has read (``oob_skb``). One that has been
        #: read stays in the queue without its byte, and marks its place.
        self.urgent: Message | None = None
        self._has_marks = False

    # --------------------------------------------------------------------------------------------------------- sending

    def check_sendable(self, task: "Task", outgoing: Outgoing) -> None:
        """See :meth:`StreamSocket.check_sendable` (``unix_stream_sendmsg()``)."""
        if outgoing.destination:
            raise GuestError(EISCONN if self.is_connected else EOPNOTSUPP)
        peer = self.peer
        if peer is None:
            raise GuestError(ENOTCONN)
        if self.shut & SEND_SHUTDOWN or peer.is_closed or peer.shut & RCV_SHUTDOWN:
            raise GuestError(EPIPE)
        if outgoing.creds is None:
            outgoing.creds = current_creds(task)

    def send(self, task: "Task", data: bytes, outgoing: Outgoing) -> int:
        """See :meth:`Socket.send`."""
        if not data and outgoing.flags & MSG_OOB:
            raise GuestError(EOPNOTSUPP)
        return super().send(task, data, outgoing)

    def put(self, data: bytes, outgoing: Outgoing, is_first: bool) -> int:
        """See :meth:`StreamSocket.put`. With MSG_OOB the last byte is urgent."""
        peer = self.peer
        assert isinstance(peer, UnixStream)
        if self.in_flight >= self.send_capacity:
            return 0
        is_urgent = outgoing.flags & MSG_OOB and len(data) == 1
        if outgoing.flags & MSG_OOB and not is_urgent:
            data = data[:-1]
        piece = data[: min(_PIECE_MAX, (self.send_capacity >> 1) - 64)]
        rights = outgoing.rights if is_first else ()
        message = Message(piece, rights=rights, creds=outgoing.creds)
        peer.queue.push(message, self)
        if is_urgent:
            peer.urgent, peer._has_marks = message, True
            peer.send_sigurg()
        peer.changed.wake(ARRIVED)
        return len(piece)

    # ------------------------------------------------------------------------------------------------------- receiving

    def check_receivable(self, flags: int) -> None:
        """See :meth:`StreamSocket.check_receivable`."""
        if flags & MSG_ERRQUEUE:
            raise GuestError(EAGAIN)
        if not self.is_connected:
            raise GuestError(EINVAL)

    def check_connected(self) -> None:
        """See :meth:`StreamSocket.check_connected`: that has been seen to."""

    def receive(self, task: "Task", count: int, flags: int) -> Received:
        """See :meth:`Socket.receive`: a read ends at the place of an urgent byte (``manage_oob()``)."""
        if flags & MSG_OOB:
            self.check_receivable(flags)
            return self._receive_urgent(flags)
        if not self._has_marks:
            return super().receive(task, count, flags)
        is_peek = bool(flags & MSG_PEEK)
        if not is_peek and not task.progress:
            self._pass_mark()
        ahead, ends_at_mark = self._until_mark(bool(task.progress))
        if is_peek:
            return self.peek(task, ahead, count, flags)
        length = sum(map(len, ahead))
        if not length:
            return Received(b"") if ends_at_mark else super().receive(task, count, flags)
        received = super().receive(task, min(count, length), flags)
        received.is_end = ends_at_mark and len(received.data) == length
        return received

    def _pass_mark(self) -> None:
        """Reading goes on behind a mark; an urgent byte that stands there is lost, unless SO_OOBINLINE is set."""
        queue = self.queue
        while queue and not len(queue.first()):
            queue.pop()
        if queue and queue.first() is self.urgent:
            self.urgent = None
            if not self.options.others.get(SO_OOBINLINE):
                self.network.release(queue.take_rights(queue.pop()))
        self._has_marks = self.urgent is not None or any(not len(message) for message in queue.messages())

    def _until_mark(self, has_begun: bool) -> tuple[list[Message], bool]:
        """The messages that one call may read, and whether a mark stands behind them. One who has not read anything
        yet is not stopped by a mark at the front.
        """
        found: list[Message] = []
        for message in self.queue.messages():
            if not len(message):
                if has_begun and self.urgent is None:
                    return found, True
                continue
            if message is self.urgent:
                if has_begun:
                    return found, True
                if not self.options.others.get(SO_OOBINLINE):
                    continue
            found.append(message)
            has_begun = True
        return found, False

    def _receive_urgent(self, flags: int) -> Received:
        """``unix_stream_recv_urg()``."""
        urgent = self.urgent
        if urgent is None or self.options.others.get(SO_OOBINLINE):
            raise GuestError(EINVAL)
        if not flags & MSG_PEEK:
            self.queue.consume(urgent, 1)
            self.urgent = None
        return Received(bytes(urgent.data), MSG_OOB, 1, is_end=True)

    def is_at_mark(self) -> bool:
        """See :meth:`Socket.is_at_mark`."""
        messages = self.queue.messages()
        if not messages or messages[0] is self.urgent:
            return bool(messages)
        following = next((message for message in messages if len(message)), None)
        return following is not messages[0] and (self.urgent is None or following is self.urgent)

    # -------------------------------------------------------------------------------------------------------- the rest

    def poll(self) -> int:
        """``unix_poll()``."""
        mask = super().poll()
        return mask if self.urgent is None else mask | POLLPRI

    def unread_bytes(self) -> int:
        """See :meth:`Socket.unread_bytes`."""
        if self.is_listening:
            raise GuestError(EINVAL)
        return self.queue.size

    def unsent_bytes(self) -> int:
        """See :meth:`Socket.unsent_bytes`."""
        return self.in_flight

    def close(self) -> None:
        """See :meth:`Socket.close`; marks are nothing that was left unread."""
        while self.queue and not len(self.queue.first()):
            self.queue.pop()
        self.urgent = None
        super().close()
