"""The table of libuv's tests, a section of ``docs/conformance.md``."""

from collections.abc import Iterable, Mapping

import msgspec

from tests.conformance.document import DOCUMENT, read, with_section
from tests.conformance.libuv.listed import Listed, Reviewed
from tests.conformance.libuv.running import Outcome

HEADING = "# libuv"
_STATUSES = ("passed", "failed", "skipped")
#: Tests are grouped by the first word of their names; of words that fewer tests have, all are in one group.
_LEAST_TESTS = 5
_OTHERS = "others"
_COLUMNS = ("tests", "host: passed", "failed", "skipped", "s", "inside: passed", "failed", "skipped", "s", "differ")
_INTRODUCTION = """\
What Node and uvloop stand on, with the tests that its authors run: the test program of libuv {version}, built once on
the host with CMake out of the source distribution of `uvloop`, and then test by test on the host and in a fork of the
template `python`, as an unprivileged user, with the same files and environment. The program starts each test, and the
servers that it needs, as processes of their own. libuv's time-outs are multiplied by {factor} on both sides, and a test
that fails is tried once more on that side, for many measure time and the machine may be busy.

`make conformance-libuv` runs all of it (it needs CMake and a C compiler), `python -m tests.conformance.libuv fs_poll`
a part; `--write` makes the table. *Differ* counts the tests that do not end inside as on the host: as passed, or else
as failed or skipped there too. Tests are grouped by the first word of their names.
"""


class Pair(msgspec.Struct, frozen=True):
    """How a test ended on both sides."""

    native: Outcome
    inside: Outcome

    @property
    def differs(self) -> bool:
        """Whether it ends inside otherwise than on the host; nobody minds if it passes only there."""
        return self.inside.status not in ("passed", self.native.status)


def table(pairs: Mapping[str, Pair], listed: Listed, version: str, factor: int) -> str:
    """The section."""
    groups: dict[str, list[Pair]] = {}
    words = [test.partition("_")[0] for test in pairs]
    for test in sorted(pairs):
        word = test.partition("_")[0]
        groups.setdefault(word if words.count(word) >= _LEAST_TESTS else _OTHERS, []).append(pairs[test])
    others = groups.pop(_OTHERS, None)
    rows = [*groups.items(), *([(_OTHERS, others)] if others else []), ("**all**", list(pairs.values()))]
    differing = sorted(test for test, pair in pairs.items() if pair.differs)
    lines = [
        f"{HEADING}\n",
        _INTRODUCTION.format(version=version, factor=factor),
        "| " + " | ".join(_COLUMNS) + " |",
        "|---|" + "---:|" * (len(_COLUMNS) - 1),
        *(_row(name, own) for name, own in rows),
        "\nDifferences:\n",
        *(_reasons(listed.differs, differing) or ["None."]),
        "\nSkipped on both sides, by what the test itself finds:\n",
        *(f"* `{test}`: {pairs[test].native.detail}" for test in sorted(pairs) if _is_skipped(pairs[test])),
        "\nRun on neither side:\n",
        *(f"* {_names(each.tests)}: {each.reason}" for each in listed.left_out),
    ]
    return "\n".join(lines)


def write(pairs: Mapping[str, Pair], listed: Listed, version: str, factor: int) -> None:
    """Put the table into the document."""
    DOCUMENT.write_text(with_section(read(), HEADING, table(pairs, listed, version, factor)))


def _row(name: str, pairs: list[Pair]) -> str:
    cells: list[object] = [name]
    for side in ([pair.native for pair in pairs], [pair.inside for pair in pairs]):
        cells += [sum(each.status == status for each in side) for status in _STATUSES]
        cells.append(round(sum(each.seconds for each in side), 1))
    cells.append(sum(pair.differs for pair in pairs))
    return "| " + " | ".join(map(str, cells)) + " |"


def _reasons(reviewed: Iterable[Reviewed], tests: list[str]) -> list[str]:
    """A line for each reason that explains some of ``tests``, and one for those that nothing explains."""
    lines = []
    unexplained = set(tests)
    for each in reviewed:
        if own := [test for test in each.tests if test in tests]:
            lines.append(f"* {_names(own)}: {each.reason}")
            unexplained -= set(own)
    if unexplained:
        lines.append(f"* {_names(sorted(unexplained))}: not explained")
    return lines


def _is_skipped(pair: Pair) -> bool:
    return pair.native.status == pair.inside.status == "skipped"


def _names(tests: Iterable[str]) -> str:
    return ", ".join(f"`{test}`" for test in tests)
