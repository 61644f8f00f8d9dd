"""Multicast groups (ip(7), ipv6(7), ``net/ipv4/igmp.c``): memberships of the only interface, ``lo``.

No route leads to a group. A socket reaches those of IPv4 if it has chosen ``lo`` (IP_MULTICAST_IF, or a local address
of it); those of IPv6 nobody reaches.
"""

from dataclasses import dataclass, field
from errno import EADDRINUSE, EADDRNOTAVAIL, EINVAL, ENOBUFS, ENODEV, ENOPROTOOPT, EPROTO
from typing import TYPE_CHECKING

from pyvmm.linux.abi import socket as abi
from pyvmm.linux.abi.socket import AF_INET, AF_INET6, LOOPBACK_INDEX, SOL_IP, SOL_IPV6
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.addresses import ANY4, Endpoint

if TYPE_CHECKING:
    from pyvmm.linux.net.inet import InetSocket

#: All hosts are always in it.
_ALL_HOSTS = b"\xe0\0\0\x01"
#: ``net.ipv4.igmp_max_memberships``; and what one costs the sandbox, of which IPv6 allows many.
_MEMBERSHIPS_MAX = 20
_MEMBERSHIP_COST = 256

#: Options that :func:`set_option` knows.
OPTIONS = frozenset(
    {
        (SOL_IP, abi.IP_ADD_MEMBERSHIP), (SOL_IP, abi.IP_DROP_MEMBERSHIP), (SOL_IP, abi.IP_MULTICAST_IF),
        (SOL_IPV6, abi.IPV6_JOIN_GROUP), (SOL_IPV6, abi.IPV6_LEAVE_GROUP), (SOL_IPV6, abi.IPV6_MULTICAST_IF),
        (SOL_IP, abi.MCAST_JOIN_GROUP), (SOL_IP, abi.MCAST_LEAVE_GROUP),
        (SOL_IPV6, abi.MCAST_JOIN_GROUP), (SOL_IPV6, abi.MCAST_LEAVE_GROUP),
    }
)  # fmt: skip
_JOINS = frozenset({(SOL_IP, abi.IP_ADD_MEMBERSHIP), (SOL_IPV6, abi.IPV6_JOIN_GROUP)})


@dataclass(slots=True)
class Multicast:
    """What a socket has to do with groups."""

    #: Group -> the address by which its interface was named.
    groups: dict[bytes, bytes] = field(default_factory=dict)
    #: IP_MULTICAST_IF, IPV6_MULTICAST_IF: an index (0: none), and an address.
    interface: int = 0
    address: bytes = ANY4
    interface6: int = 0


def set_option(socket: "InetSocket", level: int, option: int, data: bytes) -> None:
    """setsockopt(2) with one of :data:`OPTIONS`."""
    if option == abi.IP_MULTICAST_IF and level == SOL_IP:
        _choose_interface(socket, data)
    elif option == abi.IPV6_MULTICAST_IF and level == SOL_IPV6:
        _choose_interface6(socket, data)
    else:
        if socket.type == abi.SOCK_STREAM:
            raise GuestError(EPROTO)
        joins = (level, option) in _JOINS or option == abi.MCAST_JOIN_GROUP
        if option in (abi.MCAST_JOIN_GROUP, abi.MCAST_LEAVE_GROUP):
            group, address, index = _read_group(level, data)
        elif level == SOL_IP:
            group, address, index = _read_membership(data)
        else:
            if len(data) < abi.IPV6_MREQ.size:
                raise GuestError(EINVAL)
            group, index = abi.IPV6_MREQ.unpack_from(data)
            address = b""
        change = _join if joins else _leave
        change(socket, group, address, index)


def _read_membership(data: bytes) -> tuple[bytes, bytes, int]:
    """``struct ip_mreqn``, or one of the shorter ones: group, address and index of the interface."""
    if len(data) < abi.IP_MREQ_SIZE:
        raise GuestError(EINVAL)
    return data[:4], data[4:8], int.from_bytes(data[8:12], "little") if len(data) >= abi.IP_MREQN_SIZE else 0


