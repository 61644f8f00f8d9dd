# ruff: noqa
import ctypes, select, signal, struct, time
from common import errno, fails, os

libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


r, w = os.pipe()
pid = os.fork()
if not pid:
    os.read(r, 1)
    os._exit(3)
fd = os.pidfd_open(pid)
p = select.poll()
p.register(fd, select.POLLIN)
print(os.get_inheritable(fd), p.poll(0))
print(fails(os.waitid, os.P_PIDFD, fd, os.WEXITED | os.WNOHANG))
os.write(w, b"x")
print(p.poll() == [(fd, 1)], fails(signal.pidfd_send_signal, fd, 0))
result = os.waitid(os.P_PIDFD, fd, os.WEXITED)
print(result.si_pid == pid, result.si_status, result.si_code)
print(p.poll(0) == [(fd, 17)], fails(signal.pidfd_send_signal, fd, 0), fails(os.waitid, os.P_PIDFD, fd, os.WEXITED))
print(fails(os.pidfd_open, pid), fails(os.pidfd_open, os.getpid(), 7))

pid = os.fork()
if not pid:
    signal.pause()
fd = os.pidfd_open(pid, os.O_NONBLOCK)
print(fails(os.waitid, os.P_PIDFD, fd, os.WEXITED), signal.pidfd_send_signal(fd, signal.SIGTERM))
os.set_blocking(fd, True)
print(os.waitid(os.P_PIDFD, fd, os.WEXITED).si_status)

# clone(CLONE_PIDFD), by the bare call.
for flags in (0x1000, 0x1000 | 0x100000, 0x1000 | 0x400000):
    place = ctypes.c_int(-1)
    try:
        child = call(56, flags | signal.SIGCHLD, None, ctypes.byref(place), None, None)
    except OSError as error:
        print(errno.errorcode[error.errno], place.value)
        continue
    if not child:
        os._exit(9)
    print(os.get_inheritable(place.value), os.waitid(os.P_PIDFD, place.value, os.WEXITED).si_status)
    os.close(place.value)

# A directory of /proc stands for its process as well, but not one of a thread.
caught = []
signal.signal(signal.SIGUSR2, lambda *what: caught.append(what[0]))
with_directory = os.open(f"/proc/{os.getpid()}", os.O_DIRECTORY)
print(fails(signal.pidfd_send_signal, with_directory, signal.SIGUSR2), len(caught))
thread = os.open(f"/proc/self/task/{os.getpid()}", os.O_DIRECTORY)
print(fails(signal.pidfd_send_signal, thread, 0), fails(signal.pidfd_send_signal, os.open("/proc", os.O_RDONLY), 0))
