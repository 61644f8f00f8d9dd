"""Group F: forks of one snapshot have nothing in common that matters, and see nothing of each other or of the host."""

# Programs for the guest are strings; a broken line would not make them clearer.
# ruff: noqa: E501

import os
import re
import secrets
import sys
import time
from pathlib import Path

import pytest

from pyvmm import ForkFailed, Result
from pyvmm.linux.kernel import Kernel
from pyvmm.linux.table import TABLE
from tests.hostile.prelude import RAW

pytestmark = pytest.mark.kvm

_FORKS = 64

#: What each generator gives first. OpenSSL's, numpy's and uuid's are used in the template before its snapshot is taken.
_GENERATORS = r"""
import os, random, secrets, ssl, sys, tempfile, uuid, numpy, hashlib, time
from uuid import uuid4
first = {
    "urandom": os.urandom(16).hex(),
    "getrandom": os.getrandom(16).hex(),
    "/dev/urandom": open("/dev/urandom", "rb").read(16).hex(),
    "/dev/random": open("/dev/random", "rb").read(16).hex(),
    "random.random": random.random(),
    "random.getrandbits": random.getrandbits(128),
    "random.Random": random.Random().random(),
    "random.SystemRandom": random.SystemRandom().random(),
    "random.shuffle": str(random.sample(range(1000), 20)),
    "numpy.random.rand": numpy.random.rand(),
    "numpy.random.randint": numpy.random.randint(0, 2**62),
    "numpy.random.RandomState": numpy.random.RandomState().rand(),
    "numpy.random.default_rng": numpy.random.default_rng().random(),
    "numpy.random.get_state": hashlib.sha256(numpy.random.get_state()[1].tobytes()).hexdigest(),
    "numpy.random.SeedSequence": numpy.random.SeedSequence().entropy,
    "secrets": secrets.token_hex(16),
    "uuid1": str(uuid.uuid1()),
    "uuid1 node": uuid.getnode(),
    "uuid4": str(uuid4()),
    "tempfile.mktemp": tempfile.mktemp(),
    "tempfile.mkdtemp": tempfile.mkdtemp(),
    "ssl.RAND_bytes": ssl.RAND_bytes(16).hex(),
    "/proc/sys/kernel/random/uuid": open("/proc/sys/kernel/random/uuid").read(),
}
print(first)
"""


@pytest.fixture(scope="module")
def drawn(template) -> list[dict]:
    """What each generator gave first in every one of 64 forks."""
    forks = []
    for _ in range(_FORKS):
        result = template.run(_GENERATORS)
        assert result.status == "ok", result.stderr
        forks.append(eval(result.stdout))
    return forks


@pytest.mark.parametrize(
    "generator",
    [line.split('"')[1] for line in _GENERATORS.splitlines() if line.startswith('    "')],
)
def test_no_two_forks_draw_the_same(drawn, generator):
    values = [fork[generator] for fork in drawn]
    assert len(set(values)) == _FORKS


def test_the_first_thing_a_fork_draws_is_its_own(run):
    assert len({run("print(__import__('os').urandom(32))").stdout for _ in range(8)}) == 8


def test_forks_have_pids_of_their_own(run):
    pids = {int(run("import os; print(os.getpid())").stdout) for _ in range(16)}
    assert len(pids) >= 14 and min(pids) > 1


def test_a_fork_that_cannot_be_made_fresh_is_never_served(run, monkeypatch):
    def broken(self, count):
        raise RuntimeError("no randomness")

    with run.template.fork() as sandbox, monkeypatch.context() as patch:
        patch.setattr(Kernel, "random", broken)
        with pytest.raises(ForkFailed, match="not made fresh"):
            sandbox.run("print('served')")


def test_a_fork_that_gets_no_number_of_its_own_is_never_made(run, monkeypatch):
    def broken(self, count):
        raise OSError("no randomness")

    with monkeypatch.context() as patch:
        patch.setattr(Kernel, "random", broken)
        with pytest.raises(ForkFailed):
            run("print('served')")


