"""``python -m tests.conformance.npm``: the tests of npm packages in forks of Node's template, against the host."""

import argparse
import difflib
import sys
from pathlib import Path

from pyvmm import Template
from tests.conformance.document import DOCUMENT
from tests.conformance.npm.packages import fetch, is_installed, package_list
from tests.conformance.npm.running import Run, node_program, run_inside, run_on_host
from tests.conformance.npm.scores import Score, write

_LOGS = Path("build/conformance")


def main(arguments: list[str]) -> int:
    """Run what the arguments name; 0 if nothing differs."""
    listed = package_list()
    names = [each.name for each in listed.package]
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.npm", description=__doc__)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"else all of {', '.join(names)}")
    parser.add_argument("--write", action="store_true", help=f"put the scores into {DOCUMENT}")
    options = parser.parse_args(arguments)
    if not is_installed():
        parser.error("npm is not on this machine")
    for unknown in set(options.packages).difference(names):
        parser.error(f"no package {unknown!r} in packages.toml")
    chosen = [each for each in listed.package if not options.packages or each.name in options.packages]
    scores: list[Score] = []
    with Template.build("node", progress=lambda step: print(f"template: {step}", flush=True)) as template:
        node = node_program()
        for number, package in enumerate(chosen, 1):
            print(f"[{number}/{len(chosen)}] {package.name:<22}", end=" ", flush=True)
            folder = fetch(package, listed.before)
            native = run_on_host(package, folder, node)
            print(f"host {_told(native)}", end="  ", flush=True)
            inside = run_inside(package, folder, template, native)
            score = Score.of(package, native, inside)
            log = _LOGS / f"npm-{package.name}.diff"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(_difference(native, inside))
            print(f"inside {_told(inside)}  {score.output}", flush=True)
            if score.output != "same":
                print(f"    see {log}")
            scores.append(score)
    same = sum(score.output == "same" for score in scores)
    print(f"\n{len(scores)} packages, {same} the same; {sum(score.ok_inside for score in scores)} ok inside")
    if options.write:
        write(scores)
    return 0 if same == len(scores) else 1


def _told(run: Run) -> str:
    counts = run.counts
    return f"{counts.ok:>5} ok {counts.not_ok:>2} not ok {run.seconds:5.1f} s exit code {run.exit_code}"


def _difference(native: Run, inside: Run) -> str:
    """The output on the host against that inside, as a unified diff."""
    lines = [f"exit code {native.exit_code}, inside {inside.exit_code}"]
    for name, here, there in zip(("stdout", "stderr"), native.lines, inside.lines, strict=True):
        texts = ([line.decode(errors="replace") for line in side] for side in (here, there))
        lines += difflib.unified_diff(*texts, f"host/{name}", f"inside/{name}", lineterm="")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
