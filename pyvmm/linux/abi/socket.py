"""``asm-generic/socket.h``, ``linux/socket.h``, ``linux/net.h``, ``linux/in.h``, ``linux/in6.h``, ``linux/tcp.h``,
``linux/un.h``, ``linux/sockios.h``, ``net/tcp_states.h``: sockets.
"""

import struct

AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET = 0, 1, 2, 10, 16, 17
AF_MAX = 46

SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_RDM, SOCK_SEQPACKET, SOCK_DCCP, SOCK_PACKET = 1, 2, 3, 4, 5, 6, 10
SOCK_MAX = 11
SOCK_TYPE_MASK = 0xF
SOCK_NONBLOCK, SOCK_CLOEXEC = 0o4000, 0o2000000

IPPROTO_IP, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6, IPPROTO_ICMPV6, IPPROTO_UDPLITE = (
    0,
    1,
    6,
    17,
    41,
    58,
    136,
)
IPPROTO_MAX = 263

SHUT_RD, SHUT_WR, SHUT_RDWR = 0, 1, 2
#: ``sk_shutdown``.
RCV_SHUTDOWN, SEND_SHUTDOWN, SHUTDOWN_MASK = 1, 2, 3

#: ``sk_state``; sockets of other families have the same where they have any.
TCP_ESTABLISHED, TCP_SYN_SENT, TCP_FIN_WAIT2, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LISTEN = 1, 2, 5, 7, 8, 10

MSG_OOB = 0x1
MSG_PEEK = 0x2
MSG_DONTROUTE = 0x4
MSG_CTRUNC = 0x8
MSG_TRUNC = 0x20
MSG_DONTWAIT = 0x40
MSG_EOR = 0x80
MSG_WAITALL = 0x100
MSG_ERRQUEUE = 0x2000
MSG_NOSIGNAL = 0x4000
MSG_MORE = 0x8000
MSG_WAITFORONE = 0x1_0000
MSG_CMSG_CLOEXEC = 0x4000_0000
MSG_CMSG_COMPAT = 0x8000_0000

#: ``net.core.somaxconn``, and how many messages recvmmsg and sendmmsg take (UIO_MAXIOV).
SOMAXCONN = 4096
MMSG_MAX = 1024

# ------------------------------------------------------------------------------------------------------------- options

SOL_IP, SOL_SOCKET, SOL_TCP, SOL_UDP, SOL_IPV6, SOL_UDPLITE, SOL_NETLINK = 0, 1, 6, 17, 41, 136, 270

SO_DEBUG, SO_REUSEADDR, SO_TYPE, SO_ERROR, SO_DONTROUTE, SO_BROADCAST, SO_SNDBUF, SO_RCVBUF, SO_KEEPALIVE = range(1, 10)
SO_OOBINLINE, SO_NO_CHECK, SO_PRIORITY, SO_LINGER, SO_BSDCOMPAT, SO_REUSEPORT, SO_PASSCRED, SO_PEERCRED = range(10, 18)
SO_RCVLOWAT, SO_SNDLOWAT, SO_RCVTIMEO, SO_SNDTIMEO = range(18, 22)
SO_BINDTODEVICE, SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_PEERNAME, SO_TIMESTAMP, SO_ACCEPTCONN = range(25, 31)
SO_PEERSEC, SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_PASSSEC, SO_TIMESTAMPNS, SO_MARK, SO_TIMESTAMPING = range(31, 38)
SO_PROTOCOL, SO_DOMAIN, SO_RXQ_OVFL, SO_WIFI_STATUS, SO_PEEK_OFF, SO_NOFCS, SO_LOCK_FILTER = range(38, 45)
SO_SELECT_ERR_QUEUE, SO_BUSY_POLL, SO_MAX_PACING_RATE, SO_BPF_EXTENSIONS = 45, 46, 47, 48
SO_INCOMING_CPU, SO_COOKIE, SO_PEERGROUPS, SO_ZEROCOPY = 49, 57, 59, 60

