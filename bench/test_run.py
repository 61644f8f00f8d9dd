"""A program in a fork, from the request to its output, against the other ways to run it."""

import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from bench.report import Bar, Case, Report, Series
from bench.rivals import WarmInterpreter, run_cold
from bench.rounds import interleave
from pyvmm import Sandbox, Template
from pyvmm.linux.strace import Tracer
from pyvmm.template.recipe import Recipe

_PROGRAM = "print(1+1)"
_OUTPUT = "2\n"
_ROUNDS = 150
#: Every how many rounds the cold interpreter starts too: it is two orders of magnitude slower than the others.
_COLD_EVERY = 5

_TO_THE_END = (
    "os.fork() and python3 -c are measured until the process is gone; the fork's destruction is a line of its own."
)

#: System calls that open, look at or read files.
_FILE_CALLS = re.compile(
    r"open(at2?)?|creat|p?readv?(64|2)?|[lf]?stat|newfstatat|statx|f?access(at2?)?|readlink(at)?|getdents(64)?|lseek"
)


class _HostPython(Protocol):
    executable: Path


def test_run(
    benchmark: Any,
    template: Template,
    warm: WarmInterpreter,
    host_python: _HostPython,
    recipe: Recipe,
    report: Report,
    rounds: Callable[[int], int],
) -> None:
    alive: list[Sandbox] = []
    cold: list[float] = []
    turn = 0

    def before() -> dict[str, float]:
        nonlocal turn
        turn += 1
        if turn % _COLD_EVERY == 0:
            seconds, output = run_cold(host_python.executable, _PROGRAM, recipe.env)
            assert output == _OUTPUT.encode()
            cold.append(seconds)
        forked = warm.run(_PROGRAM)
        assert forked.output == _OUTPUT
        return {"warm": forked.seconds}

    def run() -> None:
        sandbox = template.fork()
        alive.append(sandbox)
        result = sandbox.run(_PROGRAM)
        assert result.stdout == _OUTPUT.encode() and result.exit_code == 0, result

    def after() -> dict[str, float]:
        begun = time.perf_counter()
        alive.pop().close()
        return {"destroy": time.perf_counter() - begun}

    samples = interleave(benchmark, run, rounds(_ROUNDS), before, after)
    rivals = [
        Series.of("os.fork(), warm: the same program through a pipe", "ms", samples["warm"], 1e3),
        Series.of("cold python3 -c", "ms", cold, 1e3),
    ]
    ours = Series.of(f"fork + {_PROGRAM} + result", "ms", samples["ours"], 1e3)
    destroyed = [run + end for run, end in zip(samples["ours"], samples["destroy"], strict=True)]
    report.add(Case(ours, rivals, [Bar("p50 < 5 ms", ours.p50, 5.0, strict=True)], [_TO_THE_END]))
    report.add(Case(Series.of("the same, and the fork destroyed", "ms", destroyed, 1e3), rivals))
    report.add(Case(Series.of("destroy a fork that has run", "ms", samples["destroy"], 1e3)))


def test_run_exits(template: Template, report: Report) -> None:
    """How often the VM stops on the way."""
    calls: list[str] = []
    with template.fork(tracer=Tracer(calls.append)) as sandbox:
        vcpu: Any = sandbox.machine.vcpu
        run, exits = vcpu.run, 0

        def counted() -> int:
            nonlocal exits
            exits += 1
            reason: int = run()
            return reason

        vcpu.run = counted
        assert sandbox.run(_PROGRAM).stdout == _OUTPUT.encode()
    report.add(Case(Series.of(f"exits of the VM for {_PROGRAM}", "exits", [exits])))
    report.add(Case(Series.of(f"system calls for {_PROGRAM}", "calls", [len(calls)])))


def test_import_run(template: Template, report: Report) -> None:
    """What ``import numpy`` has left to do in a fork, beyond what a program that does nothing does."""

    def calls_of(program: str) -> Counter[str]:
        lines: list[str] = []
        with template.fork(tracer=Tracer(lines.append)) as sandbox:
            result = sandbox.run(program)
        assert result.exit_code == 0, result
        return Counter(line.partition("(")[0].split()[-1] for line in lines)

    nothing = calls_of("pass")
    more = calls_of("import numpy, pandas") - nothing
    files = sum(count for name, count in more.items() if _FILE_CALLS.fullmatch(name))
    report.add(
        Case(
            Series.of("system calls on files for import numpy, pandas", "calls", [files]),
            bars=[Bar("no file I/O left", files, 0)],
            notes=[f"import numpy, pandas in a fork makes these calls more than an empty program: {dict(more)}"]
            if more
            else [],
        )
    )
