# ruff: noqa
from common import sys

import io

print(
    sys.stdin.read(),
    sys.stdin.closed,
    sys.stdout.isatty(),
    sys.stdout.fileno(),
    sys.stderr.errors,
    sys.stdout.errors,
    sys.stdin.buffer.raw.fileno(),
    sys.stdout.newlines,
    sys.stdout.write_through,
)
