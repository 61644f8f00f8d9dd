"""UDP and UDP-Lite on the loopback interface (udp(7), udplite(7)): datagrams are delivered at once, or dropped when the
receiver is full.
"""

import struct
from errno import (
    EAGAIN,
    ECONNREFUSED,
    EDESTADDRREQ,
    EINVAL,
    EMSGSIZE,
    ENOBUFS,
    ENOPROTOOPT,
    ENOTCONN,
    EOPNOTSUPP,
    EPIPE,
)
from typing import TYPE_CHECKING

from pyvmm.linux.abi import socket as abi
from pyvmm.linux.abi.poll import POLLOUT, POLLWRBAND, POLLWRNORM
from pyvmm.linux.abi.socket import (
    IPPROTO_UDPLITE,
    MSG_ERRQUEUE,
    MSG_OOB,
    MSG_PEEK,
    RCV_SHUTDOWN,
    SEND_SHUTDOWN,
    SOL_IP,
    SOL_IPV6,
    SOL_UDP,
    SOL_UDPLITE,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.addresses import Endpoint, family_of, inet_address
from pyvmm.linux.net.inet import InetSocket
from pyvmm.linux.net.multicast import hears
from pyvmm.linux.net.options import integer, pack_integer
from pyvmm.linux.net.ports import PortTable, accepts
from pyvmm.linux.net.queues import Message
from pyvmm.linux.net.socket import ARRIVED, Outgoing, Received

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: What fits into an IPv4 packet; IPv6 has room for 20 bytes more.
MAX_PAYLOAD = 65_507
_WRITABLE = POLLOUT | POLLWRNORM | POLLWRBAND
_PKTINFO = struct.Struct("<i4s4s")
_PKTINFO6 = struct.Struct("<16si")
_INT = struct.Struct("<i")
_COVERAGE = (abi.UDPLITE_SEND_CSCOV, abi.UDPLITE_RECV_CSCOV)
#: The least that a checksum covers.
_LITE_HEADER = 8


class UdpSocket(InetSocket):
    """A socket that sends and receives datagrams."""

    max_message = MAX_PAYLOAD

    @property
    def ports(self) -> PortTable:
        """See :attr:`InetSocket.ports`."""
        return self.network.udplite if self.protocol == IPPROTO_UDPLITE else self.network.udp

    # ------------------------------------------------------------------------------------------------------ connecting

    def connect(self, task: "Task", address: bytes, flags: int) -> None:
        """See :meth:`Socket.connect`: only what comes from there is received from now on."""
        if family_of(address) == abi.AF_UNSPEC:
            self.remote = None
            if not self.is_bound:
                self.release_port()
            return
        self.bind_source()
        target = self.route(address)
        self.remote = None
        self.local, self.remote = self.source_for(target), target
        self.changed.wake()

    def shutdown(self, how: int) -> None:
        """See :meth:`Socket.shutdown`."""
        self.shut |= how + 1
        self.changed.wake()
        if self.remote is None:
            raise GuestError(ENOTCONN)

    # ---------------------------------------------------------------------------------------------- sending, receiving

    def send(self, task: "Task", data: bytes, outgoing: Outgoing) -> int:
        """See :meth:`Socket.send`."""
        if len(data) > 0xFFFF:
            raise GuestError(EMSGSIZE)
        if outgoing.flags & MSG_OOB:
            raise GuestError(EOPNOTSUPP)
        target = self._target(outgoing.destination)
        control = self._control_of(outgoing)
        if len(data) > MAX_PAYLOAD + 20 * (len(target.ip) == 16):
            raise GuestError(EMSGSIZE)
        if self.shut & SEND_SHUTDOWN:
            raise GuestError(EPIPE)
        self.raise_error()
        source = self.source_for(target)
        if target.is_multicast:
            for member in self._members_at(target, source):
                member._take(data, source, control)
            return len(data)
        receiver = self._receiver_at(target, source)
        if receiver is None:
            if self.remote is not None and not outgoing.destination:
                # An ICMP message says that nobody is there; who is not connected does not hear of it.
                self.error = ECONNREFUSED
                self.changed.wake()
            return len(data)
        receiver._take(data, source, control)
        return len(data)

    def _take(self, data: bytes, source: Endpoint, control: tuple[tuple[int, int, bytes], ...]) -> None:
        """A datagram has come; it is dropped without room."""
        message = Message(data, inet_address(self.domain, source), control=control)
        if self.queue.charged + message.charge > self.options.receive_buffer and self.queue:
            return
        try:
            self.queue.push(message)
        except GuestError as error:
            if error.errno != ENOBUFS:
                raise
            return
        self.changed.wake(ARRIVED)

    def _target(self, destination: bytes) -> Endpoint:
        if not destination:
            if self.remote is None:
                raise GuestError(EDESTADDRREQ)
            return self.remote
        if self.domain == abi.AF_INET6 and len(destination) >= 16 and family_of(destination) == abi.AF_INET:
            # ``udpv6_sendmsg()`` takes plain IPv4 addresses too.
            ip = bytes(10) + b"\xff\xff" + destination[4:8]
            destination = inet_address(abi.AF_INET6, Endpoint(ip, int.from_bytes(destination[2:4], "big")))
        target = self.route(destination)
        if not target.port:
            raise GuestError(EINVAL)
        return target

    def _receiver_at(self, target: Endpoint, source: Endpoint) -> "UdpSocket | None":
        """Whose a datagram is (``compute_score()``): who is connected to its sender, else whose address says most; of
        equals the one that was bound last.
        """
        found: UdpSocket | None = None
        best = -1
        for socket in self.ports.at(target.port):
            if not isinstance(socket, UdpSocket) or not accepts(socket, target):
                continue
            if socket.remote is not None and socket.remote != source:
                continue
            assert socket.local is not None
            score = 4 * (socket.remote is not None) + 2 * (not socket.local.is_any)
            score += len(socket.local.ip) == len(target.ip)
            if score >= best:
                found, best = socket, score
        return found

    def _members_at(self, target: Endpoint, source: Endpoint) -> "list[UdpSocket]":
        """Whose a datagram to a group is (``__udp_is_mcast_sock()``)."""
        return [
            socket
            for socket in self.ports.at(target.port)
            if isinstance(socket, UdpSocket)
            and accepts(socket, target)
            and socket.remote in (None, source)
            and hears(socket, target.ip)
        ]

    def receive(self, task: "Task", count: int, flags: int) -> Received:
        """See :meth:`Socket.receive`."""
        if flags & MSG_ERRQUEUE:
            raise GuestError(EAGAIN)
        if flags & MSG_OOB:
            raise GuestError(EOPNOTSUPP)
        self.raise_error()
        if not self.queue:
            if self.shut & RCV_SHUTDOWN and not flags & abi.MSG_DONTWAIT:
                return Received(b"")
            self.wait_to_receive(task, flags)
        message = self.queue.first() if flags & MSG_PEEK else self.queue.pop()
        data = bytes(message.data[:count])
        told = abi.MSG_TRUNC if len(message.data) > count else 0
        return Received(data, told, len(message.data), message.source, control=self._control_for(message))

    def poll(self) -> int:
        """See :meth:`Socket.poll`."""
        return super().poll() | _WRITABLE

    def unread_bytes(self) -> int:
        """See :meth:`Socket.unread_bytes`: of the next datagram."""
        return len(self.queue.first()) if self.queue else 0

    def unsent_bytes(self) -> int:
        """See :meth:`Socket.unsent_bytes`."""
        return 0

    # ------------------------------------------------------------------------------------------------ control messages

    def _control_of(self, outgoing: Outgoing) -> tuple[tuple[int, int, bytes], ...]:
        """What the receiver can ask about a datagram: hop limit and traffic class, as options or the call say."""
        values = {
            (SOL_IP, abi.IP_TTL): self.ip_options.get((SOL_IP, abi.IP_TTL), 64),
            (SOL_IP, abi.IP_TOS): self.ip_options.get((SOL_IP, abi.IP_TOS), 0),
            (SOL_IPV6, abi.IPV6_HOPLIMIT): self.ip_options.get((SOL_IPV6, abi.IPV6_UNICAST_HOPS), 64),
            (SOL_IPV6, abi.IPV6_TCLASS): self.ip_options.get((SOL_IPV6, abi.IPV6_TCLASS), 0),
        }
        for level, kind, data in outgoing.control:
            if level not in (SOL_IP, SOL_IPV6):
                continue
            if (level, kind) not in values:
                if (level, kind) in ((SOL_IP, abi.IP_PKTINFO), (SOL_IPV6, abi.IPV6_PKTINFO)):
                    continue
                raise GuestError(EINVAL)
            if len(data) != 4:
                raise GuestError(EINVAL)
            (value,) = _INT.unpack(data)
            if not -1 <= value <= 255:
                raise GuestError(EINVAL)
            if value >= 0:
                values[level, kind] = value
        return tuple((level, kind, _INT.pack(value)) for (level, kind), value in values.items())

    def _control_for(self, message: Message) -> tuple[tuple[int, int, bytes], ...]:
        """What of it this socket has asked for."""
        asked = self.ip_options
        if not asked:
            return ()
        assert self.local is not None
        values = {(level, kind): data for level, kind, data in message.control}
        ip = self.local.ip if not self.local.is_any else message.source[8:24] if len(self.local.ip) == 16 else b""
        found = []
        if asked.get((SOL_IP, abi.IP_PKTINFO)):
            four = ip if len(ip) == 4 else message.source[4:8]
            found.append((SOL_IP, abi.IP_PKTINFO, _PKTINFO.pack(abi.LOOPBACK_INDEX, four, four)))
        if asked.get((SOL_IP, abi.IP_RECVTTL)):
            found.append((SOL_IP, abi.IP_TTL, values[SOL_IP, abi.IP_TTL]))
        if asked.get((SOL_IP, abi.IP_RECVTOS)):
            found.append((SOL_IP, abi.IP_TOS, values[SOL_IP, abi.IP_TOS][:1]))
        if asked.get((SOL_IPV6, abi.IPV6_RECVPKTINFO)):
            found.append((SOL_IPV6, abi.IPV6_PKTINFO, _PKTINFO6.pack(ip.rjust(16, b"\0"), abi.LOOPBACK_INDEX)))
        if asked.get((SOL_IPV6, abi.IPV6_RECVHOPLIMIT)):
            found.append((SOL_IPV6, abi.IPV6_HOPLIMIT, values[SOL_IPV6, abi.IPV6_HOPLIMIT]))
        if asked.get((SOL_IPV6, abi.IPV6_RECVTCLASS)):
            found.append((SOL_IPV6, abi.IPV6_TCLASS, values[SOL_IPV6, abi.IPV6_TCLASS]))
        return tuple(found)

    def set_option(self, task: "Task", level: int, option: int, data: bytes) -> None:
        """See :meth:`Socket.set_option`: how much a checksum covers does not matter where nothing is damaged."""
        if level == SOL_UDPLITE and self.protocol == IPPROTO_UDPLITE and option in _COVERAGE:
            value = integer(data)
            self.ip_options[level, option] = 0 if value == 0 else min(max(value, _LITE_HEADER), 0xFFFF)
            return
        if level in (SOL_UDP, SOL_UDPLITE):
            raise GuestError(ENOPROTOOPT)
        super().set_option(task, level, option, data)

    def get_option(self, task: "Task", level: int, option: int) -> bytes:
        """See :meth:`Socket.get_option`."""
        if level == SOL_UDPLITE and self.protocol == IPPROTO_UDPLITE and option in _COVERAGE:
            return pack_integer(self.ip_options.get((level, option), 0))
        if level in (SOL_UDP, SOL_UDPLITE):
            raise GuestError(ENOPROTOOPT)
        return super().get_option(task, level, option)
