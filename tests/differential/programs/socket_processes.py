# ruff: noqa
import array
import multiprocessing
import socket
from common import fails, os, sys


def double(connection, queue):
    while (item := connection.recv()) is not None:
        connection.send(item * 2)
    queue.put("done")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    # A connection is inherited, and ends when the last who has it closes it.
    a, b = socket.socketpair()
    pid = os.fork()
    if not pid:
        a.close()
        b.sendall(b"from the child")
        os._exit(0)
    b.close()
    print(a.recv(100), a.recv(100))
    os.waitpid(pid, 0)

    # A descriptor goes to another process.
    a, b = socket.socketpair()
    pid = os.fork()
    if not pid:
        r, w = os.pipe()
        socket.send_fds(b, [b"a pipe"], [w])
        os.close(w)
        print(os.read(r, 100), flush=True)
        os._exit(0)
    data, fds, flags, _ = socket.recv_fds(a, 100, 5)
    print(data, len(fds), flags)
    os.write(fds[0], b"written by the parent")
    os.waitpid(pid, 0)
    os.close(fds[0])

    # What is in flight is closed when nobody can receive it any more.
    r, w = os.pipe()
    socket.send_fds(a, [b"x"], [w])
    os.close(w)
    os.set_blocking(r, False)
    print(fails(os.read, r, 1))
    b.close()
    print(os.read(r, 1))

    # Credentials of the peer.
    a, b = socket.socketpair()
    pid, uid, gid = array.array("i", a.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    print(pid == os.getpid(), uid == os.getuid(), gid == os.getgid())

    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    queue = context.Queue()
    process = context.Process(target=double, args=(there, queue))
    process.start()
    for item in (1, "ab", list(range(50_000))):
        here.send(item)
        result = here.recv()
        print(result == item * 2)
    here.send(None)
    print(queue.get())
    process.join()
    print(process.exitcode)
