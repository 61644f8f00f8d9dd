"""Sockets: socket(2), bind(2), listen(2), accept(2), connect(2), getsockopt(2) and their kin.

All of a sandbox's network is inside it: its loopback interface and its AF_UNIX sockets.
"""

import struct
from errno import EINVAL, ENOTSOCK
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import O_NONBLOCK
from pyvmm.linux.abi.socket import SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_TYPE_MASK
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.socket import SocketFile
from pyvmm.linux.net.addresses import read_address, write_address
from pyvmm.linux.net.families import make_pair, make_socket
from pyvmm.linux.net.socket import Socket
from pyvmm.linux.table import Fd, Flags, Int, Pointer, syscall
from pyvmm.linux.vfs.anonymous import SocketInode

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: The longest value of an option that anything here reads (``struct group_req``).
_OPTION_MAX = 136


def socket_at(task: "Task", fd: int) -> SocketFile:
    """``sockfd_lookup()``: EBADF, ENOTSOCK."""
    file = task.files.get(fd)
    if not isinstance(file, SocketFile):
        raise GuestError(ENOTSOCK)
    return file


def install(task: "Task", made: Socket, flags: int) -> int:
    """Give a socket a descriptor; EMFILE closes it."""
    kernel, creds = task.kernel, task.creds
    inode = SocketInode(kernel.vfs.next_anonymous(), creds.fsuid, creds.fsgid, kernel.clock.realtime_ns())
    made.file_number = inode.ino
    return task.files.install(SocketFile(inode, flags & O_NONBLOCK, made), bool(flags & SOCK_CLOEXEC))


def _checked_type(kind: int) -> tuple[int, int]:
    """Type and flags of what is one argument."""
    flags = kind & ~SOCK_TYPE_MASK
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise GuestError(EINVAL)
    return kind & SOCK_TYPE_MASK, flags


@syscall
def socket(task: "Task", domain: Int, kind: Flags, protocol: Int) -> int:
    """socket(2): an end point for communication.

    AF_UNIX, TCP and UDP over IPv4 and IPv6, and NETLINK_ROUTE to be told of the only interface, `lo`.
    """
    kind, flags = _checked_type(kind)
    return install(task, make_socket(task, domain, kind, protocol), flags)


@syscall
def socketpair(task: "Task", domain: Int, kind: Flags, protocol: Int, fds: Pointer) -> int:
    """socketpair(2): two connected sockets."""
    kind, flags = _checked_type(kind)
    one, other = make_pair(task, domain, kind, protocol)
    try:
        first = install(task, one, flags)
    except GuestError:
        other.close()
        raise
    try:
        second = install(task, other, flags)
    except GuestError:
        task.files.close(first)
        raise
    try:
        task.mem.write(fds, struct.pack("<ii", first, second))
    except GuestError:
        task.files.close(first)
        task.files.close(second)
        raise
    return 0


@syscall
def bind(task: "Task", fd: Fd, address: Pointer, length: Int) -> int:
    """bind(2): give a socket an address.

    The addresses of this host are those of `lo`; ports below 1024 are root's.
    """
    file = socket_at(task, fd)
    file.socket.bind(task, read_address(task, address, length))
    return 0


@syscall
def listen(task: "Task", fd: Fd, backlog: Int) -> int:
    """listen(2): wait for connections."""
    socket_at(task, fd).socket.listen(task, backlog)
    return 0


@syscall
def accept(task: "Task", fd: Fd, address: Pointer, length: Pointer) -> int:
    """accept(2): the next connection."""
    return accept4(task, fd, address, length, 0)


@syscall
def accept4(task: "Task", fd: Fd, address: Pointer, length: Pointer, flags: Flags) -> int:
    """accept4(2): the same, with flags."""
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        raise GuestError(EINVAL)
    file = socket_at(task, fd)
    task.files.lowest_free()
    accepted = file.socket.accept(task, file.message_flags)
    number = install(task, accepted, flags)
    if address:
        try:
            write_address(task, accepted.accepted_name(), address, length)
        except GuestError:
            task.files.close(number)
            raise
    return number


@syscall
def connect(task: "Task", fd: Fd, address: Pointer, length: Int) -> int:
    """connect(2): connect a socket, or say where its datagrams go.

    Everything but this sandbox is ENETUNREACH.
    """
    file = socket_at(task, fd)
    file.socket.connect(task, read_address(task, address, length), file.message_flags)
    return 0


@syscall
def shutdown(task: "Task", fd: Fd, how: Int) -> int:
    """shutdown(2): close a direction of a connection."""
    file = socket_at(task, fd)
    if not 0 <= how <= 2:
        raise GuestError(EINVAL)
    file.socket.shutdown(how)
    return 0


@syscall
def getsockname(task: "Task", fd: Fd, address: Pointer, length: Pointer) -> int:
    """getsockname(2): a socket's own address."""
    write_address(task, socket_at(task, fd).socket.local_name(), address, length)
    return 0


@syscall
def getpeername(task: "Task", fd: Fd, address: Pointer, length: Pointer) -> int:
    """getpeername(2): the address of the other end."""
    write_address(task, socket_at(task, fd).socket.peer_name(), address, length)
    return 0


@syscall
def setsockopt(task: "Task", fd: Fd, level: Int, option: Int, value: Pointer, length: Int) -> int:
    """setsockopt(2): set an option.

    Options that tune a network which is not there are kept and given back, and change nothing.
    """
    if length < 0:
        raise GuestError(EINVAL)
    file = socket_at(task, fd)
    file.socket.set_option(task, level, option, task.mem.read(value, min(length, _OPTION_MAX)))
    return 0


@syscall
def getsockopt(task: "Task", fd: Fd, level: Int, option: Int, value: Pointer, length: Pointer) -> int:
    """getsockopt(2): ask for an option."""
    file = socket_at(task, fd)
    room = int.from_bytes(task.mem.read(length, 4), "little", signed=True)
    if room < 0:
        raise GuestError(EINVAL)
    data = file.socket.get_option(task, level, option)[:room]
    task.mem.write(value, data)
    task.mem.write_u32(length, len(data))
    return 0
