"""The open file of a socket: what read(2), write(2), poll(2) and ioctl(2) make of it (``net/socket.c``)."""

from errno import EPIPE
from typing import TYPE_CHECKING

from pyvmm.linux.abi.fcntl import O_NONBLOCK, O_RDWR
from pyvmm.linux.abi.signal import SIGPIPE
from pyvmm.linux.abi.socket import MSG_DONTWAIT, SIOCATMARK, SIOCINQ, SIOCOUTQ
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.net.interface import interface_ioctl
from pyvmm.linux.net.socket import Outgoing, Socket
from pyvmm.linux.wait import WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode


class SocketFile(OpenFile):
    """A descriptor's view of a socket."""

    __slots__ = ("socket",)

    def __init__(self, inode: "Inode", flags: int, socket: Socket) -> None:
        self.socket = socket
        super().__init__(inode, O_RDWR | flags & O_NONBLOCK)

    @property
    def owner(self) -> int:
        """F_SETOWN: whom the socket sends SIGURG."""
        return self.socket.owner

    @owner.setter
    def owner(self, owner: int) -> None:
        self.socket.owner = owner

    def closed(self) -> None:
        """See :meth:`OpenFile.closed`."""
        self.socket.close()

    @property
    def message_flags(self) -> int:
        """MSG_DONTWAIT if O_NONBLOCK is set."""
        return MSG_DONTWAIT if self.flags & O_NONBLOCK else 0

    def read(self, task: "Task", count: int) -> bytes:
        """``sock_read_iter``: descriptors that came along are closed."""
        if not count:
            return b""
        received = self.socket.receive(task, count, self.message_flags)
        if received.rights:
            self.socket.network.release(received.rights)
        return received.data

    def unread(self, data: bytes) -> None:
        """See :meth:`OpenFile.unread`."""
        self.socket.unread(data)

    def write(self, task: "Task", data: bytes) -> int:
        """``sock_write_iter``."""
        socket = self.socket
        try:
            return socket.send(task, data, Outgoing(self.message_flags))
        except GuestError as error:
            if error.errno == EPIPE and not socket.keeps_boundaries and not task.progress:
                task.send_signal(SIGPIPE)
            raise

    def poll(self, task: "Task") -> int:
        """``sock_poll``."""
        return self.socket.poll()

    def queues(self) -> tuple[WaitQueue, ...]:
        """See :meth:`OpenFile.queues`."""
        return (self.socket.changed,)

    def ioctl(self, task: "Task", request: int, argument: int) -> int:
        """``sock_ioctl``."""
        if request == SIOCINQ:
            task.mem.write_u32(argument, self.socket.unread_bytes())
        elif request == SIOCOUTQ:
            task.mem.write_u32(argument, self.socket.unsent_bytes())
        elif request == SIOCATMARK:
            task.mem.write_u32(argument, self.socket.is_at_mark())
        else:
            return interface_ioctl(task, request, argument)
        return 0
