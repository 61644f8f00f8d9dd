# ruff: noqa
# How much a connection takes that nobody reads, for buffers of several sizes: about as much here as there.
import select, socket, time
from common import fails

#: What Linux 6.18 takes in the end, in bytes, by SO_SNDBUF and SO_RCVBUF; at once it may take less than half of it.
TAKEN = {
    (1024, 1024): 5_184,
    (1024, 16384): 32_768,
    (4096, 4096): 12_288,
    (8192, 1024): 9_792,
    (8192, 16384): 40_960,
    (16384, 4096): 30_720,
    (16384, 16384): 57_344,
    (65536, 1024): 57_024,
    (65536, 4096): 100_352,
    (65536, 65536): 269_826,
    (131072, 1024): 110_592,
    (131072, 16384): 270_336,
}


def taken(send, receive):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send)
    client.connect(listener.getsockname())
    server, _ = listener.accept()
    client.setblocking(False)
    count = quiet = 0
    while quiet < 5:
        try:
            count += client.send(bytes(65536))
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.005)
    writable = select.select([], [client], [], 0)[1]
    left = count
    while left:
        left -= len(server.recv(65536))
        if left:
            select.select([server], [], [])
    return count, writable, select.select([], [client], [], 1)[1] == [client]


for (send, receive), expected in TAKEN.items():
    count, *rest = taken(send, receive)
    print(send, receive, 0.4 * expected < count < 1.4 * expected, *rest)
