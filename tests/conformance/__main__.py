"""``python -m tests.conformance``: CPython's own suite in forks, one fork a module, against the host."""

import argparse
import sys
from pathlib import Path

from pyvmm import Template
from tests.conformance.records import Difference, Record, differences, exclusions
from tests.conformance.running import NOT_INSTALLED, RECIPE, NativeRuns, is_installed, run_inside
from tests.conformance.scores import DOCUMENT, Score, update
from tests.conformance.tiers import TIERS, tier_of

_LOGS = Path("build/conformance")


def main(arguments: list[str]) -> int:
    """Run what the arguments name; 0 if nothing differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="without 'test_'; else all of the tiers")
    parser.add_argument("--tier", action="append", choices=TIERS, help="a tier, may be given more than once (all)")
    parser.add_argument("--again", action="store_true", help="run on the host again, whatever is kept of earlier runs")
    parser.add_argument("--write", action="store_true", help=f"put the scores into {DOCUMENT}")
    options = parser.parse_args(arguments)
    if not is_installed():
        parser.error(NOT_INSTALLED)
    modules = options.modules or [name for tier in options.tier or TIERS for name in TIERS[tier]]
    reviewed = exclusions()
    scores: list[Score] = []
    build = Template.build(RECIPE, progress=lambda step: print(f"template: {step}", flush=True))
    with build as template, NativeRuns() as native_runs:
        for number, module in enumerate(modules, 1):
            print(f"[{number}/{len(modules)}] {module:<20}", end=" ", flush=True)
            excluded = [each.test for each in reviewed if each.module == module]
            native = native_runs.record(module, excluded, options.again)
            if not native.finished:
                print(f"HOST NOT FINISHED ({native.how})", end="  ")
            print(f"host {native.count('passed'):>5} in {native.seconds:5.1f} s", end="  ", flush=True)
            inside, output = run_inside(template, module, excluded, native)
            found = differences(native, inside)
            log = _LOGS / f"{module}.log"
            _write_log(log, native, inside, found, output)
            print(f"inside {inside.count('passed'):>5} in {inside.seconds:5.1f} s", end="  ", flush=True)
            if not inside.finished:
                print(f"NOT FINISHED ({inside.how})", end="  ")
            print(f"{len(found)} differ, see {log}" if found else "same", flush=True)
            scores.append(Score.of(module, tier_of(module), native, inside, found))
    _summary(scores)
    if options.write:
        update(scores, reviewed)
    return 1 if any(score.different for score in scores) else 0


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
