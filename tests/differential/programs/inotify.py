# ruff: noqa
import ctypes, select, struct, tempfile, threading
from common import fails, os

libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(os.O_CLOEXEC)
os.mkdir("watched")
print(libc.inotify_add_watch(fd, b"watched", 0xFC0 | 0x8))


def events(data):
    found, at = [], 0
    while at < len(data):
        number, mask, cookie, length = struct.unpack_from("iIII", data, at)
        found.append((number, hex(mask), cookie != 0, data[at + 16 : at + 16 + length].rstrip(b"\0")))
        at += 16 + length
    return found


# Reading waits, for another thread and for another process; so does epoll.
thread = threading.Timer(0.02, lambda: open("watched/a", "w").close())
thread.start()
print(events(os.read(fd, 16 + 16)))
thread.join()
pid = os.fork()
if not pid:
    os.rename("watched/a", "watched/b")
    os._exit(0)
os.waitpid(pid, 0)
e = select.epoll()
e.register(fd, select.EPOLLIN)
print(e.poll() == [(fd, 1)], events(os.read(fd, 4096)), e.poll(0))
with tempfile.NamedTemporaryFile(dir="watched", prefix="t", suffix="x" * 30) as file:
    file.write(b"x")
print([(mask, len(name)) for _, mask, _, name in events(os.read(fd, 4096))])
os.rename("watched/b", "gone")
os.rename("gone", "watched/back")
os.rename("watched", "moved")
os.unlink("moved/back")
os.rmdir("moved")
print(events(os.read(fd, 4096)))
