"""Socket addresses as programs write them (unix(7), ip(7), ipv6(7)), and the addresses of a sandbox: its loopback
interface, and nothing else.
"""

from errno import EAFNOSUPPORT, EFAULT, EINVAL
from typing import TYPE_CHECKING, NamedTuple

from pyvmm.linux.abi.socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    AF_UNSPEC,
    SIN6_LEN_SHORT,
    SOCKADDR_IN,
    SOCKADDR_IN6,
    SOCKADDR_MAX,
    SOCKADDR_UN_MAX,
)
from pyvmm.linux.errors import GuestError

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

ANY4, ANY6 = bytes(4), bytes(16)
LOOPBACK4, LOOPBACK6 = b"\x7f\0\0\x01", bytes(15) + b"\x01"
_MAPPED = bytes(10) + b"\xff\xff"


class Endpoint(NamedTuple):
    """An IP address (4 or 16 bytes, an IPv4 one always in 4) and a port."""

    ip: bytes
    port: int

    @property
    def is_any(self) -> bool:
        """INADDR_ANY, in6addr_any."""
        return not any(self.ip)

    @property
    def is_loopback(self) -> bool:
        """Whether the loopback interface has it."""
        return self.ip == LOOPBACK6 if len(self.ip) == 16 else self.ip[0] == 127

    @property
    def is_multicast(self) -> bool:
        """Whether it names a group."""
        return self.ip[0] == 0xFF if len(self.ip) == 16 else self.ip[0] >> 4 == 14


def read_address(task: "Task", address: int, length: int) -> bytes:
    """A socket address of a program's (``move_addr_to_kernel()``): EINVAL, EFAULT."""
    if not 0 <= length <= SOCKADDR_MAX:
        raise GuestError(EINVAL)
    return task.mem.read(address, length) if length else b""


def write_address(task: "Task", data: bytes, address: int, length_at: int) -> None:
    """Give a program an address, cut to what it has room for, and tell the true length (``move_addr_to_user()``)."""
    room = int.from_bytes(task.mem.read(length_at, 4), "little", signed=True)
    if room < 0:
        raise GuestError(EINVAL)
    task.mem.write(address, data[:room])
    task.mem.write_u32(length_at, len(data))


def family_of(address: bytes) -> int:
    """``sa_family``; EINVAL if it is not there."""
    if len(address) < 2:
        raise GuestError(EINVAL)
    return int.from_bytes(address[:2], "little")


# --------------------------------------------------------------------------------------------------------------- unix


def unix_name(address: bytes) -> bytes:
    """What ``struct sockaddr_un`` names (``unix_validate_addr()``): an abstract name with its leading NUL, a path, or
    nothing (autobind).
    """
    if not 2 <= len(address) <= SOCKADDR_UN_MAX or family_of(address) != AF_UNIX:
        raise GuestError(EINVAL)
    name = address[2:]
    return name if name[:1] == b"\0" else name.split(b"\0")[0]


def unix_address(name: bytes) -> bytes:
    """``struct sockaddr_un``: paths are closed by a NUL, abstract names are not, and who has none has only a family."""
    return AF_UNIX.to_bytes(2, "little") + (name + b"\0" if name and name[0] else name)


# --------------------------------------------------------------------------------------------------------------- inet


def parse_endpoint(family: int, address: bytes) -> Endpoint:
    """Where an address of a socket of ``family`` points to: EINVAL, EAFNOSUPPORT. An IPv4-mapped address is the IPv4
    one.
    """
    if len(address) < (SOCKADDR_IN.size if family == AF_INET else SIN6_LEN_SHORT):
        raise GuestError(EINVAL)
    given = family_of(address)
    if given == AF_INET and len(address) >= SOCKADDR_IN.size and family == AF_INET:
        _, port, ip = SOCKADDR_IN.unpack_from(address)
        return Endpoint(ip, int.from_bytes(port, "big"))
    if given != family or family != AF_INET6:
        raise GuestError(EAFNOSUPPORT)
    _, port, _, ip, _ = SOCKADDR_IN6.unpack_from(address.ljust(SOCKADDR_IN6.size, b"\0"))
    if ip[:12] == _MAPPED:
        ip = ip[12:]
    return Endpoint(ip, int.from_bytes(port, "big"))


def is_unspecified(address: bytes) -> bool:
    """AF_UNSPEC: disconnect."""
    return family_of(address) == AF_UNSPEC


def inet_address(family: int, endpoint: Endpoint) -> bytes:
    """``struct sockaddr_in`` or ``sockaddr_in6``, as a socket of ``family`` shows an endpoint."""
    port = endpoint.port.to_bytes(2, "big")
    if family == AF_INET:
        return SOCKADDR_IN.pack(AF_INET, port, endpoint.ip)
    ip = endpoint.ip
    if len(ip) == 4:
        ip = _MAPPED + ip if any(ip) else ANY6
    return SOCKADDR_IN6.pack(AF_INET6, port, bytes(4), ip, 0)


def check_writable(task: "Task", address: int, count: int) -> None:
    """EFAULT unless ``count`` bytes can be written: for calls that must not fail after they have done something."""
    if task.mem.writable(address, count) < count:
        raise GuestError(EFAULT)
