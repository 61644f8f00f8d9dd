import ctypes
import signal

from common import errno, fails, os, sys

libc = ctypes.CDLL(None, use_errno=True)


def tee(source, out, count, flags=0):
    result = libc.tee(source, out, ctypes.c_size_t(count), ctypes.c_uint(flags))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result


NONBLOCK = 2
with open("in", "wb") as file:
    file.write(bytes(range(256)) * 1000)
source = os.open("in", os.O_RDONLY)
out = os.open("out", os.O_RDWR | os.O_CREAT)
r, w = os.pipe()
r2, w2 = os.pipe()
print(
    os.splice(source, w, 100), os.lseek(source, 0, 1), os.splice(source, w, 50, offset_src=1000), os.lseek(source, 0, 1)
)
print(tee(r, w2, 1000), os.read(r2, 1000)[-1], tee(r, r2, 5), tee(source, w2, 5), tee(r, w, 5), tee(r, w2, 5, 1 << 10))
print(os.splice(r, out, 120), os.splice(r, out, 1000, offset_dst=500), os.lseek(out, 0, 1), os.fstat(out).st_size)
print(fails(os.splice, r, out, 10, flags=NONBLOCK), fails(os.splice, r, w2, 10, flags=NONBLOCK))
print(os.splice(source, w, 10**6) <= 65536, fails(os.splice, source, w, 10**6, flags=NONBLOCK))
os.set_blocking(r, False)
while fails(os.read, r, 65536) != "EAGAIN":
    pass
os.set_blocking(r, True)
os.lseek(source, 0, 2)
print(os.splice(source, w, 10), os.write(w, b"abcdef"), os.splice(r, w2, 4), os.read(r2, 10), os.read(r, 10))
print(
    fails(os.splice, source, out, 10),
    fails(os.splice, r, w, 10),
    fails(os.splice, w, w2, 10),
    fails(os.splice, r, r2, 10),
)
print(fails(os.splice, r, out, 10, offset_src=0), fails(os.splice, source, w, 10, offset_dst=0))
print(fails(os.splice, 99, w, 10), fails(os.splice, 99, w, 0), fails(os.splice, source, w, 10, flags=1 << 10))
append = os.open("out", os.O_WRONLY | os.O_APPEND)
os.write(w, b"abc")
print(fails(os.splice, r, append, 10), fails(os.splice, os.open(".", os.O_RDONLY), w, 10))
os.read(r, 3)
sys.stdout.flush()
pid = os.fork()
if not pid:
    os.close(w)
    print(os.splice(r, out, 100), flush=True)  # waits for what the parent writes
    print(os.splice(r, out, 100), flush=True)  # waits for its end
    os._exit(0)
os.close(r)
os.write(w, b"late")
os.close(w)
os.waitpid(pid, 0)
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
os.close(r2)
os.lseek(source, 0, 0)
print(fails(os.splice, source, w2, 10), os.lseek(source, 0, 1))
