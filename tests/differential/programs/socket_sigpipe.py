# ruff: noqa
import signal
import socket
from common import fails, os

a, b = socket.socketpair()
b.close()
print(fails(a.send, b"x"))
signal.signal(signal.SIGPIPE, lambda number, frame: print("SIGPIPE"))
print(fails(a.send, b"x"), fails(os.write, a.fileno(), b"x"))
print(fails(a.send, b"x", socket.MSG_NOSIGNAL))
a, b = socket.socketpair(type=socket.SOCK_SEQPACKET)
b.close()
print(fails(a.send, b"x"))
a = socket.socket()
print(fails(a.send, b"x"))
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
a, b = socket.socketpair()
b.close()
print("ending", flush=True)
os.write(a.fileno(), b"x")
