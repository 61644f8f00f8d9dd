"""What TCP and UDP sockets have in common: addresses, ports, and the options of ip(7) and ipv6(7)."""

from abc import abstractmethod
from errno import (
    EACCES,
    EAFNOSUPPORT,
    EINVAL,
    ENETUNREACH,
    ENOPROTOOPT,
    ENOTCONN,
    EOPNOTSUPP,
    EPERM,
)
from typing import TYPE_CHECKING

from pyvmm.linux.abi import socket as abi
from pyvmm.linux.abi.socket import AF_INET, AF_INET6, AF_UNSPEC, SO_BROADCAST, SOL_IP, SOL_IPV6, SOL_SOCKET
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net import multicast
from pyvmm.linux.net.addresses import (
    ANY4,
    ANY6,
    LOOPBACK4,
    LOOPBACK6,
    Endpoint,
    family_of,
    inet_address,
    parse_endpoint,
)
from pyvmm.linux.net.multicast import Multicast
from pyvmm.linux.net.network import Network
from pyvmm.linux.net.options import integer, pack_integer
from pyvmm.linux.net.ports import PortTable
from pyvmm.linux.net.socket import Socket

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_BROADCAST = b"\xff\xff\xff\xff"
#: Options that are kept and given back: default, lowest and highest value.
_IP_OPTIONS = {
    abi.IP_TOS: (0, 0, 255), abi.IP_TTL: (64, 1, 255), abi.IP_HDRINCL: (0, 0, 1), abi.IP_PKTINFO: (0, 0, 1),
    abi.IP_RECVOPTS: (0, 0, 1), abi.IP_RETOPTS: (0, 0, 1), abi.IP_MTU_DISCOVER: (1, 0, 5), abi.IP_RECVERR: (0, 0, 1),
    abi.IP_RECVTTL: (0, 0, 1), abi.IP_RECVTOS: (0, 0, 1), abi.IP_FREEBIND: (0, 0, 1), abi.IP_MINTTL: (0, 0, 255),
    abi.IP_BIND_ADDRESS_NO_PORT: (0, 0, 1), abi.IP_MULTICAST_TTL: (1, 0, 255), abi.IP_MULTICAST_LOOP: (1, 0, 1),
    abi.IP_MULTICAST_ALL: (1, 0, 1),
}  # fmt: skip
_IPV6_OPTIONS = {
    abi.IPV6_UNICAST_HOPS: (64, 0, 255), abi.IPV6_MULTICAST_HOPS: (1, 0, 255), abi.IPV6_MULTICAST_LOOP: (1, 0, 1),
    abi.IPV6_MTU_DISCOVER: (1, 0, 5), abi.IPV6_RECVERR: (0, 0, 1),
    abi.IPV6_RECVPKTINFO: (0, 0, 1), abi.IPV6_RECVHOPLIMIT: (0, 0, 1), abi.IPV6_RECVTCLASS: (0, 0, 1),
    abi.IPV6_TCLASS: (0, 0, 255), abi.IPV6_DONTFRAG: (0, 0, 1), abi.IPV6_V6ONLY: (0, 0, 1),
}  # fmt: skip
#: A value of -1 means the default.
_DEFAULT_BY_MINUS_ONE = frozenset(
    {
        (SOL_IP, abi.IP_TTL), (SOL_IP, abi.IP_MULTICAST_TTL), (SOL_IPV6, abi.IPV6_UNICAST_HOPS),
        (SOL_IPV6, abi.IPV6_MULTICAST_HOPS), (SOL_IPV6, abi.IPV6_TCLASS),
    }
)  # fmt: skip
#: ``INET_ECN_MASK``: what TCP itself says in the traffic class.
_ECN_MASK = 3
_NOT_OF_STREAMS = {(SOL_IP, abi.IP_MULTICAST_TTL): EINVAL, (SOL_IPV6, abi.IPV6_MULTICAST_HOPS): ENOPROTOOPT}


