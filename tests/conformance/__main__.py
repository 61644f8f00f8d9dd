"""``python -m tests.conformance``: CPython's own suite in forks, one fork a module, against the host."""

import argparse
import sys

from tests.conformance.comparing import compare
from tests.conformance.document import DOCUMENT
from tests.conformance.running import CPYTHON, NOT_INSTALLED, is_installed
from tests.conformance.tiers import TIERS


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
    scores = compare(CPYTHON, modules, options.again, options.write)
    return 1 if any(score.different for score in scores) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
