# ruff: noqa
import ctypes, select, signal, struct, threading, time
from common import fails, os

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def timerfd(clock=1, flags=0):
    return call(283, clock, flags)


def settime(fd, value, interval=0.0, flags=0):
    pair = [part for seconds in (interval, value) for part in (int(seconds), int(seconds % 1 * 1e9))]
    return call(286, fd, flags, struct.pack("4q", *pair), None)


# Reading waits; so do poll and epoll.
fd = timerfd()
settime(fd, 0.02)
print(struct.unpack("Q", os.read(fd, 8)))
settime(fd, 0.02, 0.01)
print([struct.unpack("Q", os.read(fd, 8))[0] >= 1 for _ in range(3)])
settime(fd, 0)
e = select.epoll()
e.register(fd, select.EPOLLIN)
print(e.poll(0.01))
settime(fd, time.monotonic() + 0.02, flags=1)
print(len(e.poll()), len(e.poll(0)), struct.unpack("Q", os.read(fd, 8)), e.poll(0))
real = timerfd(0)
settime(real, time.time() + 0.02, flags=1)
print(select.select([real], [], []) == ([real], [], []))
settime(fd, 0.01)
pid = os.fork()
if not pid:
    os._exit(len(os.read(fd, 8)))
print(os.waitpid(pid, 0)[1] >> 8)

# Signals as a file.
mask = {signal.SIGUSR1, signal.SIGCHLD, signal.SIGRTMIN}
signal.pthread_sigmask(signal.SIG_BLOCK, mask)
s = call(289, -1, struct.pack("Q", sum(1 << n - 1 for n in mask)), 8, 0)


def told(data):
    return [
        struct.unpack_from("IiiII", data, at)[0:3:2] + (struct.unpack_from("i", data, at + 44)[0],)
        for at in range(0, len(data), 128)
    ]


e.register(s, select.EPOLLIN | select.EPOLLET)
print(e.poll(0))
os.kill(os.getpid(), signal.SIGUSR1)
print(e.poll() == [(s, 1)], e.poll(0), told(os.read(s, 1000)))
threading.Timer(0.02, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
print(told(os.read(s, 128)))
for _ in range(3):
    signal.pthread_kill(threading.get_ident(), signal.SIGRTMIN)
print(told(os.read(s, 256)), told(os.read(s, 256)))
pid = os.fork()
if not pid:
    os._exit(7)
data = os.read(s, 128)
print(
    [n if n != pid else "pid" for n in struct.unpack_from("IiiII", data)[:4]],
    struct.unpack_from("i", data, 40),
    os.waitpid(pid, 0)[1],
)
os.set_blocking(s, False)
print(fails(os.read, s, 128))
pid = os.fork()
if not pid:
    # The mask is inherited, what is pending is not; the file gives the reader's own signals.
    os.kill(os.getppid(), signal.SIGUSR1)
    os._exit(0 if fails(os.read, s, 128) == "EAGAIN" else 1)
print(os.waitpid(pid, 0)[1], sorted(told(os.read(s, 1000)))[0])