class InetSocket(Socket):
    """A socket with a port."""

    def __init__(self, network: Network, domain: int, kind: int, protocol: int, uid: int) -> None:
        super().__init__(network, domain, kind, protocol, uid)
        self.local: Endpoint | None = None
        self.remote: Endpoint | None = None
        #: Whether the program chose the address itself.
        self.is_bound = False
        self.ip_options: dict[tuple[int, int], int] = {}
        self.multicast = Multicast()

    @property
    @abstractmethod
    def ports(self) -> PortTable:
        """The ports of its protocol."""

    @property
    def v6_only(self) -> bool:
        """IPV6_V6ONLY."""
        return bool(self.ip_options.get((SOL_IPV6, abi.IPV6_V6ONLY)))

    @property
    def any_ip(self) -> bytes:
        """The address of who has not chosen one."""
        return ANY4 if self.domain == AF_INET else ANY6

    # ------------------------------------------------------------------------------------------------------- addresses

    def bind(self, task: "Task", address: bytes) -> None:
        """See :meth:`Socket.bind`."""
        if self.domain == AF_INET and len(address) >= 16 and family_of(address) == AF_UNSPEC:
            # ``__inet_bind()``: old programs leave the family out.
            if address[4:8] != ANY4:
                raise GuestError(EAFNOSUPPORT)
            address = AF_INET.to_bytes(2, "little") + address[2:]
        local = parse_endpoint(self.domain, address)
        if len(local.ip) == 4 and self.v6_only:
            raise GuestError(EINVAL)
        if self.local is not None or not self.may_bind:
            raise GuestError(EINVAL)
        self.local = self.ports.bind(self, local, task.creds.euid)
        self.is_bound = True

    @property
    def may_bind(self) -> bool:
        """Whether its state allows an address to be chosen."""
        return True

    def bind_source(self, ip: bytes | None = None) -> Endpoint:
        """Have a port, by now at the latest; the local end."""
        if self.local is None:
            self.local = self.ports.bind_source(self, ip or self.any_ip)
        return self.local

    def release_port(self) -> None:
        """Have no port any more."""
        if self.local is not None:
            self.ports.remove(self, self.local.port)
            self.local = None
            self.is_bound = False

    def route(self, address: bytes) -> Endpoint:
        """Where a packet to ``address`` goes: ENETUNREACH for all that is not this sandbox."""
        target = parse_endpoint(self.domain, address)
        if target.is_any:
            ip = LOOPBACK4 if len(target.ip) == 4 or (self.local and len(self.local.ip) == 4) else LOOPBACK6
            target = Endpoint(ip, target.port)
        if target.ip == _BROADCAST and not self.options.others.get(SO_BROADCAST) and self.type == abi.SOCK_DGRAM:
            raise GuestError(EACCES)
        is_four = len(target.ip) == 4
        if target.is_multicast and is_four and self.type == abi.SOCK_DGRAM and multicast.reaches_groups(self):
            return target
        if not target.is_loopback or (is_four and self.v6_only):
            raise GuestError(ENETUNREACH)
        local = self.local
        if local is not None and len(local.ip) != len(target.ip) and not (local.is_any and is_four):
            raise GuestError(ENETUNREACH)
        return target

    def source_for(self, target: Endpoint) -> Endpoint:
        """The address that packets to ``target`` bear."""
        local = self.bind_source()
        if local.is_any or local.is_multicast:
            return Endpoint(LOOPBACK4 if len(target.ip) == 4 else LOOPBACK6, local.port)
        return local

    def local_name(self) -> bytes:
        """See :meth:`Socket.local_name`."""
        return inet_address(self.domain, self.local or Endpoint(self.any_ip, 0))

    def peer_name(self) -> bytes:
        """See :meth:`Socket.peer_name`."""
        if self.remote is None:
            raise GuestError(ENOTCONN)
        return inet_address(self.domain, self.remote)

    # --------------------------------------------------------------------------------------------------------- options

    def set_option(self, task: "Task", level: int, option: int, data: bytes) -> None:
        """See :meth:`Socket.set_option`."""
        if level not in (SOL_IP, SOL_IPV6):
            return super().set_option(task, level, option, data)
        if level == SOL_IPV6 and self.domain != AF_INET6:
            raise GuestError(ENOPROTOOPT)
        key = (level, option)
        if key in multicast.OPTIONS:
            return multicast.set_option(self, level, option, data)
        if level == SOL_IP and option in (abi.IP_TRANSPARENT, abi.IP_HDRINCL):
            raise GuestError(EPERM if option == abi.IP_TRANSPARENT else ENOPROTOOPT)
        known = (_IP_OPTIONS if level == SOL_IP else _IPV6_OPTIONS).get(option)
        if known is None:
            raise GuestError(ENOPROTOOPT)
        default, lowest, highest = known
        is_stream = self.type == abi.SOCK_STREAM
        if is_stream and key in _NOT_OF_STREAMS:
            raise GuestError(_NOT_OF_STREAMS[key])
        value = data[0] if level == SOL_IP and 1 <= len(data) < 4 else integer(data)
        if value == -1 and key in _DEFAULT_BY_MINUS_ONE:
            value = default
        if (lowest, highest) == (0, 1) and key != (SOL_IPV6, abi.IPV6_MULTICAST_LOOP):
            value = int(bool(value))
        if key == (SOL_IP, abi.IP_TOS):
            value &= 0xFF
        if is_stream and key in ((SOL_IP, abi.IP_TOS), (SOL_IPV6, abi.IPV6_TCLASS)):
            value &= ~_ECN_MASK
        if not lowest <= value <= highest:
            raise GuestError(EINVAL)
        if key == (SOL_IPV6, abi.IPV6_V6ONLY) and self.local is not None:
            raise GuestError(EINVAL)
        self.ip_options[key] = value
        return None

    def get_option(self, task: "Task", level: int, option: int) -> bytes:
        """See :meth:`Socket.get_option`."""
        if level == SOL_SOCKET:
            return super().get_option(task, level, option)
        if level not in (SOL_IP, SOL_IPV6) or (level == SOL_IPV6 and self.domain != AF_INET6):
            raise GuestError(EOPNOTSUPP if self.domain == AF_INET else ENOPROTOOPT)
        if (level, option) in ((SOL_IP, abi.IP_MTU), (SOL_IPV6, abi.IPV6_MTU)):
            if self.remote is None:
                raise GuestError(ENOTCONN)
            return pack_integer(abi.LOOPBACK_MTU)
        if (level, option) in ((SOL_IP, abi.IP_MULTICAST_IF), (SOL_IP, abi.IP_OPTIONS)):
            return self.multicast.address if option == abi.IP_MULTICAST_IF else b""
        if (level, option) == (SOL_IPV6, abi.IPV6_MULTICAST_IF):
            return pack_integer(self.multicast.interface6)
        known = (_IP_OPTIONS if level == SOL_IP else _IPV6_OPTIONS).get(option)
        if known is None or (level == SOL_IP and option == abi.IP_HDRINCL):
            raise GuestError(ENOPROTOOPT)
        return pack_integer(self.ip_options.get((level, option), known[0]))

    def close(self) -> None:
        """See :meth:`Socket.close`."""
        self.release_port()
        multicast.leave_all(self)
        super().close()
