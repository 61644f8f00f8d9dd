"""Control messages (cmsg(3)): descriptors, credentials, and what datagrams tell about themselves."""

from errno import EBADF, EINVAL, EMFILE, ENOBUFS, EPERM, ESRCH
from typing import TYPE_CHECKING

from pyvmm.linux.abi.socket import (
    AF_NETLINK,
    AF_UNIX,
    CMSGHDR,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    SCM_CREDENTIALS,
    SCM_MAX_FD,
    SCM_RIGHTS,
    SOL_SOCKET,
    UCRED,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.socket import Outgoing, Received, Socket

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.task import Task

#: ``net.core.optmem_max``.
_CONTROL_MAX = 131_072


def parse_control(task: "Task", socket: Socket, address: int, size: int, outgoing: Outgoing) -> None:
    """Put what the control messages at ``address`` say into ``outgoing`` (``__scm_send()``, ``ip_cmsg_send()``)."""
    if size > _CONTROL_MAX:
        raise GuestError(ENOBUFS)
    data = task.mem.read(address, size)
    files: list[OpenFile] = []
    others: list[tuple[int, int, bytes]] = []
    at = 0
    while at + CMSGHDR.size <= size:
        length, level, kind = CMSGHDR.unpack_from(data, at)
        if not CMSGHDR.size <= length <= size - at:
            raise GuestError(EINVAL)
        body = data[at + CMSGHDR.size : at + length]
        if level != SOL_SOCKET:
            others.append((level, kind, body))
        elif kind == SCM_RIGHTS and socket.domain == AF_UNIX:
            files += _files_of(task, body)
        elif kind == SCM_CREDENTIALS and socket.domain == AF_UNIX:
            outgoing.creds = _checked_creds(task, body)
        elif kind not in (SCM_RIGHTS, SCM_CREDENTIALS) or socket.domain == AF_NETLINK:
            raise GuestError(EINVAL)
        at += (length + 7) & ~7
    if len(files) > SCM_MAX_FD:
        raise GuestError(EINVAL)
    outgoing.rights, outgoing.control = tuple(files), tuple(others)
    socket.network.check_rights(task, outgoing.rights)


def _files_of(task: "Task", body: bytes) -> "list[OpenFile]":
    if len(body) // 4 > SCM_MAX_FD:
        raise GuestError(EINVAL)
    numbers = [int.from_bytes(body[at : at + 4], "little", signed=True) for at in range(0, len(body) & ~3, 4)]
    if any(number < 0 for number in numbers):
        raise GuestError(EBADF)
    return [task.files.get_raw(number) for number in numbers]


def _checked_creds(task: "Task", body: bytes) -> tuple[int, int, int]:
    """``scm_check_creds()``: who says something else of himself than the truth must be root."""
    if len(body) != UCRED.size:
        raise GuestError(EINVAL)
    pid, uid, gid = UCRED.unpack(body)
    creds = task.creds
    if creds.euid:
        if pid != task.pid or uid not in (creds.uid, creds.euid, creds.suid):
            raise GuestError(EPERM)
        if gid not in (creds.gid, creds.egid, creds.sgid):
            raise GuestError(EPERM)
    elif pid not in task.kernel.processes:
        raise GuestError(ESRCH)
    return pid, uid, gid


def write_control(task: "Task", socket: Socket, received: Received, address: int, room: int, flags: int) -> int:
    """Write control messages for what was ``received``, installing its descriptors; how many bytes they take.

    MSG_CTRUNC is added to ``received.flags`` when there was no room for all, or no number for a descriptor.
    """
    out = bytearray()
    messages = list(received.control)
    if socket.options.pass_credentials and received.creds is not None:
        messages.append((SOL_SOCKET, SCM_CREDENTIALS, UCRED.pack(*received.creds)))
    for level, kind, data in messages:
        left = room - len(out)
        if left < CMSGHDR.size:
            received.flags |= MSG_CTRUNC
            continue
        length = CMSGHDR.size + len(data)
        if length > left:
            received.flags |= MSG_CTRUNC
            length = left
        out += (CMSGHDR.pack(length, level, kind) + data)[:length]
        out += bytes(min((length + 7 & ~7) - length, room - len(out)))
    rights, received.rights = received.rights, ()
    if not rights:
        if out:
            task.mem.write(address, out)
        return len(out)
    installed: list[int] = []
    try:
        count = max(room - len(out) - CMSGHDR.size, 0) // 4
        for file in rights[:count]:
            try:
                installed.append(task.files.install(file, bool(flags & MSG_CMSG_CLOEXEC)))
            except GuestError as error:
                if error.errno != EMFILE:
                    raise
                break
        if len(installed) < len(rights):
            received.flags |= MSG_CTRUNC
        if installed:
            body = b"".join(number.to_bytes(4, "little") for number in installed)
            length = CMSGHDR.size + len(body)
            out += CMSGHDR.pack(length, SOL_SOCKET, SCM_RIGHTS) + body
            out += bytes(min((length + 7 & ~7) - length, room - len(out)))
        if out:
            task.mem.write(address, out)
    except GuestError:
        for number in installed:
            task.files.close(number)
        raise
    finally:
        socket.network.release(rights)
    return len(out)
