"""``python -m bench``: run the measurements and print the table."""

import sys
from pathlib import Path

import pytest

_USAGE = """\
usage: python -m bench [--json FILE] [--rounds FACTOR] [--build-template] [options of pytest]

  --json FILE        write everything that was measured, every sample of it, to FILE
  --rounds FACTOR    that many times the usual number of rounds (0.1: a quick look, 3: quieter numbers)
  --build-template   measure a whole build of the template too, in a cache of its own (wheels come from pip's cache)
  -k EXPRESSION      only the cases whose names match: fork, destroy, run, memory, speed, template, devices,
                     kernel_guests

examples: python -m bench --json bench.json        python -m bench -k 'fork or destroy' --rounds 0.2
"""


def main(arguments: list[str]) -> int:
    """Run pytest over this folder; its exit status."""
    if {"-h", "--help"} & set(arguments):
        print(_USAGE, end="")
        return 0
    folder = str(Path(__file__).resolve().parent)
    # The table of conftest.py replaces pytest-benchmark's, which knows nothing of rivals.
    own = [folder, "-q", "--benchmark-quiet", "-p", "no:cacheprovider", "--timeout=900"]
    return int(pytest.main([*own, *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