def test_a_fork_whose_random_numbers_fail_with_an_errno_is_never_served(run, monkeypatch):
    from pyvmm.linux.abi.unistd import NUMBERS

    with monkeypatch.context() as patch:
        patch.delitem(TABLE, NUMBERS["getrandom"])
        try:
            result = run("import random\nprint(random.random())")
        except ForkFailed:
            return
        other = run("import random\nprint(random.random())")
    assert result.stdout != other.stdout, "a generator that could not be seeded was served as it was in the template"


def test_an_agent_that_never_says_it_is_ready_is_never_served(run):
    with run.template.fork() as sandbox, pytest.raises(ForkFailed):
        sandbox.run("print('served')", timeout=0)


def test_the_clock_is_right_however_old_the_snapshot_is(run, monkeypatch):
    real, monotonic = time.time_ns, time.monotonic_ns
    hour = 75 * 3600 * 10**9
    with monkeypatch.context() as patch:
        # Only the guest's clock looks here; the monitor's own deadlines use the monotonic clock.
        patch.setattr("pyvmm.linux.clock.time", type("Time", (), {
            "time_ns": staticmethod(lambda: real() + hour),
            "monotonic_ns": staticmethod(monotonic),
            "thread_time_ns": staticmethod(time.thread_time_ns),
        }))  # fmt: skip
        result = run("import time, datetime\nprint(time.time(), datetime.datetime.now().timestamp())")
    assert all(abs(float(word) - (real() + hour) / 1e9) < 1 for word in result.stdout.split())


def test_monotonic_time_begins_where_the_template_stopped(run):
    before = run.template.snapshot.guest["monotonic_ns"] / 1e9
    now = float(run("import time; print(time.monotonic())").stdout)
    assert before <= now < before + 1


def test_processor_time_begins_at_zero(run):
    assert 0 <= float(run("import time; print(time.process_time())").stdout) < 0.5


# --------------------------------------------------------------------------------------------------------- isolation


_SPRAY = """
import os, array
token = bytes.fromhex({token!r})
keep = [bytes(token) + bytes(i) for i in range(1000)]
stack = lambda n: stack(n - 1) if n else len(token)
stack(50)
os.environ['TOKEN'] = token.hex()
open('/tmp/token', 'wb').write(token * 100)
open('/dev/shm/token', 'wb').write(token * 100)
os.write(2, token)
r, w = os.pipe(); os.write(w, token)
import mmap
m = mmap.mmap(-1, 1 << 20); m[:] = token * (len(m) // len(token))
"""

_SCAN = """
needle = bytes(b ^ 255 for b in bytes.fromhex({inverted!r}))
found = []
for line in open('/proc/self/maps'):
    span, rights = line.split()[:2]
    if rights[0] != 'r' or 'vvar' in line: continue
    import ctypes
    start, end = (int(x, 16) for x in span.split('-'))
    data = ctypes.string_at(start, end - start)
    at = data.find(needle)
    while at >= 0:
        found.append(hex(start + at))
        at = data.find(needle, at + 1)
"""


def test_a_secret_of_one_fork_is_in_no_other_forks_memory(run):
    token = secrets.token_bytes(32)
    with run.template.fork() as before, run.template.fork() as during:
        sprayed = run.template.fork()
        with sprayed:
            assert sprayed.run(_SPRAY.format(token=token.hex())).status == "ok"
            assert token in bytes(sprayed.machine.memory.view[: sprayed.machine.memory.in_use])
            during.run("x = bytearray(8 << 20)")
            assert token not in bytes(during.machine.memory.view[: during.machine.memory.in_use])
        before.run("x = bytearray(8 << 20)")
        after = run.template.fork()
        with after:
            after.run("x = bytearray(64 << 20)\nprint(any(x))")
            for fork in (before, after):
                assert token not in bytes(fork.machine.memory.view[: fork.machine.memory.in_use])


