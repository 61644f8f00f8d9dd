"""What is in flight: messages in the receive queue of a socket.

Every message is charged with its bytes and :data:`MESSAGE_COST` for what the monitor keeps of it: to the sandbox's
memory, to the receiver (SO_RCVBUF), and where the family does so to the sender (SO_SNDBUF).
"""

from collections import deque
from typing import TYPE_CHECKING

from pyvmm.linux.errors import GuestError

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.net.network import Network
    from pyvmm.linux.net.socket import Socket

#: ``SKB_TRUESIZE(0)``, about.
MESSAGE_COST = 768
#: Into a message that is no longer than this a stream may put more.
_MERGE_MAX = 1 << 16

#: pid, uid, gid.
Ucred = tuple[int, int, int]


class Message:
    """One datagram, or a piece of a stream."""

    __slots__ = ("charge", "control", "creds", "data", "position", "rights", "sender", "source")

    def __init__(
        self,
        data: bytes,
        source: bytes = b"",
        rights: "tuple[OpenFile, ...]" = (),
        creds: Ucred | None = None,
        control: tuple[tuple[int, int, bytes], ...] = (),
    ) -> None:
        self.data: bytes | bytearray = data
        #: How much of a stream's piece has been read.
        self.position = 0
        self.source = source
        self.rights = rights
        self.creds = creds
        #: Control messages (level, type, data) that the receiver may ask for.
        self.control = control
        self.sender: Socket | None = None
        self.charge = len(data) + MESSAGE_COST

    def __len__(self) -> int:
        return len(self.data) - self.position


class ReceiveQueue:
    """Messages in the order in which they came."""

    __slots__ = ("_messages", "_network", "charged", "size")

    def __init__(self, network: "Network") -> None:
        self._network = network
        self._messages: deque[Message] = deque()
        #: Bytes to read, and what they cost.
        self.size = 0
        self.charged = 0

    def __len__(self) -> int:
        return len(self._messages)

    def __bool__(self) -> bool:
        return bool(self._messages)

    def first(self) -> Message:
        """The oldest message."""
        return self._messages[0]

    def messages(self) -> "deque[Message]":
        """All of them."""
        return self._messages

    def push(self, message: Message, sender: "Socket | None" = None) -> None:
        """Append a message, charged to ``sender`` if there is one; ENOBUFS without memory."""
        self._network.take(message.charge)
        self._messages.append(message)
        self.size += len(message)
        self.charged += message.charge
        if sender is not None:
            message.sender = sender
            sender.in_flight += message.charge
        for file in message.rights:
            file.acquire()
        self._network.rights_in_flight += len(message.rights)

    def append(self, data: bytes) -> bool:
        """Add to the newest piece of a stream; False: it is not of that sort, or it is long enough."""
        if not self._messages:
            return False
        last = self._messages[-1]
        if last.rights or len(last.data) + len(data) > _MERGE_MAX:
            return False
        self._network.take(len(data))
        if isinstance(last.data, bytes):
            last.data = bytearray(last.data)
        last.data += data
        last.charge += len(data)
        self.size += len(data)
        self.charged += len(data)
        if last.sender is not None:
            last.sender.in_flight += len(data)
        return True

    def pop(self) -> Message:
        """Remove the oldest message."""
        message = self._messages.popleft()
        self.size -= len(message)
        self.charged -= message.charge
        self._network.take(-message.charge)
        sender, message.sender = message.sender, None
        if sender is not None:
            sender.uncharge(message.charge)
        return message

    def consume(self, message: Message, count: int) -> None:
        """``count`` bytes of the oldest message have been read; its room is free when all of it has been."""
        message.position += count
        self.size -= count

    def put_back(self, data: bytes) -> None:
        """Bytes of a stream, just taken, stand in front again."""
        message = Message(data)
        try:
            self._network.take(message.charge)
        except GuestError:
            return  # Another has had the room since: they are lost.
        self._messages.appendleft(message)
        self.size += len(message)
        self.charged += message.charge

    def take_rights(self, message: Message) -> "tuple[OpenFile, ...]":
        """The descriptors of a message are in flight no longer: they are the caller's to install or release."""
        rights, message.rights = message.rights, ()
        self._network.rights_in_flight -= len(rights)
        return rights

    def clear(self) -> None:
        """Nobody will read any of it: descriptors in it are closed."""
        while self._messages:
            self._network.release(self.take_rights(self.pop()))
