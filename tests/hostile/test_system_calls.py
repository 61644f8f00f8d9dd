"""Group G: system calls with arguments that no program means. An errno or a signal, never an error of the monitor."""

# Programs for the guest are strings; a broken line would not make them clearer.
# ruff: noqa: E501

import struct
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyvmm.linux.syscalls  # noqa: F401 - fills the table
from pyvmm.linux.abi.unistd import NUMBERS
from pyvmm.linux.table import TABLE
from tests.hostile.prelude import RAW

pytestmark = pytest.mark.kvm

_ENOSYS = 38
#: Calls that end the program, that may wait for ever, or that may take the program's own memory or descriptors away.
_ENDING = {"exit", "exit_group", "rt_sigreturn"}
_WAITING = {
    "pause", "rt_sigsuspend", "rt_sigtimedwait", "futex", "nanosleep", "clock_nanosleep", "select", "pselect6", "poll",
    "ppoll", "epoll_wait", "epoll_pwait", "epoll_pwait2", "read", "readv", "preadv", "preadv2", "splice", "wait4", "sendfile",
    "tee", "flock", "fcntl", "copy_file_range", "write", "writev",
}  # fmt: skip
_DESTRUCTIVE = {
    "munmap", "mremap", "mprotect", "pkey_mprotect", "mmap", "brk", "madvise", "arch_prctl", "kill", "tkill", "tgkill",
    "rt_sigqueueinfo", "rt_tgsigqueueinfo", "rt_sigaction", "rt_sigprocmask", "sigaltstack", "close", "close_range", "dup2",
    "dup3", "set_robust_list", "set_tid_address", "setrlimit", "prlimit64", "execve", "execveat", "vhangup", "alarm",
    "setitimer", "timer_settime", "ftruncate", "truncate", "fallocate", "clone", "fork", "vfork",
}  # fmt: skip

#: In the guest: a page of each kind, descriptors of each kind, and the words that arguments are made of.
_DRIVER = (
    RAW
    + r'''
import random, select
both = pages(8)
libc.mprotect(ctypes.c_void_p(both + 2 * 4096), 4096, 1)
libc.mprotect(ctypes.c_void_p(both + 3 * 4096), 4096, 0)
libc.munmap(ctypes.c_void_p(both + 4 * 4096), 4 * 4096)
ctypes.memmove(both, b"/tmp/name\0", 10)
ctypes.memmove(both + 256, struct.pack("<4Q", both + 512, 64, both + 1024, 2**63), 32)
os.makedirs("/tmp/folder", exist_ok=True)
file = os.open("/tmp/file", os.O_RDWR | os.O_CREAT)
os.write(file, b"x" * 10000)
folder = os.open("/tmp/folder", os.O_RDONLY)
reading, writing = os.pipe()
null = os.open("/dev/null", os.O_RDWR)
zero = os.open("/dev/zero", os.O_RDWR)
pointers = [0, 1, both, both + 256, both + 4095, both + 2 * 4096 - 4, both + 2 * 4096, both + 3 * 4096, both + 3 * 4096 - 1,
    both + 4 * 4096, 0x7fffffe00000, 0x7fffffe03000, 0x7fffffe04ff8, 1 << 47, 0xffff800000000000, 2**64 - 8, 2**64 - 1]
lengths = [0, 1, 7, 8, 16, 24, 4096, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 4096, 2**64 - 1]
small = [0, 1, 2, 3, 4, 5, 6, 8, 10, 16, 64, 1023, 1024, 0x800, 0x80000, 2**64 - 100]
master, slave = os.openpty()
polled = select.epoll()
polled.register(reading)
event, timer, watch, signals = os.eventfd(1), call(283, 1, 0), call(294, 0), call(289, 2**64 - 1, both + 4088, 8, 0)
descriptors = [file, folder, reading, writing, null, zero, 99, 2**32 - 1, master, slave, polled.fileno(), event, timer, watch, signals]
everything = pointers + lengths + small + descriptors
def odd(result):
    """Whether a result is none that Linux could give: an errno of its own inside, or none at all."""
    return -4096 < result < 0 and (result < -133 or -result not in __import__("errno").errorcode)
def drive(number, count, seed, samples):
    generator = random.Random(seed)
    plain = [0, 0, both, file, folder, 2**64 - 100]
    plans = [[value if place == at else generator.choice(plain) for at in range(count)]
        for place in range(count) for value in everything for _ in range(3)]
    plans += [[generator.choice(everything) for _ in range(count)] for _ in range(samples)]
    plans += [[generator.choice(descriptors), *[generator.choice(pointers + lengths) for _ in range(5)]][:count] for _ in range(samples)]
    generator.shuffle(plans)
    for plan in plans:
        result = call(number, *plan)
        if odd(result):
            os.write(file2, f"{number} {[hex(value) for value in plan]} = {result}\n".encode())
# By a number that no call is given.
file2 = os.dup2(os.open("/tmp/odd", os.O_RDWR | os.O_CREAT), 1000)
os.closerange(signals + 1, 1000)
import errno
'''
)