def test_a_program_finds_no_secret_of_another_in_its_own_mappings(run):
    token = secrets.token_bytes(32)
    inverted = bytes(byte ^ 255 for byte in token).hex()
    assert run(_SPRAY.format(token=token.hex())).status == "ok"
    result = run(
        _SCAN.format(inverted=inverted)
        + "print(len(found) <= 4, os.path.exists('/tmp/token'))".replace("os.", "__import__('os').")
    )
    # Its own needle, and the copies of it that the scan itself makes, are all that it finds.
    assert result.stdout == b"True False\n", result


def test_nothing_of_the_host_is_in_guest_memory(run):
    key = secrets.token_hex(24)
    os.environ["PYVMM_TEST_KEY"] = key
    try:
        with run.template.fork() as sandbox:
            sandbox.run("x = bytearray(16 << 20)")
            memory = bytes(sandbox.machine.memory.view[: sandbox.machine.memory.in_use])
    finally:
        del os.environ["PYVMM_TEST_KEY"]
    root = Path(__file__).parents[2]
    for name, secret in {
        "a planted key": key.encode(),
        "the test's secret": run.planted.encode(),
        "the checkout": str(root).encode(),
        "the virtual environment": sys.prefix.encode(),
        "the cache": str(run.template.snapshot.path).encode(),
        "pytest": b"PYTEST_CURRENT_TEST",
        "the command line": b"python\0-m\0pytest",
        "the interpreter's place on the host": sys.base_prefix.encode() + b"/lib/python",
    }.items():
        assert secret not in memory, f"{name} is in the guest's memory"


def test_processor_state_of_one_fork_does_not_reach_the_next(run):
    """F13: each fork fills what it can and reports what it found at first."""
    # stmxcsr, fnstcw, xmm0..xmm3 low words, then set all of them; returns a digest of what was there.
    code = RAW + ("out = pages(1)\n")
    seen = set()
    for value in (0x1F80, 0x7F80):
        body = (
            # mov rax, out; stmxcsr [rax]; fnstcw [rax+8]; movdqu [rax+16], xmm15; movdqu [rax+32], xmm9
            "execute(bytes.fromhex('48b8') + struct.pack('<Q', out) + bytes.fromhex('0fae18' 'd97808' 'f3440f7f7810' 'f3440f7f4820' 'c3'))\n"
            "state = ctypes.string_at(out, 10)\n"
            "print(bytes([state[0] & ~0x3F]).hex() + state[1:].hex())\n"  # what exceptions have left in the flags is no secret
            f"ctypes.memmove(out, struct.pack('<IxxxxH', {value}, 0x27f), 10)\n"
            "execute(bytes.fromhex('48b8') + struct.pack('<Q', out) + bytes.fromhex('0fae10' 'd96808' 'c3'))\n"
        )
        result = run(code + body)
        assert result.status == "ok", result
        seen.add(result.stdout)
    assert seen == {bytes.fromhex("801f0000000000007f03").hex().encode() + b"\n"}


def test_a_new_fork_is_like_every_other(run):
    """F14: whatever a fork changed of itself, the next one starts as the first did."""
    look = (
        "import os, signal, resource, gc\n"
        "print([signal.getsignal(n) for n in range(1, 32)], os.getcwd(), oct(os.umask(0)), sorted(os.listdir('/proc/self/fd')),\n"
        "      [resource.getrlimit(i) for i in range(16)], signal.pthread_sigmask(signal.SIG_BLOCK, []), os.environ,\n"
        "      len(open('/proc/self/maps').read().splitlines()), gc.isenabled(), gc.get_threshold(), os.listdir('/tmp'))\n"
    )
    first = run(look)
    run(
        "import os, signal, resource, gc, threading, sys\n"
        "signal.signal(10, lambda *a: 0); os.chdir('/'); os.umask(0o777); os.dup(1); gc.disable(); sys.setrecursionlimit(50)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)); signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "open('/tmp/x', 'w').close(); os.kill(os.getpid(), 12)\n"
    )
    assert run(look).stdout == first.stdout and first.status == "ok"


