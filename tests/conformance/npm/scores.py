"""The table of npm packages, a section of ``docs/conformance.md`` below CPython's suite."""

import re

import msgspec

from tests.conformance.document import DOCUMENT, read, section, with_section
from tests.conformance.npm.packages import Package, package_list
from tests.conformance.npm.running import Run

HEADING = "# npm packages"
_COLUMNS = (
    "package", "version", "host: ok", "not ok", "skipped", "s", "inside: ok", "not ok", "skipped", "s", "output",
)  # fmt: skip
_INTRODUCTION = f"""\
{HEADING}

The tests that these packages are published with, unmodified, once on the host and once in a fork of the template of
Node: the same node program, command, files and environment, as an unprivileged user. npm fetches them on the host, in
the versions and as of the day in `tests/conformance/npm/packages.toml`, with what the tests need. The command is what
`tape` does, loading the files into one process, here into the warm process of the fork; where a package uses
`node --test`, the fork's program starts that. Nothing here uses the network: a sandbox has none but its loopback.

`make conformance-npm` runs all of it, `python -m tests.conformance.npm qs resolve` a part; `--write` makes the table.
A row counts the test points of the Test Anything Protocol, *skipped* are those marked as to skip or to do. *Output* is
`same` when both streams, line by line, and the exit code are those of the host, apart from times and process numbers.
Tests that write nothing, as those of `pump`, are judged by that alone.
"""


class Score(msgspec.Struct, frozen=True):
    """One row."""

    package: str
    version: str
    ok_native: int
    not_ok_native: int
    skipped_native: int
    seconds_native: float
    ok_inside: int
    not_ok_inside: int
    skipped_inside: int
    seconds_inside: float
    output: str

    @classmethod
    def of(cls, package: Package, native: Run, inside: Run) -> "Score":
        """The score of a package that was run on both sides."""
        counts = [
            value for run in (native, inside) for value in (*msgspec.structs.astuple(run.counts), round(run.seconds, 1))
        ]
        return cls(package.name, package.version, *counts, "same" if inside.same_as(native) else "differs")

    def row(self) -> str:
        """As a row of the table."""
        return "| " + " | ".join(map(str, msgspec.structs.astuple(self))) + " |"


def update(scores: list[Score], listed: tuple[Package, ...], document: str) -> str:
    """The document with these rows; packages that were not run now keep theirs."""
    rows = {score.package: score for score in _read(section(document, HEADING))} | {
        score.package: score for score in scores
    }
    kept = [rows[each.name] for each in listed if each.name in rows]
    columns = list(zip(*(msgspec.structs.astuple(score)[2:-1] for score in kept), strict=True))
    total = Score("**all**", "", *(round(sum(column), 1) for column in columns), "")
    lines = [
        _INTRODUCTION,
        "| " + " | ".join(_COLUMNS) + " |",
        "|---|---|" + "---:|" * (len(_COLUMNS) - 3) + "---|",
        *(score.row() for score in (*kept, total)),
        "",
        "Differences:",
        "",
        *(f"* {each.name}: {each.differs}" for each in listed if each.differs),
        "",
        "Run on neither side:",
        "",
        *(f"* {each.name}: {_names(each.without.files)}: {each.without.reason}" for each in listed if each.without),
    ]
    return with_section(document, HEADING, "\n".join(lines))


def write(scores: list[Score]) -> None:
    """Put the scores into the document."""
    DOCUMENT.write_text(update(scores, package_list().package, read()))


def _names(files: tuple[str, ...]) -> str:
    return ", ".join(f"`{each}`" for each in files)


def _read(text: str) -> list[Score]:
    """The rows that the section has."""
    found = []
    for line in text.split("\n"):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(_COLUMNS) and re.fullmatch(r"\d[\w.-]*", cells[1]):
            values = [float(cell) if "." in cell else int(cell) for cell in cells[2:-1]]
            found.append(Score(cells[0], cells[1], *values, cells[-1]))
    return found
