"""What all sockets have (``struct sock``), and Linux's answer to each operation that a kind of socket lacks."""

from dataclasses import dataclass
from errno import EAGAIN, EINPROGRESS, ENOPROTOOPT, ENOTTY, EOPNOTSUPP
from typing import TYPE_CHECKING, NoReturn

from pyvmm.linux.abi.poll import (
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLPRI,
    POLLRDBAND,
    POLLRDHUP,
    POLLRDNORM,
)
from pyvmm.linux.abi.signal import SI_KERNEL, SIGURG
from pyvmm.linux.abi.socket import MSG_DONTWAIT, RCV_SHUTDOWN, SHUTDOWN_MASK, SOL_SOCKET
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net import options
from pyvmm.linux.net.network import SOCKET_COST, Network
from pyvmm.linux.net.options import SocketOptions
from pyvmm.linux.net.queues import Message, ReceiveQueue, Ucred
from pyvmm.linux.signalling import send_to_all
from pyvmm.linux.signals import SignalInfo
from pyvmm.linux.wait import WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.task import Task

READABLE = POLLIN | POLLRDNORM
#: ``sock_def_readable()``: data or a connection has come.
ARRIVED = READABLE | POLLPRI | POLLRDBAND


@dataclass(slots=True)
class Received:
    """What a receiving call gets."""

    data: bytes
    #: MSG_* that recvmsg tells, and the length of a datagram before it was cut.
    flags: int = 0
    length: int = 0
    #: Who sent it; None: the address is not told (streams of connected sockets).
    source: bytes | None = None
    #: Descriptors, in flight no longer, that the caller must install or release.
    rights: "tuple[OpenFile, ...]" = ()
    creds: Ucred | None = None
    #: Other control messages.
    control: tuple[tuple[int, int, bytes], ...] = ()
    #: A transfer ends here, though there is more to read.
    is_end: bool = False


@dataclass(slots=True)
class Outgoing:
    """What goes with the data of a sending call."""

    #: MSG_*, MSG_DONTWAIT also for O_NONBLOCK.
    flags: int = 0
    #: The destination's address; empty: none was given.
    destination: bytes = b""
    rights: "tuple[OpenFile, ...]" = ()
    creds: Ucred | None = None
    control: tuple[tuple[int, int, bytes], ...] = ()


