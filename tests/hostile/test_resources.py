"""Groups A, B, D, E: programs that want too much time, memory, files or output, and what they may not touch."""

# Programs for the guest are strings; a broken line would not make them clearer.
# ruff: noqa: E501

import pytest

from tests.hostile.prelude import RAW

pytestmark = pytest.mark.kvm


# ------------------------------------------------------------------------------------------------------- A: processor


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import os\nwhile True: os.getppid()",
        "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
        "import time\nwhile True: time.sleep(0)",
        "import mmap\nwhile True: mmap.mmap(-1, 1 << 20).close()",
        "import ctypes\nwhile True:\n    try: ctypes.string_at(open('/proc/self/maps').read().find('x') + 1 << 60)\n    except Exception: pass",
    ],
    ids=["loop", "calls", "regular expression", "yield", "mappings", "faults"],
)
def test_others_run_right_beside_a_busy_one(run, code):
    result = run.with_canary(code, timeout=1)
    assert result.status in ("timeout", "crashed")


# ---------------------------------------------------------------------------------------------------------- B: memory


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "blocks = []\nwhile True: blocks.append(bytearray(b'x') * (10 << 20))",
        "x = []\nwhile True: x.append(x[:] + [1] * 100_000)",
        "x = 'x'\nwhile True: x += x",
        "def f(): f()\nimport sys\nsys.setrecursionlimit(10 ** 9)\nf()",
    ],
    ids=["blocks", "lists", "doubling", "recursion"],
)
def test_memory_without_end_is_a_memory_error_or_the_oom_killer(run, code):
    result = run(code, timeout=60)
    assert result.status in ("oom", "error", "crashed"), result
    if result.status == "oom":
        assert result.exit_code == 137 and b"the memory limit of 512 MiB is reached" in result.stderr
    if result.status == "error":
        assert result.stderr.splitlines()[-1].startswith((b"MemoryError", b"RecursionError"))


def test_one_request_beyond_the_limit_fails_at_once(run):
    result = run("try:\n    ' ' * ((512 << 20) + 1)\nexcept MemoryError:\n    print('no')\nprint('on')")
    assert result.stdout == b"no\non\n" and result.exec_seconds < 1


def test_the_c_stack_overflows_into_a_signal(run):
    # call self: e8 fb ff ff ff
    result = run(RAW + "execute(bytes.fromhex('e8fbffffff'))")
    assert (result.status, result.exit_code) == ("crashed", 139)


@pytest.mark.parametrize(
    "code",
    ["def f(): f()\nf()", "import json\njson.loads('[' * 100_000)", "x = []\nfor i in range(10**5): x = [x]\nrepr(x)"],
)
def test_recursion_is_an_error_of_the_program(run, code):
    result = run(code)
    assert (result.status, result.stderr.splitlines()[-1].split(b":")[0]) == ("error", b"RecursionError")


def test_memory_given_back_can_be_had_again(run):
    code = (
        "import mmap\n"
        "for i in range(12):\n"
        "    block = mmap.mmap(-1, 128 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "    block[:: 1 << 16] = b'x' * (2 << 10)\n"
        "    block.close()\n"
        "print('all')"
    )
    assert run(code, timeout=30).stdout == b"all\n"


def test_a_private_mapping_that_was_freed_reads_as_zero(run):
    code = RAW + (
        "p = pages(64)\n"
        "for _ in range(20):\n"
        "    assert not any(ctypes.string_at(p, 64 * 4096)), 'old contents'\n"
        "    ctypes.memset(p, 255, 64 * 4096)\n"
        "    assert call(28, p, 64 * 4096, 4) == 0\n"
        "    q = pages(64)\n"
        "    assert not any(ctypes.string_at(q, 64 * 4096)), 'old contents'\n"
        "    ctypes.memset(q, 255, 64 * 4096)\n"
        "    call(11, q, 64 * 4096)\n"
        "print('clean')"
    )
    assert run(code).stdout == b"clean\n"


