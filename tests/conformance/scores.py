"""The table of scores in ``docs/conformance.md``."""

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from tests.conformance.document import DOCUMENT, read, without_sections
from tests.conformance.records import Difference, Record, exclusions
from tests.conformance.tiers import PACKAGE_TIERS, TIERS, TITLES

_HEADINGS = ("# CPython's own suite, inside forks", "# numpy and pandas", "# Exclusions")
_COLUMNS = (
    "module", "host: passed", "failed", "skipped", "s", "inside: passed", "failed", "skipped", "s", "differ",
)  # fmt: skip
_INTRODUCTION = f"""\
{_HEADINGS[0]}

The regression tests of the very interpreter that is in the image, module by module: once on the host and once in a fork
of a template that has the tests in its image (`tests/conformance/suite.toml`), with the same program, environment and
privileges. What is run is `python -m unittest -q test.test_x`; inside, the program of the fork executes it.
A module may take four times as long inside as on the host, times the published factor of 3 (at least 60 s), and has the
memory that every sandbox has, 512 MiB.

`test_multiprocessing_fork` only calls what makes its tests out of `_test_multiprocessing`; where an installation leaves
that file out, the runner makes the same call. `test_concurrent_futures` can be run where it is installed; it was not
here, so it has no row.

`make conformance` runs all of it; `python -m tests.conformance --tier A`, or `... dict list`, a part. `--write` makes
the tables below. *Differ* counts the tests that pass on the host and do not pass inside (failed, skipped, or not
reached), and those that fail only there.
"""
_PACKAGES_INTRODUCTION = f"""\
{_HEADINGS[1]}

Their own tests, by `python -m pytest --pyargs MODULE` in the same manner: one fork a module, on the host with the same
interpreter and the very folder of packages that is in the image (`tests/conformance/packages.toml`). Left out on both
sides is what both projects mark as slow, or as asking for a network or a database server; numpy's tests that want more
than 256 MB are told that there is no more. `python -m tests.conformance.packages` runs them, with the same options.
"""


class Score(msgspec.Struct, frozen=True):
    """One row."""

    module: str
    tier: str
    passed_native: int
    failed_native: int
    skipped_native: int
    seconds_native: float
    passed_inside: int
    failed_inside: int
    skipped_inside: int
    seconds_inside: float
    different: int

    @classmethod
    def of(cls, module: str, tier: str, native: Record, inside: Record, found: list[Difference]) -> "Score":
        """The score of a module that was run on both sides."""
        counts = [
            value
            for record in (native, inside)
            for value in (*map(record.count, ("passed", "failed", "skipped")), round(record.seconds, 1))
        ]
        return cls(module, tier, *counts, len(found))

    def row(self) -> str:
        """As a row of the table."""
        return "| " + " | ".join(map(str, [self.module, *msgspec.structs.astuple(self)[2:]])) + " |"


def update(scores: list[Score]) -> None:
    """Write the document; modules that were not run now keep their rows."""
    rows = {score.module: score for score in _read()}
    rows.update((score.module, score) for score in scores)
    parts = [_INTRODUCTION, *_tables(TIERS, rows), _PACKAGES_INTRODUCTION, *_tables(PACKAGE_TIERS, rows)]
    excluded = [f"* `{each.test}`: {each.reason} ({each.date})" for each in exclusions()]
    parts.append(f"{_HEADINGS[2]}\n")
    parts.append("\n".join(excluded or ["None."]) + "\n")
    others = without_sections(read(), _HEADINGS)
    DOCUMENT.write_text("\n".join([*parts, others] if others else parts))


def _tables(tiers: Mapping[str, Sequence[str]], rows: Mapping[str, Score]) -> Iterator[str]:
    for tier, modules in tiers.items():
        own = [rows[name] for name in modules if name in rows]
        own += sorted((each for each in rows.values() if each.tier == tier and each not in own), key=lambda s: s.module)
        if own:
            yield _table(tier, own)


def _table(tier: str, scores: list[Score]) -> str:
    columns = zip(*(msgspec.structs.astuple(score)[2:] for score in scores), strict=True)
    total = Score("**all**", tier, *(round(sum(column), 1) for column in columns))
    share = 100 * (1 - total.different / max(total.passed_native, 1))
    lines = [
        f"## {tier}: {TITLES[tier]}\n",
        f"{share:.2f} % of what passes on the host passes inside.\n",
        "| " + " | ".join(_COLUMNS) + " |",
        "|---|" + "---:|" * (len(_COLUMNS) - 1),
        *(score.row() for score in scores),
        total.row(),
    ]
    return "\n".join(lines) + "\n"


def _read() -> list[Score]:
    """The rows that the document has."""
    scores = []
    tier = ""
    for line in read().split("\n"):
        if found := re.match(r"## ([A-Z]): ", line):
            tier = found[1]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(_COLUMNS) and re.fullmatch(r"[\w.]+", cells[0]) and cells[1].isdigit():
            values = [float(cell) if "." in cell else int(cell) for cell in cells[1:]]
            scores.append(Score(cells[0], tier, *values))
    return scores
