# ruff: noqa
# The end of a connection that is closed first keeps its port for a while: only SO_REUSEADDR on both gets around it.
import socket
from common import fails

REUSE = (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def connection(reuse=False, address=("127.0.0.1", 0), family=socket.AF_INET):
    listener = socket.socket(family)
    if reuse:
        listener.setsockopt(*REUSE)
    listener.bind(address)
    listener.listen()
    client = socket.create_connection(listener.getsockname()[:2])
    server, _ = listener.accept()
    where = listener.getsockname()
    listener.close()
    return client, server, where


def again(where, reuse=False, family=socket.AF_INET):
    """What binding the port again gives, and listening."""
    with socket.socket(family) as listener:
        if reuse:
            listener.setsockopt(*REUSE)
        return fails(listener.bind, where) or fails(listener.listen)


for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0))):
    # The server first; then the client first; then both by shutdown.
    for reuse in (False, True):
        client, server, where = connection(reuse, address, family)
        server.close()
        print(again(where, False, family), again(where, True, family), client.recv(1))
        client.close()
        print(again(where, False, family), again(where, True, family))
        client, server, where = connection(reuse, address, family)
        name = client.getsockname()
        client.close()
        print(again(where, False, family), server.recv(1))
        server.close()
        print(again(where, False, family), again(name, False, family), again(name, True, family))
        client, server, where = connection(reuse, address, family)
        server.shutdown(socket.SHUT_WR)
        client.shutdown(socket.SHUT_WR)
        print(client.recv(1), server.recv(1), again(where, True, family))
        client.close()
        server.close()
        print(again(where, False, family), again(where, True, family))

# A reset leaves nothing behind: by SO_LINGER, by data that nobody reads, by data for an end that is closed.
client, server, where = connection()
server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
server.close()
client.close()
print(again(where))
client, server, where = connection()
server.send(b"x")
server.close()
print(again(where), client.close(), again(where))
client, server, where = connection()
client.send(b"x")
server.close()
print(again(where), fails(client.recv, 1))
client, server, where = connection()
server.close()
print(again(where), client.send(b"x"), again(where))

# The wildcard address and others.
client, server, where = connection()
server.close()
client.close()
print(again(("", where[1])), again(("127.0.0.2", where[1])), again(("::", where[1]), family=socket.AF_INET6))
print(fails(socket.create_connection, where))
