"""Socket options of level SOL_SOCKET (socket(7)), and how options are read and written."""

from dataclasses import dataclass, field
from errno import EACCES, EDOM, EINVAL, ENODEV, ENOPROTOOPT, ENOTCONN, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING

from pyvmm.linux.abi.socket import (
    AF_UNIX,
    LINGER,
    SO_ACCEPTCONN,
    SO_ATTACH_FILTER,
    SO_BINDTODEVICE,
    SO_BPF_EXTENSIONS,
    SO_BROADCAST,
    SO_BSDCOMPAT,
    SO_BUSY_POLL,
    SO_COOKIE,
    SO_DEBUG,
    SO_DOMAIN,
    SO_DONTROUTE,
    SO_ERROR,
    SO_INCOMING_CPU,
    SO_KEEPALIVE,
    SO_LINGER,
    SO_LOCK_FILTER,
    SO_MARK,
    SO_MAX_PACING_RATE,
    SO_NO_CHECK,
    SO_NOFCS,
    SO_OOBINLINE,
    SO_PASSCRED,
    SO_PASSSEC,
    SO_PEEK_OFF,
    SO_PEERCRED,
    SO_PEERGROUPS,
    SO_PEERNAME,
    SO_PRIORITY,
    SO_PROTOCOL,
    SO_RCVBUF,
    SO_RCVBUFFORCE,
    SO_RCVLOWAT,
    SO_RCVTIMEO,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SO_RXQ_OVFL,
    SO_SELECT_ERR_QUEUE,
    SO_SNDBUF,
    SO_SNDBUFFORCE,
    SO_SNDLOWAT,
    SO_SNDTIMEO,
    SO_TIMESTAMP,
    SO_TIMESTAMPING,
    SO_TIMESTAMPNS,
    SO_TYPE,
    SO_WIFI_STATUS,
    SO_ZEROCOPY,
    TIMEVAL,
    UCRED,
)
from pyvmm.linux.errors import GuestError

if TYPE_CHECKING:
    from pyvmm.linux.net.socket import Socket
    from pyvmm.linux.task import Task

#: ``net.core.wmem_max`` and ``rmem_max``, and their defaults.
BUFFER_MAX = 212_992
_SNDBUF_MIN, _RCVBUF_MIN = 4608, 2304
_SECOND, _MICROSECOND = 1_000_000_000, 1000
#: ``SKF_AD_MAX``.
_BPF_EXTENSIONS = 64
_INT_MAX = (1 << 31) - 1

#: Options that are kept and given back as 0 or 1; they change nothing here.
_BOOLEANS = frozenset(
    {
        SO_BROADCAST, SO_DONTROUTE, SO_KEEPALIVE, SO_NO_CHECK, SO_NOFCS, SO_OOBINLINE, SO_PASSSEC, SO_RXQ_OVFL,
        SO_SELECT_ERR_QUEUE, SO_WIFI_STATUS, SO_TIMESTAMP, SO_TIMESTAMPNS, SO_LOCK_FILTER,
    }
)  # fmt: skip
#: Options that can be asked, not set.
_READ_ONLY = frozenset({SO_TYPE, SO_PROTOCOL, SO_DOMAIN, SO_ERROR, SO_ACCEPTCONN, SO_SNDLOWAT, SO_PEERCRED, SO_COOKIE})
#: ... and those that only an administrator sets.
_PRIVILEGED = frozenset({SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_MARK, SO_BUSY_POLL})


@dataclass(slots=True)
class SocketOptions:
    """The options that something here asks for, and the values of all others by number."""

    send_buffer: int = BUFFER_MAX
    receive_buffer: int = BUFFER_MAX
    #: Whether the program has set them itself.
    send_buffer_set: bool = False
    receive_buffer_set: bool = False
    reuse_address: bool = False
    reuse_port: bool = False
    pass_credentials: bool = False
    #: (on, seconds).
    linger: tuple[int, int] = (0, 0)
    #: Nanoseconds; None: for ever.
    receive_timeout: int | None = None
    send_timeout: int | None = None
    others: dict[int, int] = field(default_factory=dict)

    def copy(self) -> "SocketOptions":
        """What a socket that is accepted has of its listener."""
        return SocketOptions(
            self.send_buffer, self.receive_buffer, self.send_buffer_set, self.receive_buffer_set, self.reuse_address,
            self.reuse_port, self.pass_credentials, self.linger, self.receive_timeout, self.send_timeout,
            dict(self.others),
        )  # fmt: skip


def integer(data: bytes) -> int:
    """An option's value as an int: EINVAL if it is too short."""
    if len(data) < 4:
        raise GuestError(EINVAL)
    return int.from_bytes(data[:4], "little", signed=True)


def pack_integer(value: int) -> bytes:
    """An int, as getsockopt gives it."""
    return (value & 0xFFFF_FFFF).to_bytes(4, "little")


