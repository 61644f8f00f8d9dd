"""The Test Anything Protocol, as far as it says how many tests there were and how they ended."""

import re

import msgspec

_TEST_POINT = re.compile(rb"^ *(?P<not>not )?ok\b(?P<rest>.*)$")
_DIRECTIVE = re.compile(rb"(?<!\\)# *(?:skip|todo)\b", re.IGNORECASE)
#: What is another at each run: times that were measured, and processes.
_VOLATILE = (
    (re.compile(rb"(duration_ms:? *)[\d.e-]+"), rb"\1TIME"),
    (re.compile(rb"# time=[\d.]+ms"), b"# time=TIME"),
    (re.compile(rb"\b[\d.]+ ?ms\b"), b"TIME"),
    (re.compile(rb"\(node:\d+\)"), b"(node:PID)"),
)


class Counts(msgspec.Struct, frozen=True):
    """Test points, those of subtests too; one that is to be skipped or done later is ``skipped``, however it ended."""

    ok: int = 0
    not_ok: int = 0
    skipped: int = 0


def parse(output: bytes) -> Counts:
    """The counts in what a run has written."""
    ok = not_ok = skipped = 0
    for line in output.split(b"\n"):
        point = _TEST_POINT.match(line)
        if point is None:
            continue
        if _DIRECTIVE.search(point["rest"]):
            skipped += 1
        elif point["not"]:
            not_ok += 1
        else:
            ok += 1
    return Counts(ok, not_ok, skipped)


def normalized(output: bytes, home: bytes) -> list[bytes]:
    """The lines of an output without what differs from run to run; ``home`` is the folder that it was made in."""
    output = output.replace(home, b"HOME")
    for pattern, replacement in _VOLATILE:
        output = pattern.sub(replacement, output)
    return output.split(b"\n")