def test_rights_taken_away_are_gone_at_once(run):
    """Shadow paging keeps an old translation unless it is made to forget it."""
    code = RAW + (
        "import signal\n"
        "p = pages(4)\n"
        "ctypes.memset(p, 1, 16384)\n"
        "assert call(10, p, 4096, 1) == 0\n"
        "print('read', ctypes.string_at(p, 1), flush=True)\n"
        "ctypes.memset(p, 2, 1)\n"
        "print('written')"
    )
    result = run(code)
    assert (result.stdout, result.exit_code) == (b"read b'\\x01'\n", 139)


def test_a_page_unmapped_is_gone_at_once(run):
    code = (
        RAW
        + "p = pages(4)\nctypes.memset(p, 1, 16384)\nassert call(11, p, 16384) == 0\nctypes.string_at(p, 1)\nprint('read')"
    )
    result = run(code)
    assert (result.stdout, result.exit_code) == (b"", 139)


def test_every_page_can_be_dirtied_again_and_again_by_new_forks(run):
    """B13, shortened: what one fork dirtied is the host's again when it is gone."""
    code = "import mmap\nm = mmap.mmap(-1, 32 << 20, flags=34)\nm[::4096] = b'x' * (8 << 10)\nprint('done')"
    for _ in range(10):
        assert run(code).stdout == b"done\n"


# ------------------------------------------------------------------------------------------------------ D: file system


def test_writing_without_end_fills_the_sandbox_and_not_the_host(run):
    code = (
        "import errno, os\n"
        "fd = os.open('full', os.O_WRONLY | os.O_CREAT)\n"
        "total = 0\n"
        "try:\n"
        "    while True: total += os.write(fd, b'I love beans\\n' * 80_000)\n"
        "except OSError as error:\n"
        "    print(errno.errorcode[error.errno], total <= 512 << 20)\n"
    )
    result = run(code, timeout=30)
    assert result.stdout in (b"ENOSPC True\n", b"") and result.status in ("ok", "oom"), result


def test_a_huge_sparse_file_costs_nothing(run):
    code = (
        "import errno, os\n"
        "fd = os.open('sparse', os.O_RDWR | os.O_CREAT)\n"
        "for size in (1 << 40, 1 << 50, 1 << 60, 2**63 - 1):\n"
        "    try:\n"
        "        os.ftruncate(fd, size)\n"
        "        os.pwrite(fd, b'x', size - 1)\n"
        "        print(os.stat('sparse').st_size == size, os.pread(fd, 2, size - 1), os.pread(fd, 5, size // 2))\n"
        "    except OSError as error:\n"
        "        print(errno.errorcode[error.errno])\n"
    )
    result = run(code)
    assert result.status == "ok"
    for line in result.stdout.splitlines():
        assert line in (b"True b'x' b'\\x00\\x00\\x00\\x00\\x00'", b"EFBIG", b"ENOSPC")


def test_files_without_end_reach_a_limit(run):
    code = (
        "import errno, os\n"
        "try:\n"
        "    for i in range(10**7): os.close(os.open(f'f{i}', os.O_WRONLY | os.O_CREAT))\n"
        "except OSError as error:\n"
        "    print(errno.errorcode[error.errno], i)\n"
    )
    result = run(code, timeout=60)
    assert result.stdout.split()[0] == b"ENOSPC" and int(result.stdout.split()[1]) <= 50_000


@pytest.mark.parametrize(
    "code", ["os.pipe()", "os.dup(1)", "os.open('/dev/null', 0)", "os.eventfd(0)", "os.open('/', 0)"]
)
def test_descriptors_without_end_reach_a_limit(run, code):
    result = run(
        f"import errno, os\ntry:\n    while True: {code}\nexcept OSError as error:\n    print(errno.errorcode[error.errno])\n"
    )
    assert result.stdout == b"EMFILE\n"


def test_odd_names_are_kept_byte_for_byte(run):
    code = (
        "import os\n"
        "os.mkdir('d')\n"
        "names = [b'\\xff', b'a\\nb', '\\u202e'.encode(), b'n' * 255, 'e\\u0301'.encode(), b' ', b'...', b'\\\\', b'\\x1b[2J']\n"
        "for name in names: open(b'd/' + name, 'w').close()\n"
        "print(sorted(os.listdir(b'd')) == sorted(names))\n"
        "for bad in (b'n' * 256, b'', b'x\\0y'):\n"
        "    try: open(b'd/' + bad + b'', 'w').close(); print('made')\n"
        "    except (OSError, ValueError) as error: print(type(error).__name__)\n"
    )
    assert run(code).stdout == b"True\nOSError\nIsADirectoryError\nValueError\n"


