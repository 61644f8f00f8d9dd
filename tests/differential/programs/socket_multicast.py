# ruff: noqa
# Multicast on a machine that has nothing but its loopback interface: on the host, in a network namespace of its own.
import ctypes, fcntl, select, socket, struct
from common import errno, fails, os

CLONE_NEWUSER, CLONE_NEWNET, SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x10000000, 0x40000000, 0x8913, 0x8914, 1
if not ctypes.CDLL(None).unshare(CLONE_NEWUSER | CLONE_NEWNET):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as up:
        fcntl.ioctl(up, SIOCSIFFLAGS, struct.pack("<16sh22x", b"lo", IFF_UP))

IP, IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
JOIN, LEAVE, INTERFACE, ALL = socket.IP_ADD_MEMBERSHIP, socket.IP_DROP_MEMBERSHIP, socket.IP_MULTICAST_IF, 49
LO, OTHER, ANY = map(socket.inet_aton, ("127.0.0.1", "10.0.0.1", "0.0.0.0"))
ADDRESS = ("224.1.2.3", 5000)
GROUP = socket.inet_aton(ADDRESS[0])
FIRST = struct.pack("<i", 1)


def udp(bound=None, family=socket.AF_INET):
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if bound:
        made.bind(bound)
    return made


def option(sock, name, value, level=IP):
    return fails(sock.setsockopt, level, name, value)


# Joining and leaving.
one = udp()
print(
    option(one, JOIN, GROUP + ANY),
    option(one, JOIN, GROUP + LO),
    option(one, JOIN, GROUP + LO),
    option(one, JOIN, GROUP),
)
print(
    option(one, JOIN, GROUP + OTHER),
    option(one, JOIN, GROUP + ANY + struct.pack("<i", 9)),
    option(one, JOIN, OTHER + LO),
)
print(
    option(one, JOIN, socket.inet_aton("224.1.2.4") + ANY + FIRST),
    option(one, JOIN, socket.inet_aton("224.1.2.5") + ANY),
)
for group, interface in ((GROUP, ANY), (OTHER, LO), (GROUP, OTHER), (GROUP, LO), (GROUP, LO), (GROUP, ANY + FIRST)):
    print(option(one, LEAVE, group + interface), end=" ")
print([option(one, JOIN, socket.inet_aton("224.2.2.%d" % number) + LO) for number in range(22)])
stream = socket.socket()
print(
    option(stream, JOIN, GROUP + LO),
    option(stream, INTERFACE, LO),
    option(stream, JOIN, GROUP),
    fails(stream.connect, ADDRESS),
)
request = FIRST + bytes(4) + struct.pack("<HH4s", socket.AF_INET, 0, GROUP).ljust(128, b"\0")
one = udp()
print(
    [option(one, name, request) for name in (45, 42, 42, 45)],
    option(one, 42, request[:-1]),
    option(one, 42, bytes(136)),
)

# Sending needs an interface; who is a member, or content with others being so, receives.
sender = udp()
print(fails(sender.sendto, b"x", ADDRESS), fails(sender.connect, ADDRESS))
print(option(sender, INTERFACE, OTHER), option(sender, INTERFACE, b"x"), sender.getsockopt(IP, INTERFACE, 4))
print(option(sender, INTERFACE, GROUP + ANY + FIRST), sender.getsockopt(IP, INTERFACE, 4), sender.sendto(b"x", ADDRESS))
print(option(sender, INTERFACE, ANY), fails(sender.sendto, b"x", ADDRESS))
print(option(sender, INTERFACE, LO), sender.getsockopt(IP, INTERFACE, 4))
receivers = [udp(("", 5000)), udp(ADDRESS), udp(ADDRESS), udp(("127.0.0.1", 5000)), udp(("::", 5000), socket.AF_INET6)]


def received():
    found = []
    for each in receivers:
        answer = fails(each.recvfrom, 100)
        found.append(
            answer if isinstance(answer, str) else (answer[0], answer[1][0], answer[1][1] == sender.getsockname()[1])
        )
    return found


print(sender.sendto(b"nobody", ADDRESS), received())
print(option(receivers[1], JOIN, GROUP + LO), sender.sendto(b"one", ADDRESS), received(), sender.getsockname()[0])
print(option(receivers[0], ALL, 0), receivers[0].getsockopt(IP, ALL), sender.sendto(b"two", ADDRESS), received())
print(option(sender, socket.IP_MULTICAST_LOOP, 0), sender.sendto(b"three", ADDRESS), received())
print(sender.sendto(b"all hosts", ("224.0.0.1", 5000)), received())
print(sender.connect(ADDRESS), sender.getsockname()[0], sender.getpeername(), sender.send(b"four"), received())
print(option(receivers[1], LEAVE, GROUP + LO), sender.send(b"five"), received())
print(
    option(receivers[2], JOIN, GROUP + LO),
    receivers[2].close(),
    sender.send(b"six"),
    [fails(each.recv, 9) for each in receivers[:2]],
)

# IPv6: groups of ``lo`` can be joined, and not reached.
six, group = udp(("::", 0), socket.AF_INET6), socket.inet_pton(socket.AF_INET6, "ff02::1234")
for index in (0, 1, 1, 5):
    print(option(six, socket.IPV6_JOIN_GROUP, group + struct.pack("<i", index), IPV6), end=" ")
print(option(six, socket.IPV6_JOIN_GROUP, group, IPV6), option(six, socket.IPV6_JOIN_GROUP, bytes(16) + FIRST, IPV6))
for index in (5, 0, 1):
    print(option(six, socket.IPV6_LEAVE_GROUP, group + struct.pack("<i", index), IPV6), end=" ")
print(
    [option(six, socket.IPV6_MULTICAST_IF, index, IPV6) for index in (7, 0, 1)],
    six.getsockopt(IPV6, socket.IPV6_MULTICAST_IF),
)
print(fails(six.sendto, b"x", ("ff05::1234", 5000)), option(six, JOIN, GROUP + LO))
print(option(socket.socket(socket.AF_INET6), socket.IPV6_JOIN_GROUP, group + FIRST, IPV6))
