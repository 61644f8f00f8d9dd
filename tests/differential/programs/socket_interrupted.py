# ruff: noqa
import signal
import socket
import errno
from common import fails, os


class Caught(Exception):
    pass


def handler(number, frame):
    raise Caught


signal.signal(signal.SIGALRM, handler)
listener = socket.create_server(("127.0.0.1", 0))
a, b = socket.socketpair()
d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
d.bind(("127.0.0.1", 0))
for call in (
    listener.accept,
    lambda: b.recv(1),
    lambda: d.recvfrom(1),
    lambda: a.sendall(bytes(10_000_000)),
    lambda: a.recvmsg(1),
):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        call()
    except Caught:
        print("caught")
# What the signal did not end goes on after the handler.
signal.signal(signal.SIGALRM, lambda number, frame: os.write(w, b"late"))
a, b = socket.socketpair()
w = a.fileno()
signal.setitimer(signal.ITIMER_REAL, 0.05)
print(b.recv(10))
# With a time-out of its own the call is not made again by the system (Python does that).
b.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, b"\x05" + bytes(15))
signal.setitimer(signal.ITIMER_REAL, 0.05)
print(b.recv(10))
# Time-outs.
b.settimeout(0.05)
try:
    b.recv(1)
except TimeoutError as error:
    print(error)
listener.settimeout(0.05)
try:
    listener.accept()
except TimeoutError as error:
    print(error)