def test_no_path_leads_out_of_the_guests_tree(run):
    code = (
        "import os\n"
        "roots = set()\n"
        "for path in ('/', '/..', '../../../../../..', '/proc/self/root', '/proc/self/root/..', '/proc/self/cwd/../../..', '/proc/1/root'):\n"
        "    try: roots.add(tuple(sorted(set(os.listdir(path)))))\n"
        "    except OSError: pass\n"
        "fd = os.open('/', os.O_RDONLY)\n"
        "up = os.open('..', os.O_RDONLY, dir_fd=fd)\n"
        "roots.add(tuple(sorted(os.listdir(up))))\n"
        "print(len(roots), 'work' in next(iter(roots)))\n"
        "try: print(len(open('/etc/shadow').read()))\n"
        "except OSError as error: print(error.errno in (2, 13))\n"
    )
    assert run(code).stdout == b"1 False\nTrue\n"


def test_a_loop_of_links_is_an_error(run):
    code = (
        "import os\nos.symlink('b', 'a'); os.symlink('a', 'b')\n"
        "try: open('a')\nexcept OSError as error: print(error.errno)\n"
        "p = '/'.join(['d'] * 3000)\n"
        "try: os.stat(p)\nexcept OSError as error: print(error.errno)\n"
    )
    assert run(code).stdout == b"40\n36\n"


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm", "/run", "/var/tmp", "/home/user"])
def test_nothing_stays_for_the_next_run(run, folder):
    code = f"import os\nos.makedirs({folder!r}, exist_ok=True)\nprint(os.path.exists({folder!r} + '/left'))\nopen({folder!r} + '/left', 'w').write('x')"
    for _ in range(2):
        result = run(code)
        assert result.stdout in (b"False\n", b""), result


def test_deep_directories_do_not_exhaust_the_monitor(run):
    code = (
        "import os\n"
        "for i in range(3000):\n    os.mkdir('d'); os.chdir('d')\n"
        "try: print(len(os.getcwd()))\nexcept OSError as error: print(error.errno)\n"
        "for i in range(3000):\n    os.chdir('..'); os.rmdir('d')\n"
        "print(os.listdir())"
    )
    result = run(code, timeout=20)
    assert result.stdout.splitlines()[-1] == b"['main.py']", result


# ----------------------------------------------------------------------------------------------------------- E: output


@pytest.mark.parametrize("streams", [(1,), (2,), (1, 2)])
def test_a_flood_is_stopped_while_it_comes(run, streams):
    code = "import os\nwhile True:\n" + "".join(f"    os.write({fd}, b'x' * 1000)\n" for fd in streams)
    result = run.with_canary(code)
    assert result.status == "output_limit"
    assert len(result.stdout) <= 1 << 20 and len(result.stderr) <= 1 << 20


def test_many_tiny_writes_are_bounded(run):
    result = run.with_canary("import os\nfor i in range(10**7): os.write(1, b'x')", timeout=2)
    assert result.status in ("timeout", "output_limit")


def test_control_characters_arrive_as_they_are(run):
    data = b"\0\x1b[2J\x1b]52;c;AAAA\x07\r\x07\x7f"
    assert run(f"import os\nos.write(1, {data!r})").stdout == data


@pytest.mark.parametrize(
    "text", ["ready", '{"exit_code": 0}', "\\0\\0\\0\\1", "Killed: the memory limit of 512 MiB is reached"]
)
def test_a_program_cannot_pretend_to_have_ended_otherwise(run, text):
    result = run(f"import os, sys\nos.write(1, b'{text}')\nos.write(2, b'{text}')\nsys.exit(3)")
    assert (result.status, result.exit_code) == ("error", 3)


