"""The network of one sandbox: which names and ports are taken, and what its sockets use."""

from collections import Counter
from errno import EADDRINUSE, ENOBUFS, ETOOMANYREFS
from typing import TYPE_CHECKING

from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.ports import PortTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.kernel import Kernel
    from pyvmm.linux.net.queues import Ucred
    from pyvmm.linux.net.socket import Socket
    from pyvmm.linux.task import Task

#: What a socket costs besides what is in its queue.
SOCKET_COST = 4096
#: Autobind: abstract names of five hexadecimal digits.
_AUTOBIND_NAMES = 1 << 20


class Network:
    """Names, ports and accounts of all sockets of a sandbox."""

    def __init__(self, kernel: "Kernel") -> None:
        self.kernel = kernel
        #: AF_UNIX: abstract names (with their NUL), and sockets with a path by device and inode number.
        self.abstract: dict[bytes, Socket] = {}
        self.by_inode: dict[tuple[int, int], Socket] = {}
        self.tcp = PortTable(self.random_number, self.now)
        self.udp = PortTable(self.random_number, self.now)
        self.udplite = PortTable(self.random_number, self.now)
        #: Multicast groups, and how many sockets are in each.
        self.groups: Counter[bytes] = Counter()
        #: Descriptors that have been sent and not received.
        self.rights_in_flight = 0
        #: All open sockets, by number.
        self._sockets: dict[int, Socket] = {}
        self._last_number = 0
        self._released: list[OpenFile] = []
        self._is_releasing = False

    def random_number(self, limit: int) -> int:
        """An unpredictable number below ``limit``."""
        return int.from_bytes(self.kernel.random(4), "little") % limit

    def now(self) -> int:
        """The guest's CLOCK_MONOTONIC, in nanoseconds."""
        return self.kernel.clock.monotonic_ns()

    def close(self) -> None:
        """The sandbox is gone: forget what is in flight, and let go of what refers back here."""
        for socket in self.sockets():
            socket.queue.clear()
        self._sockets.clear()
        self.abstract.clear()
        self.by_inode.clear()
        self.tcp = self.udp = self.udplite = PortTable(_no_numbers, _no_time)
        del self.kernel

    def next_number(self) -> int:
        """A number that no other socket has had (SO_COOKIE)."""
        self._last_number += 1
        return self._last_number

    def add(self, socket: "Socket") -> None:
        """A new socket."""
        self._sockets[socket.number] = socket

    def remove(self, socket: "Socket") -> None:
        """A socket is closed."""
        self._sockets.pop(socket.number, None)

    def sockets(self) -> "tuple[Socket, ...]":
        """All sockets that are open, or wait to be accepted."""
        return tuple(self._sockets.values())

    def take(self, count: int) -> None:
        """Count bytes of the sandbox's memory (ENOBUFS); negative: give them back."""
        quota = self.kernel.vfs.store.quota
        if count > 0 and count > quota.bytes_free:
            raise GuestError(ENOBUFS)
        quota.take(count)

    # ------------------------------------------------------------------------------------------- descriptors in flight

    def check_rights(self, task: "Task", files: "tuple[OpenFile, ...]") -> None:
        """``too_many_unix_fds()``: ETOOMANYREFS beyond RLIMIT_NOFILE descriptors in flight."""
        if files and self.rights_in_flight + len(files) > task.files.limit:
            self._close_cycles()
            if self.rights_in_flight + len(files) > task.files.limit:
                raise GuestError(ETOOMANYREFS)

    def _close_cycles(self) -> None:
        """``unix_gc()``: empty the queues of sockets that only descriptors in flight refer to, among themselves."""
        queued = {socket: socket.in_flight_here() for socket in self.sockets()}
        counts: dict[OpenFile, int] = {}
        for messages in queued.values():
            for message in messages:
                for file in message.rights:
                    counts[file] = counts.get(file, 0) + 1
        dead = {socket_of(file): file for file, count in counts.items() if file.references == count}
        alive = [socket for socket in queued if socket not in dead]
        while alive:
            for message in queued[alive.pop()]:
                for file in message.rights:
                    reached = socket_of(file)
                    if dead.pop(reached, None) is not None and reached is not None:
                        alive.append(reached)
        for socket in dead:
            if socket is not None:
                socket.queue.clear()

    def release(self, files: "Iterable[OpenFile]") -> None:
        """Close files that were in flight. That may close sockets that have more in flight, so it takes turns."""
        self._released.extend(files)
        if self._is_releasing:
            return
        self._is_releasing = True
        try:
            while self._released:
                self._released.pop().release()
        finally:
            self._is_releasing = False

    # ------------------------------------------------------------------------------------------------------ AF_UNIX

    def bind_abstract(self, name: bytes, socket: "Socket") -> None:
        """Give ``socket`` an abstract name: EADDRINUSE."""
        if name in self.abstract:
            raise GuestError(EADDRINUSE)
        self.abstract[name] = socket

    def autobind(self, socket: "Socket") -> bytes:
        """Give ``socket`` an abstract name that nobody has (``unix_autobind()``)."""
        number = self.random_number(_AUTOBIND_NAMES)
        for offset in range(len(self.abstract) + 1):
            name = b"\0%05x" % ((number + offset) % _AUTOBIND_NAMES)
            if name not in self.abstract:
                self.abstract[name] = socket
                return name
        raise GuestError(EADDRINUSE)


def socket_of(file: "OpenFile") -> "Socket | None":
    """The socket behind an open file, if it is one."""
    from pyvmm.linux.files.socket import SocketFile  # late: that file stands on sockets

    return file.socket if isinstance(file, SocketFile) else None


def current_creds(task: "Task") -> "Ucred":
    """What SO_PEERCRED and SCM_CREDENTIALS say of ``task``."""
    return task.pid, task.creds.euid, task.creds.egid


def _no_numbers(limit: int) -> int:
    raise RuntimeError("this network is closed")


def _no_time() -> int:
    raise RuntimeError("this network is closed")
