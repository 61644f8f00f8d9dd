"""``python -m tests.conformance.packages``: numpy's and pandas' own tests in forks against the host."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conformance.comparing import compare
from tests.conformance.document import DOCUMENT
from tests.conformance.running import Suite
from tests.conformance.tiers import PACKAGE_TIERS


def _arguments(module: str, excluded: Sequence[str]) -> list[str]:
    """Without what both projects leave out of a plain run, and with the same examples by Hypothesis on both sides."""
    plugins = ["-p", "no:cacheprovider", "-p", "recorder", "--hypothesis-seed=0"]
    left_out = ["-m", "not slow and not network and not db", *(f"--excluded={test}" for test in excluded)]
    return ["-m", "pytest", "-q", "--color=no", "--rootdir=/", *plugins, *left_out, "--pyargs", module]


PACKAGES = Suite(Path(__file__).with_name("packages.toml"), Path(__file__).with_name("recorder.py"), _arguments)


def main(arguments: list[str]) -> int:
    """Run what the arguments name; 0 if nothing differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.packages", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="as numpy.fft.tests.test_pocketfft; else all")
    parser.add_argument("--tier", action="append", choices=PACKAGE_TIERS, help="N for numpy, P for pandas (both)")
    parser.add_argument("--again", action="store_true", help="run on the host again, whatever is kept of earlier runs")
    parser.add_argument("--write", action="store_true", help=f"put the scores into {DOCUMENT}")
    options = parser.parse_args(arguments)
    modules = options.modules or [name for tier in options.tier or PACKAGE_TIERS for name in PACKAGE_TIERS[tier]]
    scores = compare(PACKAGES, modules, options.again, options.write)
    return 1 if any(score.different for score in scores) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