# --------------------------------------------------------------------------------------------------------- many forks


def test_two_hundred_forks_live_at_once_and_keep_their_secrets(template):
    marker = secrets.token_hex(8)
    forks = [template.fork() for _ in range(200)]
    try:
        for index, fork in enumerate(forks):
            code = f"import os\nsecret = {marker!r} + '-%04d' % {index}\nopen('/tmp/s', 'w').write(secret)\nprint(len(secret))"
            assert fork.run(code).stdout == b"21\n"
        for index in (0, 1, 57, 100, 198, 199):
            memory = forks[index].machine.memory
            seen = set(re.findall(marker.encode() + rb"-(\d{4})", memory.view[: memory.in_use]))
            assert seen == {b"%04d" % index}
    finally:
        for fork in forks:
            fork.close()


def test_the_templates_files_are_unchanged_by_crashing_forks(run):
    import hashlib

    path = run.template.snapshot.path

    def digests() -> dict[str, str]:
        return {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(path.iterdir())
            if file.is_file()
        }

    before = digests()
    for code in (
        "import os; os.abort()",
        "while True: pass",
        "import ctypes; ctypes.memset(1, 0, 1)",
        "print('x' * (2 << 20))",
    ):
        run(code, timeout=0.3)
    assert digests() == before


def test_the_snapshot_can_be_truncated_and_removed_while_forks_run(template, tmp_path, host):
    """F19: forks map a sealed copy, so nothing that happens to the folder reaches them."""
    import shutil

    from pyvmm import Template

    folder = tmp_path / "copy"
    shutil.copytree(template.snapshot.path, folder)
    with Template.open(folder, host=host) as copy, copy.fork() as sandbox:
        for file in folder.iterdir():
            if file.is_file() and file.suffix == ".bin":
                os.truncate(file, 4096)
        result = sandbox.run("import numpy, pandas, json\nprint(numpy.arange(3).sum(), json.dumps([1]))")
        assert result.stdout == b"3 [1]\n"
        shutil.rmtree(folder)
        assert copy.run("print('still')").stdout == b"still\n"


def test_the_copy_that_forks_map_is_sealed(template):
    fd = template.snapshot.memory_fd
    for attempt in (lambda: os.ftruncate(fd, 0), lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 1 << 40)):
        with pytest.raises(PermissionError):
            attempt()


@pytest.mark.slow
def test_a_thousand_runs_leave_nothing_behind(run):
    from tests.conftest import Footprint

    programs = ["print(1 + 1)", "import os; os.abort()", "raise SystemExit(3)", "open('x', 'w').write('x')", "1 / 0"]
    for index in range(20):
        run.template.run(programs[index % 5])
    before = Footprint.now()
    for index in range(1000):
        result: Result = run.template.run(programs[index % 5])
        assert result.status in ("ok", "crashed", "error")
    Footprint.now().check_against(before, mappings=2, rss=2 << 20)


def test_memory_written_by_either_side_is_seen_by_the_other(run):
    """F16: a page that was read is written by the monitor (read(2) into it), shared and private pages alternating."""
    code = RAW + (
        "size = 1 << 20\n"
        "p = pages(size // 4096)\n"
        "touched = sum(ctypes.string_at(p + i, 1)[0] for i in range(0, size, 8192))\n"
        "fd = os.open('/tmp/f', os.O_RDWR | os.O_CREAT)\n"
        "data = bytes(range(256)) * (size // 256)\n"
        "os.write(fd, data)\n"
        "assert call(17, fd, p, size, 0) == size\n"
        "print(ctypes.string_at(p, size) == data)\n"
        "ctypes.memset(p, 7, size)\n"
        "assert call(18, fd, p, size, 0) == size\n"
        "print(os.pread(fd, size, 0) == b'\\x07' * size)\n"
    )
    assert run(code).stdout == b"True\nTrue\n"