def _read_group(level: int, data: bytes) -> tuple[bytes, bytes, int]:
    """``struct group_req``."""
    if len(data) < abi.GROUP_REQ_SIZE:
        raise GuestError(EINVAL)
    family = int.from_bytes(data[8:10], "little")
    if family != (AF_INET if level == SOL_IP else AF_INET6):
        raise GuestError(EINVAL if level == SOL_IP else EADDRNOTAVAIL)
    group, address = (data[12:16], ANY4) if level == SOL_IP else (data[16:32], b"")
    return group, address, int.from_bytes(data[:4], "little")


def _is_loopback(address: bytes) -> bool:
    return address[0] == 127


def _join(socket: "InetSocket", group: bytes, address: bytes, index: int) -> None:
    """``__ip_mc_join_group()``, ``__ipv6_sock_mc_join()``."""
    if not Endpoint(group, 0).is_multicast:
        raise GuestError(EINVAL)
    if index != LOOPBACK_INDEX and (index or not address or not _is_loopback(address)):
        raise GuestError(ENODEV)
    groups = socket.multicast.groups
    if group in groups:
        raise GuestError(EADDRINUSE)
    if len(group) == 4 and sum(len(each) == 4 for each in groups) >= _MEMBERSHIPS_MAX:
        raise GuestError(ENOBUFS)
    socket.network.take(_MEMBERSHIP_COST)
    groups[group] = address
    socket.network.groups[group] += 1


def _leave(socket: "InetSocket", group: bytes, address: bytes, index: int) -> None:
    """``ip_mc_leave_group()``, ``__ipv6_sock_mc_drop()``."""
    if address == ANY4 and not index:
        raise GuestError(ENODEV)
    if len(group) == 16 and not Endpoint(group, 0).is_multicast:
        raise GuestError(EINVAL)
    joined = socket.multicast.groups.get(group)
    if joined is None or index not in (0, LOOPBACK_INDEX) or (not index and address != joined):
        raise GuestError(EADDRNOTAVAIL)
    _forget(socket, group)


def _forget(socket: "InetSocket", group: bytes) -> None:
    del socket.multicast.groups[group]
    network = socket.network
    network.take(-_MEMBERSHIP_COST)
    network.groups[group] -= 1
    if not network.groups[group]:
        del network.groups[group]


def leave_all(socket: "InetSocket") -> None:
    """The socket is closed."""
    for group in tuple(socket.multicast.groups):
        _forget(socket, group)


def _choose_interface(socket: "InetSocket", data: bytes) -> None:
    """IP_MULTICAST_IF: ``struct ip_mreqn``, ``ip_mreq`` or ``in_addr``."""
    if socket.type == abi.SOCK_STREAM or len(data) < 4:
        raise GuestError(EINVAL)
    address, index = data[:4], 0
    if len(data) >= abi.IP_MREQ_SIZE:
        _, address, index = _read_membership(data)
    if index != LOOPBACK_INDEX and (index or (address != ANY4 and not _is_loopback(address))):
        raise GuestError(EADDRNOTAVAIL)
    multicast = socket.multicast
    multicast.address = address
    multicast.interface = LOOPBACK_INDEX if index or address != ANY4 else 0


def _choose_interface6(socket: "InetSocket", data: bytes) -> None:
    """IPV6_MULTICAST_IF."""
    if socket.type == abi.SOCK_STREAM:
        raise GuestError(ENOPROTOOPT)
    if len(data) < 4:
        raise GuestError(EINVAL)
    index = int.from_bytes(data[:4], "little")
    if index not in (0, LOOPBACK_INDEX):
        raise GuestError(ENODEV)
    socket.multicast.interface6 = index


def reaches_groups(socket: "InetSocket") -> bool:
    """Whether what ``socket`` sends to a group of IPv4 has a way."""
    local = socket.local
    return bool(socket.multicast.interface) or (local is not None and len(local.ip) == 4 and local.is_loopback)


def hears(socket: "InetSocket", group: bytes) -> bool:
    """Whether a datagram to ``group`` is for ``socket``, whose address and port match: it is a member, or another
    socket is and it is content with that (IP_MULTICAST_ALL, at first only sockets of IPv4 are).
    """
    if group in socket.multicast.groups:
        return True
    is_joined = group == _ALL_HOSTS or group in socket.network.groups
    return is_joined and bool(socket.ip_options.get((SOL_IP, abi.IP_MULTICAST_ALL), socket.domain == AF_INET))
