"""The only network interface of a sandbox, ``lo``, as netdevice(7) and rtnetlink(7) tell of it."""

import struct
from errno import EINVAL, ENODEV, ENOTTY
from typing import TYPE_CHECKING

from pyvmm.linux.abi import netlink as abi
from pyvmm.linux.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    ARPHRD_LOOPBACK,
    IFF_LOOPBACK,
    IFF_LOWER_UP,
    IFF_RUNNING,
    IFF_UP,
    IFNAMSIZ,
    IFREQ_SIZE,
    LOOPBACK_INDEX,
    LOOPBACK_MTU,
    SIOCGIFADDR,
    SIOCGIFCONF,
    SIOCGIFFLAGS,
    SIOCGIFHWADDR,
    SIOCGIFINDEX,
    SIOCGIFMTU,
    SIOCGIFNAME,
    SIOCGIFNETMASK,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.addresses import LOOPBACK4, LOOPBACK6, Endpoint, inet_address

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_NAME = b"lo"
_FLAGS = IFF_UP | IFF_LOOPBACK | IFF_RUNNING
_NETMASK4 = b"\xff\0\0\0"
_INT = struct.Struct("<i")
#: ``struct ifconf``: length, address of the buffer.
_IFCONF = struct.Struct("<i4xQ")

_ANSWERS = {
    SIOCGIFINDEX: _INT.pack(LOOPBACK_INDEX),
    SIOCGIFFLAGS: _FLAGS.to_bytes(2, "little"),
    SIOCGIFMTU: _INT.pack(LOOPBACK_MTU),
    SIOCGIFADDR: inet_address(AF_INET, Endpoint(LOOPBACK4, 0)),
    SIOCGIFNETMASK: inet_address(AF_INET, Endpoint(_NETMASK4, 0)),
    SIOCGIFHWADDR: ARPHRD_LOOPBACK.to_bytes(2, "little") + bytes(14),
}


def interface_ioctl(task: "Task", request: int, argument: int) -> int:
    """The requests of netdevice(7) that ask; ENOTTY for all others, ENODEV for another interface."""
    if request == SIOCGIFCONF:
        return _configuration(task, argument)
    if request != SIOCGIFNAME and request not in _ANSWERS:
        raise GuestError(ENOTTY)
    asked = task.mem.read(argument, IFREQ_SIZE)
    if request == SIOCGIFNAME:
        if _INT.unpack_from(asked, IFNAMSIZ)[0] != LOOPBACK_INDEX:
            raise GuestError(ENODEV)
        task.mem.write(argument, _NAME.ljust(IFNAMSIZ, b"\0"))
        return 0
    if asked[:IFNAMSIZ].split(b"\0")[0] != _NAME:
        raise GuestError(ENODEV)
    task.mem.write(argument + IFNAMSIZ, _ANSWERS[request])
    return 0


def _configuration(task: "Task", argument: int) -> int:
    """SIOCGIFCONF: the interfaces that have an IPv4 address."""
    room, buffer = _IFCONF.unpack(task.mem.read(argument, _IFCONF.size))
    if room < 0:
        raise GuestError(EINVAL)
    entry = (_NAME.ljust(IFNAMSIZ, b"\0") + _ANSWERS[SIOCGIFADDR]).ljust(IFREQ_SIZE, b"\0")
    used = IFREQ_SIZE
    if buffer:
        used = IFREQ_SIZE if room >= IFREQ_SIZE else 0
        task.mem.write(buffer, entry[:used])
    task.mem.write(argument, _INT.pack(used))
    return 0


# ------------------------------------------------------------------------------------------------------------ netlink


def link_message() -> bytes:
    """RTM_NEWLINK: ``struct ifinfomsg`` and attributes."""
    head = abi.IFINFOMSG.pack(AF_UNSPEC, ARPHRD_LOOPBACK, LOOPBACK_INDEX, _FLAGS | IFF_LOWER_UP, 0)
    return head + b"".join(
        (
            _attribute(abi.IFLA_IFNAME, _NAME + b"\0"),
            _attribute(abi.IFLA_TXQLEN, _INT.pack(1000)),
            _attribute(abi.IFLA_OPERSTATE, b"\0"),
            _attribute(abi.IFLA_LINKMODE, b"\0"),
            _attribute(abi.IFLA_MTU, _INT.pack(LOOPBACK_MTU)),
            _attribute(abi.IFLA_QDISC, b"noqueue\0"),
            _attribute(abi.IFLA_ADDRESS, bytes(6)),
            _attribute(abi.IFLA_BROADCAST, bytes(6)),
        )
    )


def address_messages(family: int) -> list[bytes]:
    """RTM_NEWADDR: ``struct ifaddrmsg`` and attributes, for each address of ``family`` (AF_UNSPEC: of all)."""
    messages = []
    for known, ip, prefix in ((AF_INET, LOOPBACK4, 8), (AF_INET6, LOOPBACK6, 128)):
        if family not in (AF_UNSPEC, known):
            continue
        head = abi.IFADDRMSG.pack(known, prefix, abi.IFA_F_PERMANENT, abi.RT_SCOPE_HOST, LOOPBACK_INDEX)
        attributes = _attribute(abi.IFA_ADDRESS, ip)
        if known == AF_INET:
            attributes += _attribute(abi.IFA_LOCAL, ip) + _attribute(abi.IFA_LABEL, _NAME + b"\0")
        messages.append(head + attributes + _attribute(abi.IFA_FLAGS, _INT.pack(abi.IFA_F_PERMANENT)))
    return messages


def _attribute(kind: int, data: bytes) -> bytes:
    """``struct rtattr``."""
    length = abi.RTATTR.size + len(data)
    return (abi.RTATTR.pack(length, kind) + data).ljust((length + 3) & ~3, b"\0")
