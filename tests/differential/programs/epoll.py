# ruff: noqa
import ctypes, select, signal, struct, threading, time
from common import errno, fails, os

libc = ctypes.CDLL(None, use_errno=True)
IN, ET, ONESHOT = select.EPOLLIN, select.EPOLLET, select.EPOLLONESHOT


def soon(function, delay=0.03):
    timer = threading.Timer(delay, function)
    timer.start()
    return timer


# Waiting ends by news from another thread, by time, by a signal.
r, w = os.pipe()
e = select.epoll()
e.register(r, IN)
soon(lambda: os.write(w, b"x"))
print(e.poll() == [(r, IN)], os.read(r, 1), e.poll(0.01), e.poll(0))
soon(lambda: e.register(w, select.EPOLLOUT))
print(e.poll() == [(w, select.EPOLLOUT)], e.unregister(w))
started = time.monotonic()
print(e.poll(0.05), time.monotonic() - started >= 0.05)

# A file of two sets wakes both; one that is waited for by two threads in one set wakes at least one.
a, b = select.epoll(), select.epoll()
for each in (a, b):
    each.register(r, IN | ET)
found = []
threads = [threading.Thread(target=lambda each=each: found.extend(each.poll())) for each in (a, b)]
for thread in threads:
    thread.start()
soon(lambda: os.write(w, b"y"))
for thread in threads:
    thread.join()
print(found == [(r, IN)] * 2, a.poll(0), os.read(r, 1))
e.modify(r, IN | ONESHOT)
found = []
threads = [threading.Thread(target=lambda: found.extend(e.poll(0.2))) for _ in range(3)]
for thread in threads:
    thread.start()
os.write(w, b"z")
for thread in threads:
    thread.join()
print(found == [(r, IN)], os.read(r, 1))

# A set that is ready is itself ready to be read, for poll, select and another set.
outer = select.epoll()
e.modify(r, IN)
outer.register(e.fileno(), IN)
soon(lambda: os.write(w, b"."))
print(outer.poll() == [(e.fileno(), IN)], select.select([e], [], [], 0) == ([e], [], []))
os.read(r, 1)
print(outer.poll(0), select.select([outer], [], [], 0))

# The signal mask of epoll_pwait counts for the time of the wait, and only then.
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
signal.raise_signal(signal.SIGUSR1)
buffer = ctypes.create_string_buffer(12)
none = struct.pack("Q", 0)
print(libc.epoll_pwait(e.fileno(), buffer, 1, 20, None))
result = libc.syscall(281, e.fileno(), buffer, 1, -1, none, ctypes.c_size_t(8)), errno.errorcode[ctypes.get_errno()]
print(result, signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, []))
signal.raise_signal(signal.SIGUSR1)
os.write(w, b"!")
print(libc.syscall(281, e.fileno(), buffer, 1, -1, none, ctypes.c_size_t(8)), signal.sigpending())
os.read(r, 1)
print(signal.sigtimedwait({signal.SIGUSR1}, 0) is not None)
# Without time to wait, a set does not look at signals; poll and select do.
entry, size = struct.pack("ihh", r, 1, 0), ctypes.c_size_t(8)
signal.raise_signal(signal.SIGUSR1)
print(libc.syscall(281, e.fileno(), buffer, 1, 0, none, size), len(signal.sigpending()))
print(libc.syscall(271, entry, 1, struct.pack("qq", 0, 0), none, size), errno.errorcode[ctypes.get_errno()])
signal.raise_signal(signal.SIGUSR1)
mask = ctypes.create_string_buffer(none)
pair = struct.pack("QQ", ctypes.addressof(mask), 8)
print(libc.syscall(270, 0, None, None, None, struct.pack("qq", 0, 0), pair), errno.errorcode[ctypes.get_errno()])
print(len(signal.sigpending()), signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, []))

# A child shares the set; what it registers is there for its parent, by the number that it had in the child.
pid = os.fork()
if not pid:
    os.set_inheritable(r, True)
    e.modify(r, IN | ET)
    os._exit(0)
os.waitpid(pid, 0)
os.write(w, b"1")
print(e.poll(0) == [(r, IN)], e.poll(0))

# The end of the other side, and closing what is watched.
os.close(w)
print(e.poll(0) == [(r, IN | select.EPOLLHUP)], e.poll(0))
copy = os.dup(r)
os.close(r)
print(fails(e.unregister, r), fails(e.modify, copy, IN))
e.close()
print(fails(outer.poll, 0), fails(os.read, copy, 10), os.read(copy, 10))