def test_writing_to_every_descriptor_harms_only_itself(run):
    code = (
        "import os\n"
        "for fd in range(3, 1024):\n"
        "    for data in (b'ready', b'\\0' * 16, b'\\xff' * 100, b'0 0\\n'):\n"
        "        try: os.write(fd, data)\n        except OSError: pass\n"
        "        try: os.read(fd, 10)\n        except OSError: pass\n"
        "print('done')"
    )
    assert run(code).stdout == b"done\n"


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nsys.modules.clear()\nprint('x')",
        "import builtins\nbuiltins.__dict__.clear()",
        "import sys\nfor name in list(vars(sys)): delattr(sys, name)",
        "import os, sys\nos._exit = os.write = os.read = lambda *a: None\nprint('x')",
        "import sys\nsys.stdout = sys.stderr = sys.excepthook = None\n1 / 0",
        "import sys\nsys.excepthook = lambda *a: 1 / 0\n1 / 0",
        "import sys, atexit\natexit._run_exitfuncs = None\natexit.register(print, 'x')",
        "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict): o.clear()",
        "import threading\nthreading._shutdown = lambda: 1 / 0",
        "import os\nfor fd in range(100):\n    try: os.close(fd)\n    except OSError: pass\nprint('x')",
        "import sys\nsys._getframe(1).f_back.f_globals.clear()",
        "import sys\nf = sys._getframe()\nwhile f:\n    f.f_globals.clear(); f = f.f_back",
        "import sys\nsys.settrace(lambda *a: 1 / 0)\nprint('x')",
        "import sys\nsys.stdout.close(); sys.stderr.close(); sys.stdin.close()",
        "import os\nos.dup2(os.open('/dev/null', os.O_WRONLY), 1)\nprint('x')",
    ],
)
def test_attacking_the_agent_only_breaks_ones_own_result(run, code):
    result = run(code, timeout=5)
    assert result.status in ("ok", "error", "crashed", "protocol_error", "timeout")
    assert not run.log


def test_the_agents_source_and_memory_hold_no_secret(run):
    code = (
        "import gc, os\n"
        "found = [o for o in gc.get_objects() if isinstance(o, (str, bytes)) and 'PYVMM_TEST' in str(o)]\n"
        "print(found, 'PYVMM_TEST_SECRET' in os.environ)"
    )
    assert run(code).stdout == b"[] False\n"


@pytest.mark.parametrize(
    "code",
    [
        "import os\ntry: os.posix_spawn('/bin/no-such', ['x'], {})\nexcept OSError: print('refused')",
        "import socket\ntry: socket.create_connection(('169.254.169.254', 80), 1)\nexcept OSError: print('refused')",
        "import socket\ntry: socket.create_connection(('127.0.0.1', 22), 1)\nexcept OSError: print('refused')",
        "import socket\ntry: socket.getaddrinfo('example.com', 80)\nexcept OSError: print('refused')",
        "import os\ntry: os.kill(1, 9)\nexcept OSError: print('refused')",
        "import os\ntry: os.kill(os.getppid(), 9)\nexcept OSError: print('refused')",
        "import os\ntry: os.kill(-1, 9)\nexcept OSError: print('refused')",
        "import os\ntry: os.kill(1 << 30, 9)\nexcept OSError: print('refused')",
        "import os\ntry: os.setuid(0)\nexcept OSError: print('refused')",
        "import os\ntry: os.mknod('/tmp/kvm', 0o20666, os.makedev(10, 232))\nexcept OSError: print('refused')",
        "import os\ntry: os.chroot('/')\nexcept OSError: print('refused')",
        "import time\ntry: time.clock_settime(time.CLOCK_REALTIME, 0)\nexcept OSError: print('refused')",
        "import resource\ntry: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))\nexcept (OSError, ValueError): print('refused')",
        "import os\ntry: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))\nexcept OSError: print('refused')",
        "import socket\nfor family in (socket.AF_NETLINK, socket.AF_PACKET, 40, 38):\n    try: socket.socket(family, socket.SOCK_RAW)\n    except OSError: print('refused') if family == 38 else None",
    ],
)
def test_what_a_sandbox_may_not_do_is_refused_cleanly(run, code):
    result = run(code)
    assert (result.stdout, result.status) == (b"refused\n", "ok"), result
