"""A first line in every other language: the fork and the run, and the template before it."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.report import Bar, Case, Report, Series
from bench.rounds import interleave
from pyvmm import Host, PyvmmError, Template
from pyvmm.template.build import build

_ROUNDS = 60
#: Language -> a program that prints 2, and what its p50 is to stay below, in milliseconds.
_FIRST_LINES = {"node": ("console.log(1+1)", 15.0), "bash": ("echo $((1+1))", None)}


@pytest.fixture(params=sorted(_FIRST_LINES))
def language(request: pytest.FixtureRequest, host: Host, report: Report) -> str:
    """A language whose template is there, or can be built."""
    name: str = request.param
    try:
        build(name, lambda step: print(f"{name}: {step}", flush=True), host=host)
    except PyvmmError as error:
        report.missing.append(f"{name}: {error}")
        pytest.skip(str(error))
    return name


def test_first_line(benchmark: Any, language: str, host: Host, report: Report, rounds: Callable[[int], int]) -> None:
    program, limit = _FIRST_LINES[language]
    with Template.load(language, host=host) as template:

        def run() -> None:
            result = template.run(program)
            assert (result.stdout, result.exit_code) == (b"2\n", 0), result

        samples = interleave(benchmark, run, rounds(_ROUNDS))
    ours = Series.of(f"{language}: fork + {program} + result, destroyed", "ms", samples["ours"], 1e3)
    report.add(Case(ours, bars=[] if limit is None else [Bar(f"p50 < {limit:g} ms", ours.p50, limit, strict=True)]))


def test_template(language: str, host: Host, report: Report, pytestconfig: pytest.Config) -> None:
    """A build with the packages there."""
    if not pytestconfig.getoption("--build-template"):
        pytest.skip("a build of the template is measured with --build-template")
    begun = time.perf_counter()
    build(language, lambda step: None, host=host, replace=True)
    seconds = time.perf_counter() - begun
    bar = Bar("< 3 s", seconds, 3.0, strict=True)
    report.add(Case(Series.of(f"{language}: build the template", "s", [seconds]), bars=[bar]))
