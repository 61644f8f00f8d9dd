"""The files of ``/proc/net``: tables of the sandbox's sockets, and of its only interface."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

from pyvmm.linux.abi.socket import AF_INET, AF_INET6, TCP_CLOSE, TCP_ESTABLISHED
from pyvmm.linux.net.addresses import ANY4, Endpoint, inet_address
from pyvmm.linux.net.inet import InetSocket
from pyvmm.linux.net.tcp import TcpSocket
from pyvmm.linux.net.unix import UnixSocket

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: Rows of a table: the text is made when the file is opened, and is the monitor's memory.
_ROWS_MAX = 512
_SS_UNCONNECTED, _SS_CONNECTED = 1, 3
_SO_ACCEPTCON = 0x10000

_TCP = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
_UDP = b" " + _TCP + b" ref pointer drops"
_WIDE = (b"local_address rem_address  ", b"local_address                         remote_address                       ")


def _inet(sockets: Iterable[InetSocket], domain: int, head: bytes, width: int) -> bytes:
    lines = [(head if domain == AF_INET else head.replace(*_WIDE)).ljust(width)]
    found = (socket for socket in sockets if socket.domain == domain and socket.local and socket.file_number)
    for index, socket in enumerate(islice(found, _ROWS_MAX)):
        state = socket.state if isinstance(socket, TcpSocket) else TCP_ESTABLISHED if socket.remote else TCP_CLOSE
        local = socket.local or Endpoint(ANY4, 0)
        remote = socket.remote or Endpoint(bytes(len(local.ip)), 0)
        lines.append(
            b"%4d: %s %s %02X 00000000:%08X 00:00000000 00000000 %5d        0 %d 1 0000000000000000 0".ljust(width)
            % (
                index, _endpoint(domain, local), _endpoint(domain, remote), state, socket.queue.size, socket.uid,
                socket.file_number,
            )
        )  # fmt: skip
    return b"\n".join(lines) + b"\n"


def _endpoint(domain: int, endpoint: Endpoint) -> bytes:
    """Words of 32 bits in hexadecimal, as a little-endian machine reads them, and the port."""
    address = inet_address(domain, endpoint)
    ip = address[4:8] if domain == AF_INET else address[8:24]
    words = [ip[at : at + 4][::-1].hex().upper() for at in range(0, len(ip), 4)]
    return b"%s:%04X" % ("".join(words).encode(), endpoint.port)


def unix(task: "Task") -> bytes:
    """``unix``."""
    lines = [b"Num       RefCount Protocol Flags    Type St Inode Path"]
    found = (socket for socket in task.kernel.network.sockets() if isinstance(socket, UnixSocket))
    for socket in islice((socket for socket in found if socket.file_number), _ROWS_MAX):
        name = socket.name.replace(b"\0", b"@").replace(b"\n", b"\\n")
        lines.append(
            b"%016x: 00000002 00000000 %08X %04X %02X %5d %s"
            % (
                0, _SO_ACCEPTCON if socket.is_listening else 0, socket.type,
                _SS_CONNECTED if socket.peer else _SS_UNCONNECTED, socket.file_number, name,
            )
        )  # fmt: skip
    return b"\n".join(line.rstrip() for line in lines) + b"\n"


def dev(task: "Task") -> bytes:
    """``dev``: nothing is counted."""
    counts = b"       0       0    0    0    0     0          0         0"
    return (
        b"Inter-|   Receive                                                |  Transmit\n"
        b" face |bytes    packets errs drop fifo frame compressed multicast|"
        b"bytes    packets errs drop fifo colls carrier compressed\n"
        b"    lo:" + counts + b" " + counts + b"\n"
    )


def if_inet6(task: "Task") -> bytes:
    """``if_inet6``."""
    return b"00000000000000000000000000000001 01 80 10 80       lo\n"


#: Name below ``/proc/<pid>/net`` -> what makes the text.
NETWORK_FILES: dict[bytes, Callable[["Task"], bytes]] = {
    b"dev": dev,
    b"if_inet6": if_inet6,
    b"route": lambda task: (
        b"Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT".ljust(127) + b"\n"
    ),
    b"tcp": lambda task: _inet(_tcp(task), AF_INET, _TCP, 149),
    b"tcp6": lambda task: _inet(_tcp(task), AF_INET6, _TCP, 0),
    b"udp": lambda task: _inet(task.kernel.network.udp, AF_INET, _UDP, 127),
    b"udp6": lambda task: _inet(task.kernel.network.udp, AF_INET6, _UDP, 0),
    b"udplite": lambda task: _inet(task.kernel.network.udplite, AF_INET, _UDP, 127),
    b"unix": unix,
}


def _tcp(task: "Task") -> Iterable[InetSocket]:
    return task.kernel.network.tcp