_FAMILIES = sorted({call.function.__module__ for call in TABLE.values()})


@pytest.mark.parametrize("family", _FAMILIES, ids=[family.rsplit(".", 1)[1] for family in _FAMILIES])
def test_wild_arguments_to_every_call_give_an_errno_or_end_only_the_guest(run, family):
    bad = {}
    for number, call in sorted(TABLE.items()):
        if call.function.__module__ != family or call.name in _ENDING:
            continue
        code = (
            _DRIVER
            + f"drive({number}, {len(call.arguments)}, {number}, 100)\nos.lseek(file2, 0, 0); print('ODD', os.read(file2, 500))\n"
        )
        waits = call.name in _WAITING
        result = run(code, timeout=0.5 if waits else 10, output_limit=4 << 20)
        allowed = {"ok"} | ({"timeout"} if waits else set())
        if call.name in _DESTRUCTIVE:
            allowed |= {"crashed", "error", "oom", "timeout", "output_limit"}
        problems = []
        if result.status not in allowed:
            problems.append((result.status, result.exit_code, result.stderr[-300:]))
        if result.status == "ok" and call.name not in _DESTRUCTIVE and not result.stdout.endswith(b"ODD b''\n"):
            problems.append(result.stdout[-300:])
        if run.log:
            problems.append(run.log[-1])
            run.log.clear()
        if problems:
            bad[call.name] = problems
    assert not bad


def test_numbers_without_a_call_give_enosys_and_are_counted_by_name(run):
    numbers = [n for n in range(1024) if n not in TABLE]
    odd = [-1, 2**31, 2**31 - 1, 0x4000_0000, 0x4000_0027, 0x4000_03FF, 2**32 - 1]
    code = RAW + f"print({{call(n, *a) for n in {[*numbers, *odd]} for a in ((), (2**64 - 1,) * 6)}})"
    with run.template.fork() as sandbox:
        result = run.check(lambda: sandbox.run(code), 30.0)
        missing = sandbox.kernel.missing
    assert result.stdout == f"{{{-_ENOSYS}}}\n".encode()
    assert missing["bpf"] >= 2 or NUMBERS["bpf"] in TABLE
    assert sum(missing.values()) >= 2 * (len(numbers) + len(odd))
    assert len(missing) <= 1025, "a program chooses the numbers, so they must not each become an entry"


def test_only_the_lower_half_of_the_number_counts(run):
    result = run(RAW + "print(call((1 << 32) | 39) == os.getpid(), call(1 << 63, 0, 0, 0))")
    assert result.stdout == b"True 0\n"


_word = st.sampled_from(
    [0, 1, 2, 3, 4, 5, 8, 16, 2048, 4096, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1, 2 ** 64 - 100, 140737486258176, 1 << 47, 18446603336221196288, "both", "both + 256", "both + 4095", "both + 8192", "both + 12288", "both + 16384"]
) | st.integers(0, 2**64 - 1)  # fmt: skip
_numbers = st.sampled_from([n for n, call in sorted(TABLE.items()) if call.name not in _ENDING]) | st.integers(0, 600)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(_numbers, st.lists(_word, min_size=6, max_size=6)), min_size=5, max_size=30))
def test_any_program_of_system_calls_harms_nobody_else(run, program):
    calls = [f"call({n}, {', '.join(map(str, words))})" for n, words in program if n not in (15, 60, 231)]
    result = run(_DRIVER + "\n".join(calls), timeout=0.4)
    assert result.status in ("ok", "error", "timeout", "crashed", "oom", "output_limit")
    assert not run.log, run.log[-1]


