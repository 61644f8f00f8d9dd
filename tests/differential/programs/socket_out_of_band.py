# ruff: noqa
# The byte that comes out of band in AF_UNIX streams: where it stands, how it is read, and who is told.
import ctypes, random, select, signal, socket, struct, threading, time
from common import errno, fails, os

OOB, PEEK, DONTWAIT, WAITALL = socket.MSG_OOB, socket.MSG_PEEK, socket.MSG_DONTWAIT, socket.MSG_WAITALL
SIOCATMARK, FIONREAD = 0x8905, 0x541B
F_SETOWN, F_GETOWN, F_SETOWN_EX, F_GETOWN_EX = 8, 9, 15, 16
libc = ctypes.CDLL(None, use_errno=True)


def called(function, sock, command, argument):
    """What ioctl(2) or fcntl(2) gives: a number, or for bytes what is there after the call."""
    given = ctypes.create_string_buffer(argument, len(argument)) if isinstance(argument, bytes) else argument
    ctypes.set_errno(0)
    result = function(sock.fileno(), ctypes.c_ulong(command), given)
    if result == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), "")
    return given.raw if isinstance(argument, bytes) else result


def asked(sock, request):
    return struct.unpack("<i", called(libc.ioctl, sock, request, bytes(4)))[0]


def control(sock, command, argument=0):
    return called(libc.fcntl, sock, command, argument)


def ready(sock):
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLPRI | select.POLLHUP)
    return [mask for _, mask in poll.poll(0)]


# Everything one can do, in many orders. (Linux 6.18 does not take an urgent byte that is lost out of what FIONREAD says.)
def perform(one, other, rng):
    what, count = rng.randrange(13), rng.randrange(1, 5)
    data = bytes(rng.randrange(97, 123) for _ in range(count))
    if what < 2:
        return "send", data, fails(one.send, data)
    if what < 5:
        return "urgent", data, fails(one.send, data, OOB)
    if what < 7:
        return "recv", count, fails(other.recv, count, DONTWAIT)
    if what == 7:
        return "peek", count, fails(other.recv, count, DONTWAIT | PEEK)
    if what == 8:
        return "recv-urgent", fails(other.recv, count, OOB | DONTWAIT)
    if what == 9:
        return "peek-urgent", fails(other.recv, count, OOB | PEEK)
    if what == 10:
        return "all", count, fails(other.recv, count, DONTWAIT | WAITALL)
    if what == 11 and count == 1:
        return "inline", other.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, rng.randrange(2))
    return "ask", asked(other, SIOCATMARK), ready(other)


for seed in range(150):
    rng = random.Random(seed)
    one, other = socket.socketpair()
    steps = [perform(one, other, rng) for _ in range(rng.randrange(3, 16))]
    other.close()
    steps.append(("closed", one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))
    print(seed, *steps)

# A receiver that waits for more than there is before the mark.
one, other = socket.socketpair()
found = []
thread = threading.Thread(target=lambda: found.append(other.recv(9, WAITALL)))
thread.start()
time.sleep(0.05)
one.send(b"ab")
time.sleep(0.05)
one.send(b"cd!", OOB)
thread.join()
print(found, other.recv(1, OOB))
print(
    fails(one.send, b"", OOB),
    fails(one.send, b"x" * 100_000, OOB),
    len(other.recv(1 << 20, WAITALL)),
    other.recv(9, OOB),
)
one.send(b"z", OOB)
print(other.recvmsg(9, 0, OOB)[::2], [asked(each, SIOCATMARK) for each in (one, other)])
one.close()
print(other.recv(9), ready(other), fails(other.recv, 9, OOB))

# Datagrams have none.
for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    print(fails(one.send, b"x", OOB), fails(other.recv, 1, OOB), fails(asked, other, SIOCATMARK))

# SIGURG for the owner, of TCP too.
signal.signal(signal.SIGURG, lambda *_: print("urgent"))
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
for one, other in (socket.socketpair(), (client, listener.accept()[0])):
    one.send(b"x", OOB)
    print(control(other, F_GETOWN), control(other, F_SETOWN, os.getpid()))
    one.send(b"y", OOB)
    time.sleep(0.02)
    print(control(other, F_GETOWN) == os.getpid())
    control(other, F_SETOWN, -os.getpgid(0))
    print(control(other, F_GETOWN_EX, bytes(8)) == struct.pack("<ii", 2, os.getpgid(0)), control(other, F_SETOWN, 0))
    print(fails(control, other, F_SETOWN, 0x3FFFFFFF), fails(control, other, F_SETOWN, -(1 << 31)))
    one.send(b"z", OOB)
    print(other.recv(9, OOB))
    kind, pid = struct.unpack("<ii", control(other, F_GETOWN_EX, bytes(8)))
    print(pid, fails(control, other, F_SETOWN_EX, struct.pack("<ii", 7, 0)))
    print(
        control(other, F_SETOWN_EX, struct.pack("<ii", 2, os.getpgid(0))) != b"",
        control(other, F_GETOWN_EX, bytes(8))[:4],
    )
