# ruff: noqa
# A call that sleeps keeps its file: another thread's close neither ends it, nor lets it find another file.
import ctypes, select, signal, socket, threading, time
from common import fails, os


def asleep(function, *arguments):
    """A thread in a call; what gives its result when it is over."""
    found = []
    thread = threading.Thread(target=lambda: found.append(fails(function, *arguments)))
    thread.start()
    time.sleep(0.05)

    def result():
        thread.join()
        return found[0]

    result.is_over = lambda: not thread.is_alive()
    return result


# Data that comes later is received; the other end hears of the end only then.
one, other = socket.socketpair()
result = asleep(os.read, one.fileno(), 10)
os.close(one.detach())
time.sleep(0.05)
print(result.is_over(), select.select([other], [], [], 0)[0], other.send(b"late"), result())
print(other.recv(9), fails(other.send, b"x"))

# Shutting it down ends the call.
one, other = socket.socketpair()
number = one.fileno()
result = asleep(one.recv, 10)
os.close(number)
print(result.is_over(), other.shutdown(socket.SHUT_RDWR), result())
one.detach()

# The number is another file's by now.
r, w = os.pipe()
null = os.open("/dev/null", os.O_RDONLY)
for again in (lambda: os.dup2(null, r), lambda: (os.close(r), os.dup(null) == r)[1]):
    result = asleep(os.read, r, 10)
    again()
    time.sleep(0.05)
    print(result.is_over(), os.write(w, b"to the pipe"), result(), os.read(r, 5))
    os.close(r)
    os.close(w)
    r, w = os.pipe()

# A full pipe; its reader is there, its writer's number gone.
os.set_blocking(w, False)
try:
    while os.write(w, bytes(4096)):
        pass
except BlockingIOError:
    os.set_blocking(w, True)
result = asleep(os.write, w, b"more")
os.close(w)
print(result.is_over(), len(os.read(r, 1 << 20)), result(), os.read(r, 10), os.read(r, 10))

# A listener, whose new connection gets the number that is free now.
listener = socket.create_server(("127.0.0.1", 0))
address, number = listener.getsockname(), listener.fileno()
result = asleep(listener._accept)
os.close(number)
listener.detach()
client = socket.create_connection(address)
print(client.fileno() == number)
accepted, peer = result()
print(accepted > number, peer == client.getsockname(), os.write(accepted, b"hello"), client.recv(9))
print(fails(socket.create_connection, address))

# A set of files, and a handler's end of the wait, after which the number is bad.
r, w = os.pipe()
poll = select.epoll()
poll.register(r, select.EPOLLIN)
libc = ctypes.CDLL(None, use_errno=True)
events = ctypes.create_string_buffer(12)
result = asleep(libc.epoll_wait, poll.fileno(), events, 1, -1)
os.close(poll.fileno())
print(result.is_over(), os.write(w, b"x"), result(), os.read(r, 1))
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.siginterrupt(signal.SIGUSR1, False)
r, w = os.pipe()
ready = threading.Event()


def restarted():
    global ident
    ident = threading.get_ident()
    return os.read(r, 1)


result = asleep(restarted)
os.close(r)
print(result.is_over(), signal.pthread_kill(ident, signal.SIGUSR1), result(), fails(os.write, w, b"x"))
