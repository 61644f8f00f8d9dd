"""``python -m tests.conformance.libuv``: libuv's own tests in forks of Python's template, against the host."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pyvmm import Template
from tests.conformance.document import DOCUMENT
from tests.conformance.libuv.listed import listed
from tests.conformance.libuv.running import RECIPE, TIMEOUT_FACTOR, Host, Outcome, run_inside
from tests.conformance.libuv.scores import Pair, write
from tests.conformance.libuv.source import VERSION, build, missing_tools

_LOG = Path("build/conformance/libuv.log")


def main(arguments: list[str]) -> int:
    """Run what the arguments name; 0 if nothing differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.libuv", description=__doc__)
    parser.add_argument("tests", nargs="*", metavar="TEST", help="else all that are not left out")
    parser.add_argument("--write", action="store_true", help=f"put the scores of all tests into {DOCUMENT}")
    options = parser.parse_args(arguments)
    if missing := missing_tools():
        parser.error(f"libuv cannot be built without {', '.join(missing)}")
    if options.write and options.tests:
        parser.error("--write is for the scores of all tests")
    reviewed = listed()
    built = build()
    pairs: dict[str, Pair] = {}
    _LOG.parent.mkdir(parents=True, exist_ok=True)
    progress = Template.build(RECIPE, progress=lambda step: print(f"template: {step}", flush=True))
    with progress as template, Host(built) as host, _LOG.open("w") as log:
        known = host.tests()
        for unknown in set(options.tests).difference(known):
            parser.error(f"libuv has no test {unknown!r}")
        chosen = options.tests or [test for test in known if not reviewed.is_left_out(test)]
        for number, test in enumerate(chosen, 1):
            print(f"[{number}/{len(chosen)}] {test:<42}", end=" ", flush=True)
            native = _tried(lambda test=test: host.run(test))
            inside = _tried(lambda test=test: run_inside(template, built, test))
            pair = pairs[test] = Pair(native, inside)
            print(f"host {_told(native)}  inside {_told(inside)}{'  DIFFERS' if pair.differs else ''}", flush=True)
            if pair.differs:
                log.write(f"==== {test}\nhost: {native.detail}\ninside: {inside.detail}\n")
                log.flush()
    differing = [test for test, pair in pairs.items() if pair.differs]
    passed = sum(pair.inside.status == "passed" for pair in pairs.values())
    print(f"\n{len(pairs)} tests, {passed} pass inside, {len(differing)} differ", *differing, f"(see {_LOG})")
    if options.write:
        write(pairs, reviewed, VERSION, TIMEOUT_FACTOR)
    return 1 if differing else 0


def _tried(run: Callable[[], Outcome]) -> Outcome:
    """The outcome; that of a second try where the first failed."""
    first = run()
    return run() if first.status == "failed" else first


def _told(outcome: Outcome) -> str:
    return f"{outcome.status:<7} {outcome.seconds:5.1f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
