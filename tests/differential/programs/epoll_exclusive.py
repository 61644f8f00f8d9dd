# ruff: noqa
# Of several sets that watch a file with EPOLLEXCLUSIVE, news wakes one; of those without it, all.
import select, socket, threading, time
from common import fails, os

IN, OUT, ET, EXCLUSIVE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLET, select.EPOLLEXCLUSIVE


def woken(file, flags, news, count=4):
    """How many of ``count`` threads, each with a set of its own, wake up."""
    sets = [select.epoll() for _ in range(count)]
    for each in sets:
        each.register(file, flags)
    found = []
    threads = [threading.Thread(target=lambda each=each: found.extend(each.poll(0.4))) for each in sets]
    for thread in threads:
        thread.start()
    time.sleep(0.15)
    news()
    for thread in threads:
        thread.join()
    for each in sets:
        each.close()
    return len(found)


counter = os.eventfd(0)
print(woken(counter, IN, lambda: os.eventfd_write(counter, 1)), os.eventfd_read(counter))
print(woken(counter, IN | EXCLUSIVE, lambda: os.eventfd_write(counter, 1)), os.eventfd_read(counter))
print(woken(counter, IN | ET | EXCLUSIVE, lambda: [os.eventfd_write(counter, 1) for _ in range(2)]))
print(os.eventfd_read(counter))

# A listener: one wakes for a connection. A stream: one wakes for data.
for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, "listener")):
    listener = socket.socket(family)
    listener.bind(address)
    listener.listen()
    client = socket.socket(family)
    print(woken(listener, IN | EXCLUSIVE, lambda: client.connect(listener.getsockname())))
    server, _ = listener.accept()
    print(woken(server, IN | EXCLUSIVE, lambda: client.send(b"x")), server.recv(9))
    print(woken(server, IN, lambda: client.send(b"x")), server.recv(9))
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
print(woken(other, IN | EXCLUSIVE, lambda: one.send(b"x")), other.recv(9))

# Who does not wait for such news does not take it from who does.
idle = select.epoll()
idle.register(counter, IN | EXCLUSIVE)
print(woken(counter, IN | EXCLUSIVE, lambda: os.eventfd_write(counter, 1)), idle.poll(0) == [(counter, IN)])
print(fails(idle.modify, counter, IN), fails(idle.modify, counter, IN | EXCLUSIVE))
print(fails(select.epoll().register, idle.fileno(), IN | EXCLUSIVE), idle.unregister(counter))
