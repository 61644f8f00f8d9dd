# ruff: noqa
import signal
import socket
import tempfile

from common import fails, os, sys

signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def pair(send_buffer=4096):
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    client.connect(listener.getsockname())
    return client, listener.accept()[0]


def state(client):
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


data = b"x" * (1 << 20)
for blocking in (True, False):
    for unread in (True, False):
        client, server = pair()
        client.setblocking(blocking)
        client.send(b"hello")
        if not unread:
            print(server.recv(10))
        server.close()
        sent = fails(client.send, data)
        # How much the buffer takes is Linux's business, but it is never all of it.
        print(blocking, unread, sent if isinstance(sent, str) else 0 < sent < len(data))
        print(fails(client.send, b"x"), state(client), fails(client.send, b"x"), fails(client.recv, 10))

with tempfile.TemporaryFile() as file:
    file.write(data)
    for blocking in (True, False):
        client, server = pair()
        client.setblocking(blocking)
        server.close()
        sent = fails(os.sendfile, client.fileno(), file.fileno(), 0, len(data))
        print(0 < sent < len(data), fails(os.sendfile, client.fileno(), file.fileno(), 0, len(data)))
        print(fails(client.recv, 10), fails(client.recv, 10))

client, server = pair()
server.close()
print(client.recv(10), client.send(b"small"), fails(client.send, b"more"), fails(client.shutdown, socket.SHUT_WR))
sys.stdout.flush()