@pytest.mark.parametrize("entries", [1024, 1025, 2**31 - 1, 2**31, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("name", ["readv", "writev", "preadv", "pwritev"])
def test_vectors_of_wild_sizes_are_refused(run, name, entries):
    if NUMBERS[name] not in TABLE:
        pytest.skip(f"{name} is not implemented")
    code = RAW + (
        f"v = pages(8)\nfd = os.open('/dev/zero', os.O_RDWR)\nprint(call({NUMBERS[name]}, fd, v, {entries}, 0))\n"
    )
    expected = b"0\n" if entries == 1024 else b"-22\n"
    assert run(code).stdout == expected


@pytest.mark.parametrize("name", ["readv", "writev"])
def test_vectors_whose_lengths_overflow_are_refused(run, name):
    code = RAW + (
        "v, b = pages(1), pages(1)\n"
        "fd = os.open('/dev/null', os.O_RDWR)\n"
        "for lengths in ([2**63 - 1, 2**63 - 1], [2**63], [2**64 - 1], [1, 2**64 - 1]):\n"
        "    data = b''.join(struct.pack('<QQ', b, n) for n in lengths)\n"
        "    ctypes.memmove(v, data, len(data))\n"
        f"    print(call({NUMBERS[name]}, fd, v, len(lengths)))\n"
    )
    # Lengths of 2^63 - 1 are no negative numbers, but no buffer is so large: EFAULT, as Linux has it.
    assert run(code).stdout == b"-14\n-22\n-22\n-22\n"


_TIMES = [(-1, 0), (0, 10**9), (0, -1), (0, 2**63 - 1), (-(2**63), 0), (1, -(2**63))]


@pytest.mark.parametrize("name", ["nanosleep", "clock_nanosleep", "futex", "ppoll", "pselect6", "rt_sigtimedwait"])
def test_a_time_that_makes_no_sense_is_refused(run, name):
    if NUMBERS[name] not in TABLE:
        pytest.skip(f"{name} is not implemented")
    arguments = {
        "nanosleep": "t, 0", "clock_nanosleep": "1, 0, t, 0", "futex": "w, 0, 0, t, 0, 0", "ppoll": "0, 0, t, 0, 8",
        "pselect6": "0, 0, 0, 0, t, 0", "rt_sigtimedwait": "w, 0, t, 8",
    }[name]  # fmt: skip
    code = RAW + (
        "t, w = pages(1), pages(1)\n"
        f"for seconds, nanoseconds in {_TIMES}:\n"
        "    ctypes.memmove(t, struct.pack('<qq', seconds, nanoseconds), 16)\n"
        f"    print(call({NUMBERS[name]}, {arguments}))\n"
    )
    assert run(code, timeout=3).stdout == b"-22\n" * len(_TIMES)


@pytest.mark.parametrize("seconds", [2**31, 2**62, 2**63 - 1])
@pytest.mark.parametrize("absolute", [0, 1])
def test_a_sleep_of_any_length_ends_at_the_limit(run, seconds, absolute):
    code = (
        RAW + f"t = pages(1)\nctypes.memmove(t, struct.pack('<qq', {seconds}, 0), 16)\ncall(230, 1, {absolute}, t, 0)"
    )
    assert run(code, timeout=0.3).status == "timeout"


def test_mappings_that_cannot_be_are_refused(run):
    code = RAW + (
        "import errno\n"
        "file = os.open('main.py', os.O_RDONLY)\n"
        "folder = os.open('/', os.O_RDONLY)\n"
        "top = 0x7fffffe00000\n"
        "cases = [(0, 0, 3, 0x22, -1, 0), (0, 2**64 - 1, 3, 0x22, -1, 0), (4096 * 17 + 1, 4096, 3, 0x32, -1, 0), (0, 4096, 3, 0x32, -1, 0),\n"
        "    (top, 4096, 3, 0x32, -1, 0), (top - 4096, 8192, 3, 0x32, -1, 0), (2**64 - 4096, 8192, 3, 0x32, -1, 0),\n"
        "    (0, 4096, 3, 0x20, -1, 0), (0, 4096, 3, 2, 99, 0), (0, 4096, 3, 2, folder, 0), (0, 4096, 3, 1, file, 0),\n"
        "    (0, 4096, 1, 2, file, 1), (0, 4096, 1, 2, file, 2**63), (0, 4096, 1, 2, file, 2**64 - 4096), (0, 1 << 45, 3, 0x22, -1, 0)]\n"
        "print([errno.errorcode.get(-call(9, *case)) for case in cases])\n"
    )
    assert eval(run(code).stdout) == [
        "EINVAL", "ENOMEM", "EINVAL", "EPERM", "ENOMEM", "ENOMEM", "ENOMEM", "EINVAL", "EBADF", "ENODEV", "EACCES",
        "EINVAL", "EOVERFLOW", "EOVERFLOW", "ENOMEM",
    ]  # fmt: skip


def test_the_monitors_range_cannot_be_unmapped_protected_or_moved(run):
    code = RAW + (
        "top = 0x7fffffe00000\n"
        "results = [call(11, top, 4096), call(11, top - 4096, 8192), call(11, 2**64 - 4096, 4096), call(11, 4096, 2**64 - 1),\n"
        "    call(10, top, 4096, 7), call(10, top - 4096, 8192, 7), call(10, 4096, 2**64 - 1, 7), call(28, top, 4096, 4),\n"
        "    call(28, 2**64 - 4096, 8192, 4), call(25, top, 4096, 8192, 1, 0)]\n"
        "p = pages(1)\n"
        "results += [call(25, p, 4096, 4096, 3, top), call(25, p, 4096, 2**64 - 4096, 1, 0), call(25, p, 2**64 - 4096, 4096, 1, 0)]\n"
        "print(all(-200 < r < 0 for r in results), os.getpid() > 1)\n"
    )
    assert run(code).stdout == b"True True\n"


@pytest.mark.parametrize("victim", ["stack", "libc", "interpreter", "everything"])
def test_a_program_that_unmaps_itself_dies_alone(run, victim):
    code = RAW + (
        "rows = [(line.split('-')[0], line.split()[0].split('-')[1], line) for line in open('/proc/self/maps')]\n"
        "for start, end, line in rows:\n"
        "    start, end = int(start, 16), int(end, 16)\n"
        f"    if {victim!r} == 'everything' or {victim!r} in line or ({victim!r} == 'interpreter' and 'python' in line):\n"
        "        if not start <= ctypes.addressof(libc) < end: call(11, start, end - start)\n"
        "print('still here')\n"
    )
    result = run(code, timeout=3)
    assert result.status in ("crashed", "ok", "error") and not run.log


@pytest.mark.parametrize(
    "call", ["10, base, size, 3", "11, base, size", "28, base, size, 4"], ids=["mprotect", "munmap", "madvise"]
)
def test_one_call_over_very_many_areas_does_not_outlast_the_time_limit(run, call):
    """No single call may keep the monitor from noticing the limit for long."""
    code = RAW + (
        "import time\n"
        "base, size = 0x100000000000, 40_000 * 4096\n"
        "assert call(9, base, size, 0, 0x4032, -1, 0) == base\n"
        "began = time.monotonic()\n"
        "for i in range(0, 40_000, 2): assert call(10, base + i * 4096, 4096, 1) == 0\n"
        "between = time.monotonic()\n"
        f"assert call({call}) == 0\n"
        "print((time.monotonic() - between) / (between - began))\n"
    )
    # Compared with the 20,000 calls that made the areas, on the same busy machine.
    assert float(run(code, timeout=120).stdout) < 1


def test_mincore_of_the_whole_address_space_ends_with_the_time_limit(run):
    code = RAW + (
        "size = 1 << 41\n"
        "whole = libc.mmap(None, size, 0, 0x4022, -1, 0)\n"
        "vector = libc.mmap(None, 1 << 29, 3, 0x4022, -1, 0)\n"
        "while True: call(27, whole, size, vector)\n"
    )
    assert run(code, timeout=1).status in ("timeout", "oom")


_BUGS = [
    ValueError,
    KeyError,
    struct.error,
    RecursionError,
    MemoryError,
    AssertionError,
    OSError,
    StopIteration,
    TypeError,
]


@pytest.mark.parametrize("error", _BUGS)
def test_a_bug_of_ours_ends_that_guest_and_is_logged_once(run, monkeypatch, error):
    def broken(task):
        raise error("of ours")

    with monkeypatch.context() as patch:
        patch.setitem(TABLE, NUMBERS["getppid"], replace(TABLE[NUMBERS["getppid"]], function=broken))
        result = run(
            "import os\nprint('before', flush=True)\ntry:\n    os.getppid()\nexcept BaseException as e:\n    print('seen', e)"
        )
        run.canary()
    assert result.status == "crashed"
    assert result.stdout == b"before\n", "a bug of ours is never an errno"
    assert b"Traceback" not in result.stderr and b"of ours" not in result.stderr
    assert len(run.log) == 1 and error.__name__ in run.log[0]


@pytest.mark.parametrize("wrong", [None, "text", 1.5, (1, 2)])
def test_a_result_that_is_no_number_ends_that_guest(run, monkeypatch, wrong):
    with monkeypatch.context() as patch:
        patch.setitem(TABLE, NUMBERS["getppid"], replace(TABLE[NUMBERS["getppid"]], function=lambda task: wrong))
        assert run("import os\nos.getppid()").status == "crashed"
    assert len(run.log) == 1
