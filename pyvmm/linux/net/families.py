"""Making sockets: which families, types and protocols there are, and how the others are refused."""

from collections.abc import Callable
from errno import EACCES, EAFNOSUPPORT, EINVAL, EOPNOTSUPP, EPERM, EPROTONOSUPPORT, ESOCKTNOSUPPORT
from typing import TYPE_CHECKING

from pyvmm.linux.abi.netlink import NETLINK_MAX, NETLINK_ROUTE
from pyvmm.linux.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_MAX,
    AF_NETLINK,
    AF_PACKET,
    AF_UNIX,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_MAX,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
    SOCK_DGRAM,
    SOCK_MAX,
    SOCK_RAW,
    SOCK_SEQPACKET,
    SOCK_STREAM,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.netlink import NetlinkSocket
from pyvmm.linux.net.network import Network
from pyvmm.linux.net.tcp import TcpSocket
from pyvmm.linux.net.udp import UdpSocket
from pyvmm.linux.net.unix import UnixSocket
from pyvmm.linux.net.unix_datagram import UnixDatagram, UnixSeqpacket
from pyvmm.linux.net.unix_stream import UnixStream

if TYPE_CHECKING:
    from pyvmm.linux.net.socket import Socket
    from pyvmm.linux.task import Task

Maker = Callable[[Network, int, int, int, int], "Socket"]

_UNIX: dict[int, type[UnixSocket]] = {
    SOCK_STREAM: UnixStream, SOCK_DGRAM: UnixDatagram, SOCK_RAW: UnixDatagram, SOCK_SEQPACKET: UnixSeqpacket,
}  # fmt: skip
_INET: dict[int, tuple[int, Maker]] = {SOCK_STREAM: (IPPROTO_TCP, TcpSocket), SOCK_DGRAM: (IPPROTO_UDP, UdpSocket)}


def make_socket(task: "Task", domain: int, kind: int, protocol: int) -> "Socket":
    """``__sock_create()`` as an unprivileged user sees it."""
    if not 0 <= domain < AF_MAX:
        raise GuestError(EAFNOSUPPORT)
    if not 0 <= kind < SOCK_MAX:
        raise GuestError(EINVAL)
    network, uid = task.kernel.network, task.creds.euid
    if domain == AF_UNIX:
        return _make_unix(network, kind, protocol, uid)
    if domain in (AF_INET, AF_INET6):
        return _make_inet(network, domain, kind, protocol, uid)
    if domain == AF_NETLINK:
        if kind not in (SOCK_RAW, SOCK_DGRAM):
            raise GuestError(ESOCKTNOSUPPORT)
        if not 0 <= protocol < NETLINK_MAX or protocol != NETLINK_ROUTE:
            raise GuestError(EPROTONOSUPPORT)
        return NetlinkSocket(network, domain, kind, protocol, uid)
    raise GuestError(EPERM if domain == AF_PACKET else EAFNOSUPPORT)


def _make_unix(network: Network, kind: int, protocol: int, uid: int) -> UnixSocket:
    if protocol not in (0, AF_UNIX):
        raise GuestError(EPROTONOSUPPORT)
    made = _UNIX.get(kind)
    if made is None:
        raise GuestError(ESOCKTNOSUPPORT)
    return made(network, AF_UNIX, SOCK_DGRAM if kind == SOCK_RAW else kind, 0, uid)


def _make_inet(network: Network, domain: int, kind: int, protocol: int, uid: int) -> "Socket":
    if not 0 <= protocol < IPPROTO_MAX:
        raise GuestError(EINVAL)
    if kind == SOCK_RAW:
        raise GuestError(EPERM if protocol else EPROTONOSUPPORT)
    known = _INET.get(kind)
    if known is None:
        raise GuestError(ESOCKTNOSUPPORT)
    usual, make = known
    if kind == SOCK_DGRAM and protocol == (IPPROTO_ICMP if domain == AF_INET else IPPROTO_ICMPV6):
        # ``net.ipv4.ping_group_range`` is empty.
        raise GuestError(EACCES)
    if protocol not in (0, usual) and (kind, protocol) != (SOCK_DGRAM, IPPROTO_UDPLITE):
        raise GuestError(EPROTONOSUPPORT)
    return make(network, domain, kind, protocol or usual, uid)


def make_pair(task: "Task", domain: int, kind: int, protocol: int) -> tuple[UnixSocket, UnixSocket]:
    """Two connected sockets; only AF_UNIX knows how (EOPNOTSUPP)."""
    one = make_socket(task, domain, kind, protocol)
    if not isinstance(one, UnixSocket):
        one.close()
        raise GuestError(EOPNOTSUPP)
    try:
        other = type(one)(one.network, one.domain, one.type, one.protocol, one.uid)
    except GuestError:
        one.close()
        raise
    one.pair_with(other, task)
    return one, other
