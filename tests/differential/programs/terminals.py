# ruff: noqa
import pty, select, signal, struct, sys, termios, time, tty, fcntl
from common import errno, fails, os

sys.stdout.reconfigure(line_buffering=True)


def drain(fd):
    out = b""
    while select.select([fd], [], [], 10)[0]:
        piece = fails(os.read, fd, 4096)
        if not isinstance(piece, bytes) or not piece:
            break
        out += piece
    return out


def until(fd, what):
    out = b""
    while what not in out:
        out += os.read(fd, 4096)
    return out


def on_a_terminal(program):
    """Run ``program`` as the leader of a session on a terminal of its own."""
    pid, fd = pty.fork()
    if not pid:
        try:
            os._exit(program() or 0)
        except BaseException as error:
            print(type(error).__name__, error)
            sys.stdout.flush()
            os._exit(99)
    return pid, fd


def whose():
    print(os.getsid(0) == os.getpid() == os.tcgetpgrp(0), os.isatty(0), os.ttyname(1) == os.ttyname(0))
    print(struct.unpack("i", fcntl.ioctl(0, 0x5429, b"...."))[0] == os.getpid(), input("? "))
    with open("/dev/tty", "w") as terminal:
        print("through /dev/tty", file=terminal)
    print(fails(os.setsid), fails(os.tcsetpgrp, 0, 99999), fails(os.tcsetpgrp, 0, os.getppid()))
    sys.stdout.flush()


pid, fd = on_a_terminal(whose)
out = until(fd, b"? ")
os.write(fd, b"answer\n")
print(out + drain(fd), os.waitpid(pid, 0)[1])

# Keys that send signals; what was typed before them is gone.
for key, signo in ((b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)):

    def caught():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signo})
        os.write(1, b"ready\n")
        signal.sigwait({signo})
        os.write(1, b"caught\n")
        print([sys.stdin.readline()])
        sys.stdout.flush()

    pid, fd = on_a_terminal(caught)
    until(fd, b"ready")
    os.write(fd, b"lost" + key)
    until(fd, b"caught")
    os.write(fd, b"kept\n")
    print(drain(fd), os.waitpid(pid, 0)[1])
signal.signal(signal.SIGINT, signal.SIG_DFL)
pid, fd = on_a_terminal(lambda: os.write(1, b"ready\n") and time.sleep(20))
until(fd, b"ready")
os.write(fd, b"\x03")
print(b"^C" in drain(fd), os.waitpid(pid, 0)[1])


# Job control: a child in the background is stopped when it reads, and goes on in front.
def shell():
    r, w = os.pipe()
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os.write(w, b"x")
        line = os.read(0, 100)
        os.write(1, b"child has " + line)
        os._exit(7)
    os.read(r, 1)
    status = os.waitpid(child, os.WUNTRACED)[1]
    print(os.WIFSTOPPED(status), os.WSTOPSIG(status) == signal.SIGTTIN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, child)
    os.kill(-child, signal.SIGCONT)
    status = os.waitpid(child, 0)[1]
    os.tcsetpgrp(0, os.getpgrp())
    print(os.WEXITSTATUS(status))
    # In the background even the settings are not to be changed; and a key stops who is in front.
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        termios.tcsetattr(0, termios.TCSANOW, termios.tcgetattr(0))
        os._exit(8)
    status = os.waitpid(child, os.WUNTRACED)[1]
    print(os.WIFSTOPPED(status), os.WSTOPSIG(status) == signal.SIGTTOU)
    os.tcsetpgrp(0, child)
    os.kill(child, signal.SIGCONT)
    print(os.WEXITSTATUS(os.waitpid(child, 0)[1]))
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpgrp())
        os.write(1, b"stop me\n")
        time.sleep(20)
    status = os.waitpid(child, os.WUNTRACED)[1]
    print(os.WIFSTOPPED(status), os.WSTOPSIG(status) == signal.SIGTSTP)
    os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1])
    sys.stdout.flush()


pid, fd = on_a_terminal(shell)
out = until(fd, b"True True\r\n")
os.write(fd, b"line\n")
out += until(fd, b"stop me\r\n")
os.write(fd, b"\x1a")
out += drain(fd)
print(out.replace(b"^Z", b""), os.waitpid(pid, 0)[1])


# The size, and who is told of it.
def size():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})
    os.write(1, b"ready\n")
    signal.sigwait({signal.SIGWINCH})
    os.write(1, str(os.get_terminal_size(0)).encode())
    sys.stdin.readline()


pid, fd = on_a_terminal(size)
until(fd, b"ready")
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
print(until(fd, b")")[-45:])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
os.write(fd, b"\n")
print(drain(fd), os.waitpid(pid, 0)[1])


# Hanging up: the master is closed, or the leader ends.
def hung():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    os.write(1, b"ready\n")
    signal.sigwait({signal.SIGHUP})
    result = os.read(0, 10), fails(os.write, 1, b"x"), fails(os.open, "/dev/tty", os.O_RDWR)
    return 0 if result == (b"", "EIO", "ENXIO") else 1


pid, fd = on_a_terminal(hung)
until(fd, b"ready")
os.close(fd)
print(os.waitpid(pid, 0)[1])
pid, fd = on_a_terminal(lambda: os.write(1, b"ready\n") and signal.pause())
until(fd, b"ready")
os.close(fd)
print(os.waitpid(pid, 0)[1])

r, w = os.pipe()
r2, w2 = os.pipe()


def leave():
    if not os.fork():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        os.write(1, b"ready\n")
        os.write(w2, b"x")
        signal.sigwait({signal.SIGHUP})
        os.write(w, repr((fails(os.open, "/dev/tty", os.O_RDWR), fails(os.write, 1, b"x"))).encode())
        os._exit(0)
    os.read(r2, 1)
    return 5


pid, fd = on_a_terminal(leave)
print(drain(fd), os.waitpid(pid, 0)[1] >> 8, os.read(r, 100))


# A terminal becomes a session's by being opened, unless it is told not to.
def adopt():
    master, slave = os.openpty()
    name = os.ttyname(slave)
    os.close(slave)
    if not os.fork():
        os.setsid()
        a = os.open(name, os.O_RDWR | os.O_NOCTTY)
        before = fails(os.open, "/dev/tty", os.O_RDWR)
        fcntl.ioctl(a, termios.TIOCSCTTY, 0)
        one = fails(os.tcgetpgrp, a) == os.getpid()
        fcntl.ioctl(a, termios.TIOCNOTTY)
        gone = fails(os.tcgetpgrp, a)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        b = os.open(name, os.O_RDWR)
        os.write(w, repr((before, one, gone, os.tcgetpgrp(b) == os.getpid())).encode())
        os._exit(0)
    return os.read(r, 100)


signal.signal(signal.SIGHUP, signal.SIG_IGN)
print(adopt(), os.wait()[1])

# pty.spawn, on standard streams that are no terminal.
print(pty.spawn([sys.executable, "-c", "import os; print(os.isatty(0), os.isatty(1))"]))
sys.stdout.flush()
