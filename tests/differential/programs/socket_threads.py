# ruff: noqa
import socket
import threading
from common import fails, os


def echo(listener, count):
    for _ in range(count):
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data.upper())


for family, address in (
    (socket.AF_INET, ("127.0.0.1", 0)),
    (socket.AF_INET6, ("::1", 0)),
    (socket.AF_UNIX, "\0echo%d" % os.getpid()),
):
    listener = socket.socket(family)
    listener.bind(address)
    listener.listen()
    thread = threading.Thread(target=echo, args=(listener, 3))
    thread.start()
    for size in (0, 10, 3_000_000):
        client = socket.socket(family)
        client.connect(listener.getsockname())
        received = bytearray()
        sender = threading.Thread(target=lambda: (client.sendall(b"abc" * size), client.shutdown(socket.SHUT_WR)))
        sender.start()
        while data := client.recv(1 << 16):
            received += data
        sender.join()
        client.close()
        print(family.name, size, received == b"ABC" * size)
    thread.join()
    listener.close()

# A reader that sleeps is woken by data, by the end, and by a shutdown of its own side.
for end in (lambda a, b: a.send(b"x"), lambda a, b: a.close(), lambda a, b: b.shutdown(socket.SHUT_RD)):
    a, b = socket.socketpair()
    got = []
    thread = threading.Thread(target=lambda: got.append(b.recv(10)))
    thread.start()
    end(a, b)
    thread.join()
    print(got)

# As is who waits for a connection that never comes.
listener = socket.create_server(("127.0.0.1", 0))
got = []
thread = threading.Thread(target=lambda: got.append(fails(listener.accept)))
thread.start()
while not thread.is_alive():
    pass
listener.shutdown(socket.SHUT_RDWR)
thread.join()
print(got)
