"""``linux/netlink.h``, ``linux/rtnetlink.h``, ``linux/if_link.h``, ``linux/if_addr.h``: asking about interfaces."""

import struct

NETLINK_ROUTE = 0
#: ``MAX_LINKS``.
NETLINK_MAX = 32

#: ``struct sockaddr_nl``: family, pid, groups; ``struct nlmsghdr``: length, type, flags, sequence number, pid.
SOCKADDR_NL = struct.Struct("<H2xII")
NLMSGHDR = struct.Struct("<IHHII")
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x2, 0x4, 0x300

RTM_BASE = 16
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_GETROUTE = 16, 18, 20, 22, 26

#: ``struct rtattr``: length, type.
RTATTR = struct.Struct("<HH")
#: ``struct ifinfomsg``: family, type, index, flags, change; ``struct ifaddrmsg``: family, prefix, flags, scope, index.
IFINFOMSG = struct.Struct("<BxHiII")
IFADDRMSG = struct.Struct("<BBBBI")
IFLA_ADDRESS, IFLA_BROADCAST, IFLA_IFNAME, IFLA_MTU, IFLA_QDISC = 1, 2, 3, 4, 6
IFLA_TXQLEN, IFLA_OPERSTATE, IFLA_LINKMODE = 13, 16, 17
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_FLAGS = 1, 2, 3, 8
IFA_F_PERMANENT = 0x80
RT_SCOPE_HOST = 254
