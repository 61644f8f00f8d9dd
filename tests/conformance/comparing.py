"""Runs modules of a suite on both sides and tells how they compare."""

from pathlib import Path

from pyvmm import Template
from tests.conformance.records import Difference, Record, differences, exclusions
from tests.conformance.running import NativeRuns, Suite, run_inside
from tests.conformance.scores import Score, update
from tests.conformance.tiers import tier_of

_LOGS = Path("build/conformance")


def compare(suite: Suite, modules: list[str], again: bool, write: bool) -> list[Score]:
    """Run the modules one by one, with a line and a log for each.

    :param again: run on the host again, whatever is kept of earlier runs.
    :param write: put each score into the document as it comes, so that an interrupted run leaves something.
    """
    reviewed = exclusions()
    scores: list[Score] = []
    build = Template.build(suite.recipe, progress=lambda step: print(f"template: {step}", flush=True))
    with build as template, NativeRuns(suite) as native_runs:
        for number, module in enumerate(modules, 1):
            print(f"[{number}/{len(modules)}] {module:<20}", end=" ", flush=True)
            excluded = [each.test for each in reviewed if each.module == module]
            native = native_runs.record(module, excluded, again)
            if not native.finished:
                print(f"HOST NOT FINISHED ({native.how})", end="  ")
            print(f"host {native.count('passed'):>5} in {native.seconds:5.1f} s", end="  ", flush=True)
            inside, output = run_inside(suite, template, module, excluded, native)
            found = differences(native, inside)
            log = _LOGS / f"{module}.log"
            _write_log(log, native, inside, found, output)
            print(f"inside {inside.count('passed'):>5} in {inside.seconds:5.1f} s", end="  ", flush=True)
            if not inside.finished:
                print(f"NOT FINISHED ({inside.how})", end="  ")
            print(f"{len(found)} differ, see {log}" if found else "same", flush=True)
            scores.append(Score.of(module, tier_of(module), native, inside, found))
            if write:
                update(scores[-1:])
    _summary(scores)
    return scores


def _write_log(path: Path, native: Record, inside: Record, found: list[Difference], output: bytes) -> None:
    """All that is needed to look into a difference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as log:
        log.write(f"host: {native.how}; inside: {inside.how}\n")
        for each in found:
            log.write(f"\n==== {each.test}: {each.status}\n{each.detail}\n")
        log.write("\n==== output inside\n")
        lines = output.decode(errors="replace").split("\n")
        log.write("\n".join(line for line in lines if line and not line.startswith("\x1f"))[-20_000:])


def _summary(scores: list[Score]) -> None:
    passed, passed_inside = sum(s.passed_native for s in scores), sum(s.passed_inside for s in scores)
    host, inside = sum(s.seconds_native for s in scores), sum(s.seconds_inside for s in scores)
    share = 100 * passed_inside / max(passed, 1)
    print(
        f"\n{len(scores)} modules: {passed_inside} of {passed} tests pass inside ({share:.2f} %),"
        f" {inside:.0f} s against {host:.0f} s on the host ({inside / max(host, 0.1):.1f} times)"
    )
