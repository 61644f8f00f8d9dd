"""How fast a program is inside a fork, against the host's interpreter; each measures itself."""

import json
from collections.abc import Callable

from bench.report import Bar, Case, Report, Series
from bench.rivals import WarmInterpreter
from pyvmm import Template

_FORKS = 10
_CLOCKS = (
    "Inside a fork and on the host, in turns: programs that read time.perf_counter(); the host's run after os.fork()."
)

# Each prints a JSON list of seconds.

_SYSTEM_CALL = """
import json, os, time
call, count, samples = os.getppid, 200, []
for _ in range(20):
    begun = time.perf_counter()
    for _ in range(count):
        call()
    samples.append((time.perf_counter() - begun) / count)
print(json.dumps(samples))
"""

# The second walk over the same pages is the cost of the loop itself.
_PAGE_FAULT = """
import json, mmap, time
pages = 1024
def walk(memory):
    begun = time.perf_counter()
    for address in range(0, pages * 4096, 4096):
        memory[address] = 1
    return time.perf_counter() - begun
samples = []
for _ in range(3):
    with mmap.mmap(-1, pages * 4096) as memory:
        first = walk(memory)
        samples.append(max(first - walk(memory), 0.0) / pages)
print(json.dumps(samples))
"""

_LOOP = """
import json, time
samples = []
for _ in range(5):
    begun = time.perf_counter()
    total = 0
    for number in range(300_000):
        total += number
    samples.append(time.perf_counter() - begun)
print(json.dumps(samples))
"""

_MATRICES = """
import json, time
import numpy
samples = []
for _ in range(10):
    begun = time.perf_counter()
    numpy.ones((500, 500)) @ numpy.ones((500, 500))
    samples.append(time.perf_counter() - begun)
print(json.dumps(samples))
"""

_PRODUCT_ONLY = """
import json, time
import numpy
a = numpy.ones((500, 500))
b, c = a.copy(), a @ a
samples = []
for _ in range(10):
    begun = time.perf_counter()
    numpy.matmul(a, b, c)
    samples.append(time.perf_counter() - begun)
print(json.dumps(samples))
"""


def both(
    template: Template, warm: WarmInterpreter, program: str, forks: int
) -> tuple[list[list[float]], list[list[float]]]:
    """The samples of ``program`` in so many forks, and on the host, run in turns."""
    ours, theirs = [], []
    for _ in range(forks):
        result = template.run(program)
        assert result.exit_code == 0, result
        ours.append(json.loads(result.stdout))
        theirs.append(json.loads(warm.run(program).output))
    return ours, theirs


def flat(samples: list[list[float]]) -> list[float]:
    return [value for run in samples for value in run]


def test_system_call_speed(
    template: Template, warm: WarmInterpreter, report: Report, rounds: Callable[[int], int]
) -> None:
    ours, theirs = both(template, warm, _SYSTEM_CALL, rounds(_FORKS))
    rival = Series.of("host", "µs", flat(theirs), 1e6)
    report.add(Case(Series.of("os.getppid(): a system call", "µs", flat(ours), 1e6), [rival], notes=[_CLOCKS]))


def test_page_fault_speed(
    template: Template, warm: WarmInterpreter, report: Report, rounds: Callable[[int], int]
) -> None:
    ours, theirs = both(template, warm, _PAGE_FAULT, rounds(_FORKS))
    rival = Series.of("host", "µs", flat(theirs), 1e6)
    report.add(Case(Series.of("first touch of a new page, in order", "µs", flat(ours), 1e6), [rival]))


def test_loop_speed(template: Template, warm: WarmInterpreter, report: Report, rounds: Callable[[int], int]) -> None:
    ours, theirs = both(template, warm, _LOOP, rounds(_FORKS))
    rival = Series.of("host", "ms", flat(theirs), 1e3)
    report.add(Case(Series.of("300,000 turns of a Python loop", "ms", flat(ours), 1e3), [rival]))


def test_numpy_speed(template: Template, warm: WarmInterpreter, report: Report, rounds: Callable[[int], int]) -> None:
    ours, theirs = both(template, warm, _MATRICES, rounds(_FORKS))
    for name, first, last, bar in (
        ("ones((500,500)) @ ones((500,500)), first in a fork", 0, 1, False),
        ("ones((500,500)) @ ones((500,500)), from then on", 1, None, True),
    ):
        inside = Series.of(name, "ms", flat([run[first:last] for run in ours]), 1e3)
        outside = Series.of("host", "ms", flat([run[first:last] for run in theirs]), 1e3)
        bars = [Bar("≤ 1.1 × host", inside.p50 / outside.p50, 1.1)] if bar else []
        report.add(Case(inside, [outside], bars))
    ours, theirs = both(template, warm, _PRODUCT_ONLY, rounds(_FORKS))
    rival = Series.of("host", "ms", flat(theirs), 1e3)
    report.add(Case(Series.of("the product alone, into memory that is there", "ms", flat(ours), 1e3), [rival]))
