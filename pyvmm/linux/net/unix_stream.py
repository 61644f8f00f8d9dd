"""AF_UNIX streams."""

from errno import EAGAIN, EINVAL, EISCONN, ENOTCONN, EOPNOTSUPP, EPIPE
from typing import TYPE_CHECKING

from pyvmm.linux.abi.socket import MSG_ERRQUEUE, MSG_OOB, RCV_SHUTDOWN, SEND_SHUTDOWN
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.network import current_creds
from pyvmm.linux.net.queues import Message
from pyvmm.linux.net.socket import ARRIVED, Outgoing
from pyvmm.linux.net.stream import StreamSocket
from pyvmm.linux.net.unix_connection import UnixConnection

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: ``SKB_MAX_ALLOC`` and the pages that may follow: what of a stream travels in one piece.
_PIECE_MAX = 1 << 16


class UnixStream(StreamSocket, UnixConnection):
    """A listener, or one end of a stream."""

    def check_sendable(self, task: "Task", outgoing: Outgoing) -> None:
        """See :meth:`StreamSocket.check_sendable` (``unix_stream_sendmsg()``)."""
        if outgoing.flags & MSG_OOB:
            raise GuestError(EOPNOTSUPP)
        if outgoing.destination:
            raise GuestError(EISCONN if self.is_connected else EOPNOTSUPP)
        peer = self.peer
        if peer is None:
            raise GuestError(ENOTCONN)
        if self.shut & SEND_SHUTDOWN or peer.is_closed or peer.shut & RCV_SHUTDOWN:
            raise GuestError(EPIPE)
        if outgoing.creds is None:
            outgoing.creds = current_creds(task)

    def put(self, data: bytes, outgoing: Outgoing, is_first: bool) -> int:
        """See :meth:`StreamSocket.put`."""
        peer = self.peer
        assert peer is not None
        if self.in_flight >= self.send_capacity:
            return 0
        piece = data[: min(_PIECE_MAX, (self.send_capacity >> 1) - 64)]
        rights = outgoing.rights if is_first else ()
        peer.queue.push(Message(piece, rights=rights, creds=outgoing.creds), self)
        peer.changed.wake(ARRIVED)
        return len(piece)

    def check_receivable(self, flags: int) -> None:
        """See :meth:`StreamSocket.check_receivable`."""
        if flags & MSG_ERRQUEUE:
            raise GuestError(EAGAIN)
        if flags & MSG_OOB:
            raise GuestError(EOPNOTSUPP)
        if not self.is_connected:
            raise GuestError(EINVAL)

    def check_connected(self) -> None:
        """See :meth:`StreamSocket.check_connected`: that has been seen to."""

    def unread_bytes(self) -> int:
        """See :meth:`Socket.unread_bytes`."""
        if self.is_listening:
            raise GuestError(EINVAL)
        return self.queue.size

    def unsent_bytes(self) -> int:
        """See :meth:`Socket.unsent_bytes`."""
        return self.in_flight
