"""Netlink (netlink(7)): enough of NETLINK_ROUTE to be told which interfaces and addresses there are."""

import struct
from errno import EADDRINUSE, EAGAIN, ECONNREFUSED, EINVAL, EMSGSIZE, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING

from pyvmm.linux.abi import netlink as abi
from pyvmm.linux.abi.poll import POLLOUT, POLLWRBAND, POLLWRNORM
from pyvmm.linux.abi.socket import AF_NETLINK, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC, SOL_NETLINK
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.addresses import family_of
from pyvmm.linux.net.interface import address_messages, link_message
from pyvmm.linux.net.network import Network
from pyvmm.linux.net.queues import Message
from pyvmm.linux.net.socket import Outgoing, Received, Socket

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_FROM_KERNEL = abi.SOCKADDR_NL.pack(AF_NETLINK, 0, 0)
_ERROR = struct.Struct("<i")


class NetlinkSocket(Socket):
    """A socket whose other end is the kernel."""

    max_message = 1 << 16

    def __init__(self, network: Network, domain: int, kind: int, protocol: int, uid: int) -> None:
        super().__init__(network, domain, kind, protocol, uid)
        self.port = 0

    def _address(self, address: bytes) -> int:
        """The port that ``struct sockaddr_nl`` names; EPERM for groups, which only an administrator joins."""
        if len(address) < abi.SOCKADDR_NL.size or family_of(address) != AF_NETLINK:
            raise GuestError(EINVAL)
        _, port, groups = abi.SOCKADDR_NL.unpack_from(address)
        return int(port) if not groups else 0

    def bind(self, task: "Task", address: bytes) -> None:
        """See :meth:`Socket.bind`: the number is the process's, unless it says otherwise."""
        port = self._address(address)
        if self.port and port not in (0, self.port):
            raise GuestError(EINVAL)
        if not self.port:
            self._take_port(task, port)

    def _take_port(self, task: "Task", wanted: int) -> None:
        taken = {socket.port for socket in self.network.sockets() if isinstance(socket, NetlinkSocket)}
        if wanted in taken and wanted:
            raise GuestError(EADDRINUSE)
        port = wanted or task.pid
        while port in taken:
            port = port - 1 if port > 1 << 31 else (1 << 32) - 4096
        self.port = port

    def connect(self, task: "Task", address: bytes, flags: int) -> None:
        """See :meth:`Socket.connect`: to the kernel."""
        if self._address(address):
            raise GuestError(ECONNREFUSED)
        if not self.port:
            self._take_port(task, 0)

    def local_name(self) -> bytes:
        """See :meth:`Socket.local_name`."""
        return abi.SOCKADDR_NL.pack(AF_NETLINK, self.port, 0)

    def peer_name(self) -> bytes:
        """See :meth:`Socket.peer_name`."""
        return _FROM_KERNEL

    def send(self, task: "Task", data: bytes, outgoing: Outgoing) -> int:
        """See :meth:`Socket.send`: each message of ``data`` is answered at once."""
        if outgoing.flags & MSG_OOB:
            raise GuestError(EOPNOTSUPP)
        if outgoing.destination and self._address(outgoing.destination):
            raise GuestError(ECONNREFUSED)
        if len(data) > self.options.send_buffer - 32:
            raise GuestError(EMSGSIZE)
        if not self.port:
            self._take_port(task, 0)
        at = 0
        while at + abi.NLMSGHDR.size <= len(data):
            length, kind, flags, sequence, _ = abi.NLMSGHDR.unpack_from(data, at)
            if not abi.NLMSGHDR.size <= length <= len(data) - at:
                break
            if flags & abi.NLM_F_REQUEST and kind >= abi.RTM_BASE:
                self._answer(data[at : at + length], kind, flags, sequence)
            at += (length + 3) & ~3
        return len(data)

    def _answer(self, request: bytes, kind: int, flags: int, sequence: int) -> None:
        body = request[abi.NLMSGHDR.size :]
        family = body[0] if body else 0
        error = 0
        if kind == abi.RTM_GETLINK:
            replies = [(abi.RTM_NEWLINK, link_message())]
        elif kind == abi.RTM_GETADDR and flags & abi.NLM_F_DUMP == abi.NLM_F_DUMP:
            replies = [(abi.RTM_NEWADDR, message) for message in address_messages(family)]
        elif kind == abi.RTM_GETROUTE and flags & abi.NLM_F_DUMP == abi.NLM_F_DUMP:
            replies = []
        else:
            # What asks has the numbers 2, 6, 10 ...; the others change something.
            replies, error = [], EOPNOTSUPP if kind & 3 == 2 else EPERM
        if error or not flags & abi.NLM_F_DUMP:
            if not error:
                self._reply(b"".join(self._message(reply, 0, sequence, data) for reply, data in replies))
            if error or flags & abi.NLM_F_ACK:
                head = request[: abi.NLMSGHDR.size]
                self._reply(self._message(abi.NLMSG_ERROR, 0, sequence, _ERROR.pack(-error) + head))
            return
        if replies:
            self._reply(b"".join(self._message(reply, abi.NLM_F_MULTI, sequence, data) for reply, data in replies))
        self._reply(self._message(abi.NLMSG_DONE, abi.NLM_F_MULTI, sequence, _ERROR.pack(0)))

    def _message(self, kind: int, flags: int, sequence: int, data: bytes) -> bytes:
        return abi.NLMSGHDR.pack(abi.NLMSGHDR.size + len(data), kind, flags, sequence, self.port) + data

    def _reply(self, data: bytes) -> None:
        message = Message(data, _FROM_KERNEL)
        if self.queue.charged + message.charge <= self.options.receive_buffer:
            self.queue.push(message)
            self.changed.wake()

    def receive(self, task: "Task", count: int, flags: int) -> Received:
        """See :meth:`Socket.receive`."""
        if flags & (MSG_OOB | MSG_ERRQUEUE):
            raise GuestError(EOPNOTSUPP if flags & MSG_OOB else EAGAIN)
        if not self.queue:
            self.wait_to_receive(task, flags)
        message = self.queue.first() if flags & MSG_PEEK else self.queue.pop()
        told = MSG_TRUNC if len(message.data) > count else 0
        return Received(bytes(message.data[:count]), told, len(message.data), message.source)

    def poll(self) -> int:
        """See :meth:`Socket.poll`."""
        return super().poll() | POLLOUT | POLLWRNORM | POLLWRBAND

    def set_option(self, task: "Task", level: int, option: int, data: bytes) -> None:
        """See :meth:`Socket.set_option`: those of netlink change how errors are told, which nothing here needs."""
        if level != SOL_NETLINK:
            super().set_option(task, level, option, data)
