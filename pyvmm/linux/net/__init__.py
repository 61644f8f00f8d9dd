"""Sockets: all of a sandbox's network is inside it. Nothing here ever makes a socket of the host's.

``addresses`` reads and writes socket addresses; ``network`` has the names and ports of one sandbox; ``socket`` is what
all sockets have, ``options`` its SO_*; ``queues`` are the bytes in flight; ``stream`` is what connected byte streams
have in common; ``unix_stream``, ``unix_datagram``, ``tcp``, ``udp`` and ``netlink`` are the kinds, ``families`` makes
them; ``ancillary`` is what goes beside the data.
"""
