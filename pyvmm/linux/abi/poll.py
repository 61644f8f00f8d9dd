"""``asm-generic/poll.h`` and ``linux/posix_types.h``: waiting for files."""

import struct

POLLIN = 0x0001
POLLPRI = 0x0002
POLLOUT = 0x0004
POLLERR = 0x0008
POLLHUP = 0x0010
POLLNVAL = 0x0020
POLLRDNORM = 0x0040
POLLRDBAND = 0x0080
POLLWRNORM = 0x0100
POLLWRBAND = 0x0200
POLLRDHUP = 0x2000

#: ``struct pollfd``: fd, events, revents.
POLLFD = struct.Struct("<ihh")
#: Descriptors in an ``fd_set`` of the C library; the system call itself takes more.
FD_SETSIZE = 1024
