"""What threads and processes cost inside a fork, against the host's."""

from collections.abc import Callable

from bench.report import Bar, Case, Report, Series
from bench.rivals import WarmInterpreter
from bench.test_speed import both, flat
from pyvmm import Template

_FORKS = 5

# Each prints a JSON list of seconds.

# Machine code, so that the interpreter's own lock has no part in it. With two words in memory one thread gives and
# takes, the other takes and gives:
#     give: theirs = 1; futex(theirs, FUTEX_WAKE_PRIVATE, 1)
#     take: while mine == 0: futex(mine, FUTEX_WAIT_PRIVATE, 0); then mine = 0
_SWITCH = """
import ctypes, json, mmap, threading, time
code = bytes.fromhex(
    "53415441554889fb4989f44989d585c97515e821000000e83900000049ffcd75f1415d415c5bc3e829000000"
    "e80700000049ffcd75f1ebe941c70424010000004c89e7be81000000ba01000000b8ca0000000f05c3833b00"
    "75164889dfbe8000000031d24531d2b8ca0000000f05ebe5c70300000000c3"
)
text, words = mmap.mmap(-1, 4096, prot=7), mmap.mmap(-1, 4096)
text.write(code)
at = lambda memory: ctypes.addressof(ctypes.c_char.from_buffer(memory))
play = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int)(at(text))
first, second = at(words), at(words) + 64
turns, samples = 300, []
for _ in range(10):
    other = threading.Thread(target=play, args=(second, first, turns, 1))
    begun = time.perf_counter()
    other.start()
    play(first, second, turns, 0)
    samples.append((time.perf_counter() - begun) / turns / 2)
    other.join()
    words[:128] = bytes(128)
print(json.dumps(samples))
"""

_ALONE = """
import json, time
def work(turns):
    total = 0
    for number in range(turns):
        total += number
samples = []
for _ in range(3):
    begun = time.perf_counter()
    work(4_000_000)
    samples.append(time.perf_counter() - begun)
print(json.dumps(samples))
"""

_POOL = """
import json, time
from concurrent.futures import ThreadPoolExecutor
def work(turns):
    total = 0
    for number in range(turns):
        total += number
samples = []
with ThreadPoolExecutor(4) as pool:
    list(pool.map(work, [1] * 4))
    for _ in range(3):
        begun = time.perf_counter()
        list(pool.map(work, [1_000_000] * 4))
        samples.append(time.perf_counter() - begun)
print(json.dumps(samples))
"""

_FORK = """
import json, os, time
samples = []
for _ in range(5):
    begun = time.perf_counter()
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    samples.append(time.perf_counter() - begun)
print(json.dumps(samples))
"""


def test_switch(template: Template, warm: WarmInterpreter, report: Report, rounds: Callable[[int], int]) -> None:
    ours, theirs = both(template, warm, _SWITCH, rounds(_FORKS))
    series = Series.of("switch between two threads over a futex", "µs", flat(ours), 1e6)
    bars = [Bar("p50 < 150 µs", series.p50, 150, strict=True)]
    report.add(Case(series, [Series.of("host", "µs", flat(theirs), 1e6)], bars))


def test_thread_pool(template: Template, warm: WarmInterpreter, report: Report, rounds: Callable[[int], int]) -> None:
    pool, on_host = both(template, warm, _POOL, rounds(_FORKS))
    alone, _ = both(template, warm, _ALONE, rounds(_FORKS))
    ours = Series.of("4,000,000 turns of a loop in four threads", "ms", flat(pool), 1e3)
    single = Series.of("in one thread, in a fork", "ms", flat(alone), 1e3)
    bars = [Bar("≤ 1.05 × one thread", ours.p50 / single.p50, 1.05)]
    report.add(Case(ours, [single, Series.of("host, four threads", "ms", flat(on_host), 1e3)], bars))


def test_fork_inside(template: Template, warm: WarmInterpreter, report: Report, rounds: Callable[[int], int]) -> None:
    ours, theirs = both(template, warm, _FORK, rounds(_FORKS))
    report.add(
        Case(
            Series.of("os.fork() inside a fork, until the child has ended", "ms", flat(ours), 1e3),
            [Series.of("host", "ms", flat(theirs), 1e3)],
        )
    )
