"""Sending and receiving on sockets: send(2), recv(2) and their forms with addresses, control messages and vectors."""

import struct
from dataclasses import dataclass
from errno import EFAULT, EINVAL, EMSGSIZE, ENOBUFS, EPIPE
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import IOV_MAX, MAX_RW_COUNT
from pyvmm.linux.abi.signal import SIGPIPE
from pyvmm.linux.abi.socket import (
    MMSG_MAX,
    MMSGHDR_SIZE,
    MSG_CMSG_CLOEXEC,
    MSG_CMSG_COMPAT,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_OOB,
    MSG_PEEK,
    MSG_TRUNC,
    MSG_WAITALL,
    MSG_WAITFORONE,
    MSGHDR,
    SOCKADDR_MAX,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.socket import SocketFile
from pyvmm.linux.files.transfer import STEP, Vector, buffer_at, gather, read_vector, scatter
from pyvmm.linux.net.addresses import read_address, write_address
from pyvmm.linux.net.ancillary import parse_control, write_control
from pyvmm.linux.net.socket import Outgoing, Received
from pyvmm.linux.net.tcp import TcpSocket
from pyvmm.linux.syscalls.sockets import socket_at
from pyvmm.linux.syscalls.time import read_timespec
from pyvmm.linux.table import Fd, Flags, Int, Pointer, Size, UInt, syscall
from pyvmm.linux.wait import Blocked

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_INT_MAX = (1 << 31) - 1
#: Where ``struct msghdr`` has its lengths and flags.
_NAMELEN_OFFSET, _CONTROLLEN_OFFSET, _FLAGS_OFFSET = 8, 40, 48


@dataclass(slots=True)
class Header:
    """``struct msghdr``, as far as it is the program's."""

    name: int
    name_length: int
    vector: Vector
    control: int
    control_length: int


# ------------------------------------------------------------------------------------------------------------ sending


@syscall
def sendto(task: "Task", fd: Fd, buffer: Pointer, count: Size, flags: Flags, address: Pointer, length: Int) -> int:
    """sendto(2): send, to an address if one is given."""
    vector = buffer_at(buffer, min(count, MAX_RW_COUNT))
    file = socket_at(task, fd)
    outgoing = Outgoing(flags | file.message_flags)
    if address:
        outgoing.destination = read_address(task, address, length)
    return _send(task, file, vector, outgoing)


@syscall
def sendmsg(task: "Task", fd: Fd, message: Pointer, flags: Flags) -> int:
    """sendmsg(2): send from several buffers, with control messages."""
    if flags & MSG_CMSG_COMPAT:
        raise GuestError(EINVAL)
    return _send_message(task, socket_at(task, fd), message, flags)


@syscall
def sendmmsg(task: "Task", fd: Fd, messages: Pointer, count: UInt, flags: Flags) -> int:
    """sendmmsg(2): send several messages."""
    if flags & MSG_CMSG_COMPAT:
        raise GuestError(EINVAL)
    file = socket_at(task, fd)
    done: int = task.scratch or 0
    count = min(count, MMSG_MAX)
    while done < count:
        task.kernel.check()
        at = messages + done * MMSGHDR_SIZE
        try:
            sent = _send_message(task, file, at, flags)
            task.mem.write_u32(at + MSGHDR.size, sent)
        except GuestError:
            if not done:
                raise
            break
        done += 1
        task.scratch, task.progress = done, 0
    return done


def _send_message(task: "Task", file: SocketFile, address: int, flags: int) -> int:
    header = _read_header(task, address)
    outgoing = Outgoing(flags | file.message_flags)
    if header.name and header.name_length:
        outgoing.destination = read_address(task, header.name, header.name_length)
    if header.control_length > _INT_MAX:
        raise GuestError(ENOBUFS)
    if header.control_length and not task.progress:
        parse_control(task, file.socket, header.control, header.control_length, outgoing)
    return _send(task, file, header.vector, outgoing)


def _read_header(task: "Task", address: int) -> Header:
    """``copy_msghdr_from_user()``: EFAULT, EINVAL, EMSGSIZE."""
    name, name_length, vector, count, control, control_length, _ = MSGHDR.unpack(task.mem.read(address, MSGHDR.size))
    if name_length > _INT_MAX:
        raise GuestError(EINVAL)
    if count > IOV_MAX:
        raise GuestError(EMSGSIZE)
    pieces = read_vector(task, vector, count)
    return Header(name, min(name_length, SOCKADDR_MAX), pieces, control, control_length)


def _send(task: "Task", file: SocketFile, vector: Vector, outgoing: Outgoing) -> int:
    """Send what is in ``vector``, after what the same call has sent before it had to wait; how much was."""
    socket = file.socket
    wanted = sum(length for _, length in vector)
    if socket.keeps_boundaries:
        if wanted > max(socket.max_message, 0xFFFF):
            raise GuestError(EMSGSIZE)
        data = gather(task, vector, 0, wanted)
        if len(data) < wanted:
            raise GuestError(EFAULT)
        return socket.send(task, data, outgoing)
    done = before = task.progress
    flags = outgoing.flags
    try:
        while True:
            task.kernel.check()
            count = min(wanted - done, STEP)
            data = gather(task, vector, done, count)
            if count and not data:
                raise GuestError(EFAULT)
            # The last byte of all is the urgent one.
            outgoing.flags = flags if done + count == wanted else flags & ~MSG_OOB
            sent = socket.send(task, data, outgoing)
            outgoing.rights = ()
            done += sent
            if done == wanted or sent < count:
                return done
    except GuestError as error:
        if done:
            return done
        if error.errno == EPIPE and not outgoing.flags & MSG_NOSIGNAL:
            task.send_signal(SIGPIPE)
        raise
    except Blocked as wait:
        wait.progress += done - before
        raise


# ---------------------------------------------------------------------------------------------------------- receiving


@syscall
def recvfrom(
    task: "Task", fd: Fd, buffer: Pointer, count: Size, flags: Flags, address: Pointer, length: Pointer
) -> int:
    """recvfrom(2): receive, and be told from where."""
    vector = buffer_at(buffer, min(count, MAX_RW_COUNT))
    file = socket_at(task, fd)
    done, received = _receive(task, file, vector, flags)
    file.socket.network.release(received.rights)
    if address:
        if received.source is None:
            task.mem.write_u32(length, 0)
        else:
            write_address(task, received.source, address, length)
    return done


@syscall
def recvmsg(task: "Task", fd: Fd, message: Pointer, flags: Flags) -> int:
    """recvmsg(2): receive into several buffers, with control messages."""
    if flags & MSG_CMSG_COMPAT:
        raise GuestError(EINVAL)
    return _receive_message(task, socket_at(task, fd), message, flags)


@syscall
def recvmmsg(task: "Task", fd: Fd, messages: Pointer, count: UInt, flags: Flags, timeout: Pointer) -> int:
    """recvmmsg(2): receive several messages.

    As on Linux, the time-out is looked at after each message, and does not end the wait for one.
    """
    if flags & MSG_CMSG_COMPAT:
        raise GuestError(EINVAL)
    clock = task.kernel.clock
    if task.scratch is None:
        task.scratch = (0, clock.monotonic_ns() + read_timespec(task, timeout) if timeout else None)
    file = socket_at(task, fd)
    file.socket.raise_error()
    done: int
    done, deadline = task.scratch
    count = min(count, MMSG_MAX)
    one_only = flags & MSG_WAITFORONE
    while done < count:
        task.kernel.check()
        at = messages + done * MMSGHDR_SIZE
        try:
            got = _receive_message(task, file, at, flags & ~MSG_WAITFORONE)
            task.mem.write_u32(at + MSGHDR.size, got)
        except GuestError:
            if not done:
                raise
            break
        done += 1
        task.scratch, task.progress = (done, deadline), 0
        if one_only:
            flags |= MSG_DONTWAIT
        if deadline is not None and clock.monotonic_ns() >= deadline:
            break
    if timeout and deadline is not None:
        left = max(deadline - clock.monotonic_ns(), 0)
        task.mem.write(timeout, struct.pack("<qq", *divmod(left, 1_000_000_000)))
    return done


def _receive_message(task: "Task", file: SocketFile, address: int, flags: int) -> int:
    header = _read_header(task, address)
    done, received = _receive(task, file, header.vector, flags)
    socket = file.socket
    try:
        if header.name:
            _write_name(task, header, received.source, address)
        room = min(header.control_length, 1 << 20) if header.control else 0
        used = write_control(task, socket, received, header.control, room, flags)
    finally:
        socket.network.release(received.rights)
    told = received.flags & (MSG_OOB | MSG_TRUNC | MSG_CTRUNC) | flags & MSG_CMSG_CLOEXEC
    task.mem.write_u32(address + _FLAGS_OFFSET, told)
    task.mem.write_u64(address + _CONTROLLEN_OFFSET, used)
    return done


def _write_name(task: "Task", header: Header, source: bytes | None, address: int) -> None:
    data = source or b""
    task.mem.write(header.name, data[: header.name_length])
    task.mem.write_u32(address + _NAMELEN_OFFSET, len(data))


def _receive(task: "Task", file: SocketFile, vector: Vector, flags: int) -> tuple[int, Received]:
    """Receive into ``vector``; what recv(2) returns, and what came with the data. Its descriptors are the caller's."""
    socket = file.socket
    flags |= file.message_flags
    wanted = sum(length for _, length in vector)
    if socket.keeps_boundaries:
        received = socket.receive(task, min(wanted, STEP), flags)
        if scatter(task, received.data, vector, 0) < len(received.data):
            socket.network.release(received.rights)
            raise GuestError(EFAULT)
        return received.length if flags & MSG_TRUNC else len(received.data), received
    done = before = task.progress
    result = Received(b"")
    discard = flags & MSG_TRUNC and isinstance(socket, TcpSocket)
    while True:
        task.kernel.check()
        try:
            received = socket.receive(task, min(wanted - done, STEP), flags)
        except GuestError:
            if not done:
                raise
            return done, result
        except Blocked as wait:
            wait.progress += done - before
            raise
        delivered = len(received.data) if discard else scatter(task, received.data, vector, done)
        done += delivered
        result.rights, result.creds = received.rights, received.creds or result.creds
        result.flags |= received.flags
        if delivered < len(received.data):
            if not flags & MSG_PEEK:
                socket.unread(received.data[delivered:])
            if not done:
                socket.network.release(received.rights)
                raise GuestError(EFAULT)
            return done, result
        if not received.data or received.rights or received.is_end or done >= wanted or flags & MSG_PEEK:
            return done, result
        if not flags & MSG_WAITALL and (socket.options.pass_credentials or not socket.queue.size):
            return done, result
