"""Ports of TCP or UDP: who has which, who may have the same one, and who is meant by an address."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL
from typing import TYPE_CHECKING

from pyvmm.linux.abi.socket import AF_INET6
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.addresses import Endpoint
from pyvmm.linux.net.options import SocketOptions

if TYPE_CHECKING:
    from pyvmm.linux.net.inet import InetSocket

#: ``net.ipv4.ip_local_port_range``, and the ports below which only root binds.
FIRST_EPHEMERAL, LAST_EPHEMERAL = 32768, 60999
_UNPRIVILEGED = 1024
#: ``TCP_TIMEWAIT_LEN``, in nanoseconds, and ``net.ipv4.tcp_max_tw_buckets``.
_TIME_WAIT_NS = 60_000_000_000
TIME_WAIT_MAX = 4096


@dataclass(slots=True, eq=False)
class TimeWait:
    """What is left of the end of a TCP connection that was closed first (``struct inet_timewait_sock``)."""

    local: Endpoint
    uid: int
    v6_only: bool
    options: SocketOptions
    #: The guest's CLOCK_MONOTONIC, in nanoseconds.
    until: int
    is_listening: bool = False


class PortTable:
    """The bound sockets of one protocol.

    :param random_number: an unpredictable number below a limit.
    :param now: the guest's CLOCK_MONOTONIC, in nanoseconds.
    """

    def __init__(self, random_number: Callable[[int], int], now: Callable[[], int]) -> None:
        self._random_number = random_number
        self._now = now
        self._bound: dict[int, dict[InetSocket, None]] = {}
        #: The listeners among them: a port may have thousands of accepted connections besides.
        self._listening: dict[int, dict[InetSocket, None]] = {}
        #: Ends of connections in TIME_WAIT: all in the order in which they come to their end, and by port.
        self._time_wait: deque[TimeWait] = deque()
        self._waiting: dict[int, dict[TimeWait, None]] = {}

    def __iter__(self) -> "Iterator[InetSocket]":
        for sockets in self._bound.values():
            yield from sockets

    def bind(self, socket: "InetSocket", local: Endpoint, uid: int) -> Endpoint:
        """Give ``socket`` an address; port 0 means any that is free: EADDRNOTAVAIL, EACCES, EADDRINUSE."""
        is_group = local.is_multicast and len(local.ip) == 4
        if not local.is_any and not local.is_loopback and not is_group:
            raise GuestError(EADDRNOTAVAIL)
        port = local.port
        if not port:
            return self._bind_ephemeral(socket, local.ip, EADDRINUSE)
        if port < _UNPRIVILEGED and uid:
            raise GuestError(EACCES)
        if self.conflicts(socket, local):
            raise GuestError(EADDRINUSE)
        self.add(socket, port)
        return local

    def bind_source(self, socket: "InetSocket", ip: bytes) -> Endpoint:
        """Give a socket that talks without having been bound a port: EADDRNOTAVAIL."""
        return self._bind_ephemeral(socket, ip, EADDRNOTAVAIL)

    def _bind_ephemeral(self, socket: "InetSocket", ip: bytes, error: int) -> Endpoint:
        count = LAST_EPHEMERAL - FIRST_EPHEMERAL + 1
        start = self._random_number(count)
        self._end_time_wait()
        for offset in range(count):
            port = FIRST_EPHEMERAL + (start + offset) % count
            if port not in self._bound and port not in self._waiting:
                self.add(socket, port)
                return Endpoint(ip, port)
        raise GuestError(error)

    def add(self, socket: "InetSocket", port: int) -> None:
        """``socket`` has ``port`` from now on (with others, if it was accepted there)."""
        self._bound.setdefault(port, {})[socket] = None

    def remove(self, socket: "InetSocket", port: int) -> None:
        """``socket`` has ``port`` no longer; fine if it has not had it."""
        sockets = self._bound.get(port)
        if sockets is not None:
            sockets.pop(socket, None)
            if not sockets:
                del self._bound[port]

    def start_listening(self, socket: "InetSocket", port: int) -> None:
        """``socket`` answers who connects to ``port``."""
        self._listening.setdefault(port, {})[socket] = None

    def stop_listening(self, socket: "InetSocket", port: int) -> None:
        """It does no longer."""
        sockets = self._listening[port]
        del sockets[socket]
        if not sockets:
            del self._listening[port]

    def listeners(self, port: int) -> "tuple[InetSocket, ...]":
        """Who answers on ``port``, whatever the address."""
        return tuple(self._listening.get(port, ()))

    def at(self, port: int) -> "tuple[InetSocket, ...]":
        """All sockets that have ``port``."""
        return tuple(self._bound.get(port, ()))

    def conflicts(self, socket: "InetSocket", local: Endpoint) -> bool:
        """Whether somebody else's having the port forbids it to ``socket`` (``inet_csk_bind_conflict()``)."""
        self._end_time_wait()
        for other in (*self._bound.get(local.port, ()), *self._waiting.get(local.port, ())):
            if other is socket or not _overlap(socket, local, other):
                continue
            both_reuse = socket.options.reuse_address and other.options.reuse_address
            if both_reuse and not other.is_listening:
                continue
            if socket.options.reuse_port and other.options.reuse_port and socket.uid == other.uid:
                continue
            return True
        return False

    def wait(self, end: "InetSocket | TimeWait") -> TimeWait | None:
        """``tcp_time_wait()``: the port of ``end`` stays taken for a minute from now; None if too many are already."""
        self._end_time_wait()
        local = end.local
        if local is None or len(self._time_wait) >= TIME_WAIT_MAX:
            return None
        waiting = TimeWait(local, end.uid, end.v6_only, end.options, self._now() + _TIME_WAIT_NS)
        self._time_wait.append(waiting)
        self._waiting.setdefault(local.port, {})[waiting] = None
        return waiting

    def stop_waiting(self, waiting: TimeWait) -> None:
        """The port is free before its time, or is so already."""
        waiting.until = 0
        ends = self._waiting.get(waiting.local.port)
        if ends is not None:
            ends.pop(waiting, None)
            if not ends:
                del self._waiting[waiting.local.port]

    def _end_time_wait(self) -> None:
        if self._time_wait:
            now = self._now()
            while self._time_wait and self._time_wait[0].until <= now:
                self.stop_waiting(self._time_wait.popleft())


def _overlap(socket: "InetSocket", local: Endpoint, other: "InetSocket | TimeWait") -> bool:
    """Whether an address exists that both would have (``ipv6_rcv_saddr_equal()``)."""
    theirs = other.local
    if theirs is None:
        return False
    if len(local.ip) == len(theirs.ip):
        return local.is_any or theirs.is_any or local.ip == theirs.ip
    six, v6_only = (local, socket.v6_only) if len(local.ip) == 16 else (theirs, other.v6_only)
    return six.is_any and not v6_only


def accepts(socket: "InetSocket", target: Endpoint) -> bool:
    """Whether what is sent to ``target``'s address is for ``socket``, as far as its own address says."""
    local = socket.local
    if local is None:
        return False
    if len(local.ip) == len(target.ip):
        return local.is_any or local.ip == target.ip
    return socket.domain == AF_INET6 and local.is_any and len(target.ip) == 4 and not socket.v6_only
