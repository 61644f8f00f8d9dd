"""What byte streams have in common, be they AF_UNIX or TCP: how bytes go to the other end and are taken there."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyvmm.linux.abi.socket import MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL, RCV_SHUTDOWN, SEND_SHUTDOWN
from pyvmm.linux.net.queues import Message, ReceiveQueue, Ucred
from pyvmm.linux.net.socket import Outgoing, Received, Socket

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.task import Task


class StreamSocket(Socket):
    """One end of a byte stream, or a listener."""

    keeps_boundaries = False

    # --------------------------------------------------------------------------------------------------------- sending

    def send(self, task: "Task", data: bytes, outgoing: Outgoing) -> int:
        """See :meth:`Socket.send`: as much as there is room for, if that is anything."""
        self.check_sendable(task, outgoing)
        done = 0
        while done < len(data):
            count = self.put(data[done:] if done else data, outgoing, not done)
            if not count:
                break
            done += count
        gives_up = outgoing.flags & MSG_DONTWAIT or task.signals.deliverable or self.shut & SEND_SHUTDOWN
        if done == len(data) or (done and gives_up):
            return done
        self.wait_to_send(task, outgoing.flags, done)

    @abstractmethod
    def check_sendable(self, task: "Task", outgoing: Outgoing) -> None:
        """Raise what forbids sending at all."""

    @abstractmethod
    def put(self, data: bytes, outgoing: Outgoing, is_first: bool) -> int:
        """Put a piece of ``data`` into the other end's queue; how long it was, 0 without room."""

    # ------------------------------------------------------------------------------------------------------- receiving

    def receive(self, task: "Task", count: int, flags: int) -> Received:
        """See :meth:`Socket.receive`."""
        self.check_receivable(flags)
        peek = bool(flags & MSG_PEEK)
        wanted = count if flags & MSG_WAITALL and peek else 1
        if self.queue.size < wanted and not (self.queue.size and self.has_ended):
            if not self.queue.size:
                self.raise_error()
            if self.has_ended:
                return Received(b"")
            self.check_connected()
            if not self.queue.size or not flags & MSG_DONTWAIT:
                self.wait_to_receive(task, flags)
        if peek:
            return _peek(self.queue.messages(), count, self.options.pass_credentials)
        return _take(self.queue, count, self.options.pass_credentials)

    def peek(self, task: "Task", messages: list[Message], count: int, flags: int) -> Received:
        """As :meth:`receive` with MSG_PEEK, if ``messages`` were all there are."""
        if not messages:
            self.raise_error()
            if self.has_ended:
                return Received(b"")
            self.wait_to_receive(task, flags)
        return _peek(messages, count, self.options.pass_credentials)

    @abstractmethod
    def check_receivable(self, flags: int) -> None:
        """Raise what forbids receiving, even what is there."""

    @abstractmethod
    def check_connected(self) -> None:
        """Raise if nothing can ever come."""

    @property
    def has_ended(self) -> bool:
        """Nothing more will come."""
        return bool(self.shut & RCV_SHUTDOWN)

    def unread(self, data: bytes) -> None:
        """See :meth:`Socket.unread`: a stream loses nothing."""
        if data:
            self.queue.put_back(data)
            self.changed.wake()


def _take(queue: ReceiveQueue, count: int, by_sender: bool) -> Received:
    """Remove bytes. What came with descriptors ends the transfer, as does another sender's if that is told."""
    parts: list[bytes] = []
    rights: tuple[OpenFile, ...] = ()
    creds: Ucred | None = None
    left = count
    while left and queue:
        message = queue.first()
        if parts and by_sender and message.creds != creds:
            break
        creds = creds or message.creds
        if message.rights:
            rights = queue.take_rights(message)
        start = message.position
        part = bytes(memoryview(message.data)[start : start + left])
        parts.append(part)
        left -= len(part)
        queue.consume(message, len(part))
        if not len(message):
            queue.pop()
        if rights:
            break
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    return Received(data, length=len(data), rights=rights, creds=creds)


def _peek(messages: Iterable[Message], count: int, by_sender: bool) -> Received:
    """The same bytes, which stay where they are; descriptors are given and stay."""
    parts: list[bytes] = []
    rights: tuple[OpenFile, ...] = ()
    creds: Ucred | None = None
    left = count
    for message in messages:
        if not left or (parts and by_sender and message.creds != creds):
            break
        creds = creds or message.creds
        part = bytes(memoryview(message.data)[message.position : message.position + left])
        parts.append(part)
        left -= len(part)
        if message.rights:
            rights = message.rights
            for file in rights:
                file.acquire()
            break
    data = b"".join(parts)
    return Received(data, length=len(data), rights=rights, creds=creds)
