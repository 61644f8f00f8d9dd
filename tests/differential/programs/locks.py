# ruff: noqa
import signal, struct, threading, time, fcntl
from common import errno, fails, os

a = os.open("file", os.O_RDWR | os.O_CREAT)
r, w = os.pipe()


def child(function):
    pid = os.fork()
    if not pid:
        code = 99
        try:
            code = function() or 0
        finally:
            os._exit(code)
    return pid


def code(pid):
    return os.waitpid(pid, 0)[1] >> 8


def number(name):
    return getattr(errno, name) if isinstance(name, str) else 0


# A POSIX lock is the process's: a child does not inherit it, and sees whose it is.
fcntl.lockf(a, fcntl.LOCK_EX, 10)
print(errno.errorcode[code(child(lambda: number(fails(fcntl.lockf, a, fcntl.LOCK_EX | fcntl.LOCK_NB, 1))))])


def whose():
    kind, _, start, count, pid = struct.unpack(
        "hh4xqqi4x", fcntl.fcntl(a, fcntl.F_GETLK, struct.pack("hh4xqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    )
    return 10 * kind + (pid == os.getppid()) + start + count


print(code(child(whose)), code(child(lambda: number(fails(fcntl.lockf, a, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 10)))))

# One that waits gets it when it goes: by unlocking, by closing, by the end of the process.
for let_go in (
    lambda: fcntl.lockf(a, fcntl.LOCK_UN),
    lambda: os.close(os.dup(a)),
    lambda: os.close(os.open("file", os.O_RDONLY)),
):
    fcntl.lockf(a, fcntl.LOCK_EX)
    pid = child(lambda: fcntl.lockf(a, fcntl.LOCK_EX) or os.write(w, b"got it") and 0)
    time.sleep(0.05)
    os.set_blocking(r, False)
    before = fails(os.read, r, 100)
    let_go()
    os.set_blocking(r, True)
    print(before, os.read(r, 100), code(pid))
pid = child(lambda: fcntl.lockf(a, fcntl.LOCK_EX) or os.write(w, b"x") and time.sleep(0.05) or 4)
os.read(r, 1)
fcntl.lockf(a, fcntl.LOCK_EX)
print(code(pid))

# A signal interrupts; with SA_RESTART (os does so after a handler that raises nothing) it goes on.
pid = child(lambda: fcntl.lockf(a, fcntl.LOCK_SH) or 5)
time.sleep(0.05)
os.kill(pid, signal.SIGTERM)
print(os.waitpid(pid, 0)[1])


class Stop(Exception):
    pass


def stop(*_):
    raise Stop


def interrupted():
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    try:
        fcntl.lockf(a, fcntl.LOCK_EX)
    except Stop:
        return 6


print(code(child(interrupted)))

# A circle of waiting processes is noticed.
fcntl.lockf(a, fcntl.LOCK_UN)
fcntl.lockf(a, fcntl.LOCK_EX, 1, 0)


def other():
    fcntl.lockf(a, fcntl.LOCK_EX, 1, 1)
    os.write(w, b"x")
    fcntl.lockf(a, fcntl.LOCK_EX, 1, 0)
    return 8


pid = child(other)
os.read(r, 1)
time.sleep(0.05)
print(fails(fcntl.lockf, a, fcntl.LOCK_EX, 1, 1))
fcntl.lockf(a, fcntl.LOCK_UN)
print(code(pid))

# flock belongs to the open file, which a child shares.
fcntl.flock(a, fcntl.LOCK_EX)
print(code(child(lambda: fcntl.flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB) or 1)))
b = os.open("file", os.O_RDWR)
print(fails(fcntl.flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB))
pid = child(lambda: fcntl.flock(b, fcntl.LOCK_EX) or os.write(w, b"y") and 0)
time.sleep(0.05)
fcntl.flock(a, fcntl.LOCK_UN)
print(os.read(r, 1), code(pid), fails(fcntl.flock, a, fcntl.LOCK_SH | fcntl.LOCK_NB))
os.close(b)
print(fails(fcntl.flock, a, fcntl.LOCK_SH | fcntl.LOCK_NB))

# Locks of open files exclude threads too.
OFD_SETLK, OFD_SETLKW = 37, 38
b = os.open("file", os.O_RDWR)
lock = struct.pack("hh4xqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
unlock = struct.pack("hh4xqqi4x", fcntl.F_UNLCK, 0, 0, 0, 0)
fcntl.fcntl(a, OFD_SETLK, lock)
order = []
thread = threading.Thread(target=lambda: (fcntl.fcntl(b, OFD_SETLKW, lock), order.append("thread")))
thread.start()
time.sleep(0.05)
order.append("main")
fcntl.fcntl(a, OFD_SETLK, unlock)
thread.join()
print(order)