IP_TOS, IP_TTL, IP_HDRINCL, IP_OPTIONS, IP_ROUTER_ALERT, IP_RECVOPTS, IP_RETOPTS, IP_PKTINFO = range(1, 9)
IP_MTU_DISCOVER, IP_RECVERR, IP_RECVTTL, IP_RECVTOS, IP_MTU, IP_FREEBIND = range(10, 16)
IP_TRANSPARENT, IP_MINTTL, IP_BIND_ADDRESS_NO_PORT = 19, 21, 24
IP_MULTICAST_IF, IP_MULTICAST_TTL, IP_MULTICAST_LOOP, IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP = range(32, 37)
MCAST_JOIN_GROUP, MCAST_LEAVE_GROUP, IP_MULTICAST_ALL = 42, 45, 49
#: ``struct ip_mreq``: group, address; ``ip_mreqn`` adds an index; ``ipv6_mreq``: group, index; ``group_req``.
IP_MREQ_SIZE, IP_MREQN_SIZE, GROUP_REQ_SIZE = 8, 12, 136
IPV6_MREQ = struct.Struct("<16si")

IPV6_UNICAST_HOPS, IPV6_MULTICAST_IF, IPV6_MULTICAST_HOPS, IPV6_MULTICAST_LOOP = range(16, 20)
IPV6_JOIN_GROUP, IPV6_LEAVE_GROUP, IPV6_MTU_DISCOVER, IPV6_MTU, IPV6_RECVERR, IPV6_V6ONLY = 20, 21, 23, 24, 25, 26
IPV6_RECVPKTINFO, IPV6_PKTINFO, IPV6_RECVHOPLIMIT, IPV6_HOPLIMIT = range(49, 53)
IPV6_RECVTCLASS, IPV6_TCLASS, IPV6_DONTFRAG = 66, 67, 62

TCP_NODELAY, TCP_MAXSEG, TCP_CORK, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_SYNCNT, TCP_LINGER2 = range(1, 9)
TCP_DEFER_ACCEPT, TCP_WINDOW_CLAMP, TCP_INFO, TCP_QUICKACK, TCP_CONGESTION = range(9, 14)
UDPLITE_SEND_CSCOV, UDPLITE_RECV_CSCOV = 10, 11

TCP_USER_TIMEOUT, TCP_FASTOPEN, TCP_NOTSENT_LOWAT = 18, 23, 25

# ---------------------------------------------------------------------------------------------------- control messages

SCM_RIGHTS, SCM_CREDENTIALS = 1, 2
#: Descriptors in one message.
SCM_MAX_FD = 253
#: ``struct cmsghdr``: length (with the header), level, type; then data, padded to 8 bytes.
CMSGHDR = struct.Struct("<Qii")
#: ``struct ucred``: pid, uid, gid.
UCRED = struct.Struct("<iII")
#: ``struct msghdr``: name, namelen, iov, iovlen, control, controllen, flags; ``struct mmsghdr`` adds a length.
MSGHDR = struct.Struct("<QI4xQQQQI4x")
MMSGHDR_SIZE = 64
#: ``struct linger``, ``struct timeval``.
LINGER = struct.Struct("<ii")
TIMEVAL = struct.Struct("<qq")

# ----------------------------------------------------------------------------------------------------------- addresses

#: ``struct sockaddr_storage``.
SOCKADDR_MAX = 128
#: ``struct sockaddr_in``: family, port, address, padding; ``sockaddr_in6``: family, port, flow, address, scope.
SOCKADDR_IN = struct.Struct("<H2s4s8x")
SOCKADDR_IN6 = struct.Struct("<H2s4s16sI")
#: ``SIN6_LEN_RFC2133``: without a scope.
SIN6_LEN_SHORT = 24
#: ``struct sockaddr_un`` and its path.
SOCKADDR_UN_MAX = 110
UNIX_PATH_MAX = 108

# ----------------------------------------------------------------------------------------------- ioctls (all of files)

SIOCINQ, SIOCOUTQ = 0x541B, 0x5411
SIOCATMARK = 0x8905
SIOCGSTAMP = 0x8906
SIOCGIFNAME, SIOCGIFCONF, SIOCGIFFLAGS, SIOCGIFADDR = 0x8910, 0x8912, 0x8913, 0x8915
SIOCGIFNETMASK, SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFINDEX = 0x891B, 0x8921, 0x8927, 0x8933
#: ``struct ifreq``: name, and what is asked or answered.
IFREQ_SIZE, IFNAMSIZ = 40, 16
IFF_UP, IFF_LOOPBACK, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x8, 0x40, 0x1_0000
ARPHRD_LOOPBACK = 772
LOOPBACK_INDEX, LOOPBACK_MTU = 1, 65536
