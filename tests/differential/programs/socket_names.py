# ruff: noqa
import socket
import stat
from common import fails, os

s = socket.socket(socket.AF_UNIX)
s.bind("here")
print(s.getsockname(), stat.S_ISSOCK(os.stat("here").st_mode), fails(open, "here"), os.path.exists("here"))
other = socket.socket(socket.AF_UNIX)
print(fails(other.bind, "here"), fails(other.connect, "here"), fails(other.connect, "nowhere"))
s.listen()
other.connect("here")
print(other.getpeername(), other.getsockname(), s.accept()[1])
os.rename("here", "moved")
third = socket.socket(socket.AF_UNIX)
print(fails(third.connect, "here"), fails(third.connect, "moved"))
os.link("moved", "linked")
os.symlink("moved", "followed")
for name in ("linked", "followed"):
    with socket.socket(socket.AF_UNIX) as client:
        print(name, fails(client.connect, name))
print(socket.getaddrinfo("127.0.0.1", 443, type=socket.SOCK_STREAM))
print(socket.if_nametoindex("lo"), socket.if_indextoname(1))
