"""The network of a sandbox ends at its edge: it has a loopback interface, a few names, and nobody else to talk to."""

# Programs for the guest are strings; a broken line would not make them clearer.
# ruff: noqa: E501

import socket

import pytest

pytestmark = pytest.mark.kvm


def test_everything_but_the_sandbox_is_unreachable_at_once(run):
    code = (
        "import errno, socket\n"
        "for address in ('8.8.8.8', '169.254.169.254', '10.0.0.1', '192.168.0.1', '224.0.0.1', '2001:db8::1', 'fe80::1', 'ff02::1'):\n"
        "    family = socket.AF_INET6 if ':' in address else socket.AF_INET\n"
        "    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n"
        "        with socket.socket(family, kind) as s:\n"
        "            try: s.connect((address, 80))\n"
        "            except OSError as error: assert error.errno == errno.ENETUNREACH, error\n"
        "            else: print('connected', address)\n"
        "    try: s = socket.socket(family, socket.SOCK_DGRAM).sendto(b'x', (address, 53))\n"
        "    except OSError as error: assert error.errno == errno.ENETUNREACH, error\n"
        "    else: print('sent', address)\n"
        "print('alone')"
    )
    assert run(code).stdout == b"alone\n"


def test_a_port_of_the_host_is_not_there(run):
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket\ntry: socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))\nexcept ConnectionRefusedError: print('refused')"
        assert run(code).stdout == b"refused\n"


def test_names_are_looked_up_at_once(run):
    code = (
        "import socket\n"
        "print(socket.gethostname(), socket.gethostbyname('localhost'), socket.gethostbyname(socket.gethostname()))\n"
        "print(socket.getfqdn(), socket.gethostbyaddr('127.0.0.1')[0])\n"
        "for name in ('example.com', 'no-such-name', 'metadata.google.internal'):\n"
        "    try: print(socket.getaddrinfo(name, 80))\n"
        "    except socket.gaierror as error: print(error.errno == socket.EAI_NONAME or error.errno == socket.EAI_AGAIN)\n"
        "print(socket.getservbyname('http'), socket.getservbyport(443), socket.getprotobyname('udp'))"
    )
    assert run(code, timeout=5).stdout == (
        b"sandbox 127.0.0.1 127.0.1.1\nsandbox localhost\nTrue\nTrue\nTrue\n80 https 17\n"
    )


def test_there_is_one_interface(run):
    code = (
        "import socket\n"
        "print(socket.if_nameindex(), open('/proc/net/dev').read().count(':'))\n"
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "class Entry(ctypes.Structure): pass\n"
        "Entry._fields_ = [('next', ctypes.POINTER(Entry)), ('name', ctypes.c_char_p), ('flags', ctypes.c_uint), ('address', ctypes.POINTER(ctypes.c_ubyte * 28))]\n"
        "entry = ctypes.POINTER(Entry)()\n"
        "assert libc.getifaddrs(ctypes.byref(entry)) == 0\n"
        "while entry:\n"
        "    e = entry.contents\n"
        "    print(e.name, hex(e.flags), e.address.contents[0])\n"
        "    entry = e.next"
    )
    assert run(code).stdout == b"[(1, 'lo')] 1\nb'lo' 0x10049 17\nb'lo' 0x10049 2\nb'lo' 0x10049 10\n"


def test_raw_and_foreign_families_are_refused(run):
    code = (
        "import errno, socket\n"
        "for case in ((2, 3, 1), (2, 3, 255), (10, 3, 58), (17, 3, 0), (40, 1, 0), (38, 5, 0), (31, 5, 1), (29, 3, 1), (16, 3, 15)):\n"
        "    try: socket.socket(*case)\n"
        "    except OSError as error: print(errno.errorcode[error.errno], end=' ')"
    )
    assert run(code).stdout.split() == ([b"EPERM"] * 4 + [b"EAFNOSUPPORT"] * 4 + [b"EPROTONOSUPPORT"])


def test_sockets_of_one_sandbox_are_unknown_to_the_next(run):
    code = (
        "import socket\n"
        "t, u, a = socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)\n"
        "t.bind(('127.0.0.1', 5000)); u.bind('/tmp/name'); a.bind('\\0name')\n"
        "for s in (t, u, a): s.listen()\n"
        "print(open('/proc/net/unix').read().count('name'), open('/proc/net/tcp').read().count('\\n'))"
    )
    assert [run(code).stdout for _ in range(2)] == [b"2 2\n"] * 2


def test_a_flood_of_sockets_and_of_data_ends_within_the_limits(run):
    code = (
        "import os, socket\n"
        "kept, total = [], 0\n"
        "try:\n"
        "    while True:\n"
        "        a, b = socket.socketpair()\n"
        "        a.setblocking(False)\n"
        "        kept.append((a, b))\n"
        "        try:\n"
        "            while True: total += a.send(bytes(1 << 16))\n"
        "        except BlockingIOError: pass\n"
        "except OSError as error: print(error.strerror, total > 0)\n"
    )
    result = run.with_canary(code)
    assert result.status == "ok" and result.stdout in (
        b"No buffer space available True\n",
        b"Too many open files True\n",
    )


def test_asynchronous_streams_work_over_poll(run):
    code = (
        "import asyncio, selectors\n"
        "async def serve(reader, writer):\n"
        "    while line := await reader.readline():\n"
        "        writer.write(line.upper())\n"
        "        await writer.drain()\n"
        "    writer.close()\n"
        "async def talk(port, number):\n"
        "    reader, writer = await asyncio.open_connection('127.0.0.1', port)\n"
        "    for index in range(20):\n"
        "        writer.write(b'line %d of %d\\n' % (index, number))\n"
        "        assert await reader.readline() == b'LINE %d OF %d\\n' % (index, number)\n"
        "    writer.close()\n"
        "    await writer.wait_closed()\n"
        "async def main():\n"
        "    server = await asyncio.start_server(serve, '127.0.0.1', 0)\n"
        "    port = server.sockets[0].getsockname()[1]\n"
        "    await asyncio.gather(*(talk(port, number) for number in range(20)))\n"
        "    server.close()\n"
        "    print('done')\n"
        "loop = asyncio.SelectorEventLoop(selectors.PollSelector())\n"
        "loop.run_until_complete(main())"
    )
    assert run(code).stdout == b"done\n"