def set_option(socket: "Socket", task: "Task", option: int, data: bytes) -> None:
    """``sk_setsockopt()``."""
    options = socket.options
    if option == SO_BINDTODEVICE:
        name = data[:15].split(b"\0")[0]
        if name not in (b"", b"lo"):
            raise GuestError(ENODEV)
        return
    value = integer(data)
    if option == SO_REUSEADDR:
        options.reuse_address = bool(value)
    elif option == SO_REUSEPORT:
        if value and socket.domain == AF_UNIX:
            raise GuestError(EOPNOTSUPP)
        options.reuse_port = bool(value)
    elif option == SO_PASSCRED:
        if socket.domain != AF_UNIX and value:
            raise GuestError(EOPNOTSUPP)
        options.pass_credentials = bool(value)
    elif option == SO_SNDBUF:
        options.send_buffer = max(min(value & 0xFFFF_FFFF, BUFFER_MAX) * 2, _SNDBUF_MIN)
        options.send_buffer_set = True
        socket.changed.wake()
    elif option == SO_RCVBUF:
        options.receive_buffer = max(min(value & 0xFFFF_FFFF, BUFFER_MAX) * 2, _RCVBUF_MIN)
        options.receive_buffer_set = True
    elif option == SO_LINGER:
        if len(data) < LINGER.size:
            raise GuestError(EINVAL)
        on, seconds = LINGER.unpack_from(data)
        options.linger = (int(bool(on)), seconds if on else options.linger[1])
    elif option == SO_RCVTIMEO:
        options.receive_timeout = _timeout(data)
    elif option == SO_SNDTIMEO:
        options.send_timeout = _timeout(data)
    else:
        _set_rare(socket, task, option, value)


def _set_rare(socket: "Socket", task: "Task", option: int, value: int) -> None:
    others = socket.options.others
    if option in _BOOLEANS:
        others[option] = int(bool(value))
    elif option == SO_DEBUG:
        if value and task.creds.euid:
            raise GuestError(EACCES)
    elif option == SO_PRIORITY:
        if not 0 <= value <= 6 and task.creds.euid:
            raise GuestError(EPERM)
        others[option] = value
    elif option == SO_RCVLOWAT:
        others[option] = (_INT_MAX if value < 0 else value) or 1
    elif option == SO_PEEK_OFF:
        if value >= 0 or socket.domain != AF_UNIX:
            raise GuestError(EOPNOTSUPP)
    elif option in (SO_TIMESTAMPING, SO_INCOMING_CPU, SO_MAX_PACING_RATE):
        others[option] = value
    elif option == SO_ZEROCOPY:
        if socket.domain == AF_UNIX:
            raise GuestError(EOPNOTSUPP)
        if value not in (0, 1):
            raise GuestError(EINVAL)
        others[option] = value
    elif option in _PRIVILEGED:
        raise GuestError(EPERM)
    elif option == SO_ATTACH_FILTER:
        raise GuestError(EINVAL)
    elif option != SO_BSDCOMPAT:
        raise GuestError(ENOPROTOOPT)


def get_option(socket: "Socket", task: "Task", option: int) -> bytes:
    """``sk_getsockopt()``: the value, as long as it is."""
    options = socket.options
    if option == SO_LINGER:
        return LINGER.pack(*options.linger)
    if option in (SO_RCVTIMEO, SO_SNDTIMEO):
        timeout = options.receive_timeout if option == SO_RCVTIMEO else options.send_timeout
        return TIMEVAL.pack(*divmod((timeout or 0) // _MICROSECOND, _SECOND // _MICROSECOND))
    if option == SO_PEERCRED:
        return UCRED.pack(*(socket.peer_creds or (0, -1 & 0xFFFF_FFFF, -1 & 0xFFFF_FFFF)))
    if option == SO_PEERNAME:
        name = socket.peer_name()
        if not name:
            raise GuestError(ENOTCONN)
        return name
    if option == SO_PEERGROUPS:
        raise GuestError(ENOPROTOOPT)
    if option == SO_BINDTODEVICE:
        return b""
    if option == SO_COOKIE:
        return socket.number.to_bytes(8, "little")
    return pack_integer(_integer_option(socket, option))


def _integer_option(socket: "Socket", option: int) -> int:
    options = socket.options
    if option == SO_ERROR:
        return socket.take_error()
    known = {
        SO_TYPE: socket.type, SO_DOMAIN: socket.domain, SO_PROTOCOL: socket.protocol, SO_SNDBUF: options.send_buffer,
        SO_RCVBUF: options.receive_buffer, SO_REUSEADDR: options.reuse_address, SO_REUSEPORT: options.reuse_port,
        SO_PASSCRED: options.pass_credentials, SO_ACCEPTCONN: socket.is_listening, SO_SNDLOWAT: 1,
        SO_RCVLOWAT: options.others.get(SO_RCVLOWAT, 1), SO_INCOMING_CPU: options.others.get(SO_INCOMING_CPU, 0),
        SO_BPF_EXTENSIONS: _BPF_EXTENSIONS, SO_DEBUG: 0, SO_BSDCOMPAT: 0, SO_PEEK_OFF: -1, SO_MARK: 0, SO_BUSY_POLL: 0,
        SO_MAX_PACING_RATE: options.others.get(SO_MAX_PACING_RATE, -1),
    }  # fmt: skip
    if option in known:
        return int(known[option])
    if option in _BOOLEANS or option in (SO_PRIORITY, SO_TIMESTAMPING, SO_ZEROCOPY):
        return options.others.get(option, 0)
    raise GuestError(ENOPROTOOPT)


def _timeout(data: bytes) -> int | None:
    """``sock_set_timeout()``: nanoseconds, None for ever."""
    if len(data) < TIMEVAL.size:
        raise GuestError(EINVAL)
    seconds, microseconds = TIMEVAL.unpack_from(data)
    if not 0 <= microseconds < 1_000_000:
        raise GuestError(EDOM)
    if seconds < 0:
        return 0
    nanoseconds = int(seconds * _SECOND + microseconds * _MICROSECOND)
    return nanoseconds if 0 < nanoseconds < 1 << 60 else None