class Socket:
    """The base of all kinds of sockets."""

    #: A message is delivered whole, or cut.
    keeps_boundaries = True
    #: Messages of at most so many bytes can be sent; EMSGSIZE beyond.
    max_message = 65_536
    #: What options of a level that the family does not know give.
    unknown_level = ENOPROTOOPT

    def __init__(self, network: Network, domain: int, kind: int, protocol: int, uid: int) -> None:
        network.take(SOCKET_COST)
        self.network = network
        self.domain, self.type, self.protocol = domain, kind, protocol
        self.uid = uid
        self.number = network.next_number()
        self.options = SocketOptions()
        #: Woken when data, connections, room, errors or the end come: when :meth:`poll` may show more.
        self.changed = WaitQueue()
        self.queue = ReceiveQueue(network)
        #: What it has sent and nobody has read, as far as its family charges the sender.
        self.in_flight = 0
        #: ``sk_err``, ``sk_shutdown``.
        self.error = 0
        self.shut = 0
        self.is_listening = False
        self.is_closed = False
        self.peer_creds: Ucred | None = None
        #: Who gets SIGURG (F_SETOWN): a process, or if negative a process group.
        self.owner = 0
        #: The inode number of its descriptors; 0 until it has any.
        self.file_number = 0
        network.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.number} domain={self.domain} shut={self.shut} queue={len(self.queue)}>"

    # ------------------------------------------------------------------------------------------------------ waiting

    def wait_to_receive(self, task: "Task", flags: int, progress: int = 0) -> NoReturn:
        """Nothing to receive: EAGAIN, or wait as long as SO_RCVTIMEO says."""
        self._wait(task, flags, self.options.receive_timeout, EAGAIN, progress)

    def wait_to_send(self, task: "Task", flags: int, progress: int = 0, on: WaitQueue | None = None) -> NoReturn:
        """No room (of this socket, or of what wakes ``on``): EAGAIN, or wait as long as SO_SNDTIMEO says."""
        self._wait(task, flags, self.options.send_timeout, EAGAIN, progress, on)

    def wait_to_connect(self, task: "Task", flags: int) -> NoReturn:
        """Not connected yet: EINPROGRESS, or wait as long as SO_SNDTIMEO says."""
        self._wait(task, flags, self.options.send_timeout, EINPROGRESS, 0)

    def _wait(
        self, task: "Task", flags: int, timeout: int | None, error: int, progress: int, on: WaitQueue | None = None
    ) -> NoReturn:
        if flags & MSG_DONTWAIT:
            raise GuestError(error)
        until = None if timeout is None else task.deadline_after(timeout)
        if until is not None and task.kernel.clock.monotonic_ns() >= until:
            raise GuestError(error)
        # ``sock_intr_errno()``: with a time-out a handler ends the call, whatever SA_RESTART says.
        task.wait(self.changed if on is None else on, until=until, restart=until is None, progress=progress)

    # ------------------------------------------------------------------------------------------------------- errors

    def take_error(self) -> int:
        """``sock_error()``: the pending error, which is then none any more."""
        error, self.error = self.error, 0
        return error

    def raise_error(self) -> None:
        """Raise the pending error, if there is one."""
        if self.error:
            raise GuestError(self.take_error())

    def uncharge(self, count: int) -> None:
        """Something that this socket had sent has been read."""
        was_writable = self.in_flight * 4 <= self.send_capacity
        self.in_flight -= count
        if not was_writable:
            self.changed.wake()

    def send_sigurg(self) -> None:
        """``sk_send_sigurg()``: something urgent has come."""
        if self.owner:
            processes = self.network.kernel.processes.values()
            owners = [each for each in processes if self.owner in (each.pid, -each.group)]
            send_to_all(owners, SignalInfo(SIGURG, SI_KERNEL))

    @property
    def send_capacity(self) -> int:
        """How much may be in flight; :attr:`in_flight` may go beyond by one message."""
        return self.options.send_buffer

    # --------------------------------------------------------------------------------------------------- operations

    def bind(self, task: "Task", address: bytes) -> None:
        """bind(2): EOPNOTSUPP."""
        raise GuestError(EOPNOTSUPP)

    def listen(self, task: "Task", backlog: int) -> None:
        """listen(2): EOPNOTSUPP."""
        raise GuestError(EOPNOTSUPP)

    def accept(self, task: "Task", flags: int) -> "Socket":
        """accept(2): EOPNOTSUPP."""
        raise GuestError(EOPNOTSUPP)

    def connect(self, task: "Task", address: bytes, flags: int) -> None:
        """connect(2): EOPNOTSUPP."""
        raise GuestError(EOPNOTSUPP)

    def local_name(self) -> bytes:
        """getsockname(2)."""
        raise GuestError(EOPNOTSUPP)

    def peer_name(self) -> bytes:
        """getpeername(2)."""
        raise GuestError(EOPNOTSUPP)

    def accepted_name(self) -> bytes:
        """The address of the other end, as accept(2) tells it."""
        return self.peer_name()

    def send(self, task: "Task", data: bytes, outgoing: Outgoing) -> int:
        """Send ``data``; how much of it went (all of a message)."""
        raise GuestError(EOPNOTSUPP)

    def receive(self, task: "Task", count: int, flags: int) -> Received:
        """Receive up to ``count`` bytes."""
        raise GuestError(EOPNOTSUPP)

    def unread(self, data: bytes) -> None:
        """The last of what was received could not be delivered; a datagram is then lost."""

    def shutdown(self, how: int) -> None:
        """shutdown(2): EOPNOTSUPP."""
        raise GuestError(EOPNOTSUPP)

    def close(self) -> None:
        """The last descriptor is gone. Called once."""
        self.is_closed = True
        self.shut = SHUTDOWN_MASK
        self.network.remove(self)
        self.queue.clear()
        self.network.take(-SOCKET_COST)
        self.changed.wake()

    def poll(self) -> int:
        """``datagram_poll()`` without the part about writing."""
        mask = POLLERR if self.error else 0
        if self.shut & RCV_SHUTDOWN:
            mask |= POLLRDHUP | READABLE
        if self.shut == SHUTDOWN_MASK:
            mask |= POLLHUP
        return mask | READABLE if self.queue else mask

    def unread_bytes(self) -> int:
        """FIONREAD."""
        raise GuestError(ENOTTY)

    def unsent_bytes(self) -> int:
        """SIOCOUTQ."""
        raise GuestError(ENOTTY)

    def is_at_mark(self) -> bool:
        """SIOCATMARK: the next byte is the one that came out of band, or that would stand there."""
        raise GuestError(ENOTTY)

    def set_option(self, task: "Task", level: int, option: int, data: bytes) -> None:
        """setsockopt(2)."""
        if level != SOL_SOCKET:
            raise GuestError(self.unknown_level)
        options.set_option(self, task, option, data)

    def get_option(self, task: "Task", level: int, option: int) -> bytes:
        """getsockopt(2)."""
        if level != SOL_SOCKET:
            raise GuestError(self.unknown_level)
        return options.get_option(self, task, option)

    def in_flight_here(self) -> "tuple[Message, ...]":
        """The messages in its queue that carry descriptors."""
        return tuple(message for message in self.queue.messages() if message.rights)
