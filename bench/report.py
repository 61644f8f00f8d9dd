"""What was measured, and how it is shown: p50 and p99 of every series, ratios to the rivals, and the bars."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["Bar", "Case", "Report", "Series", "percentile"]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that at least ``percent`` of them do not exceed (nearest rank)."""
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


@dataclass(frozen=True, slots=True)
class Series:
    """One thing measured many times, or once."""

    name: str
    unit: str
    values: tuple[float, ...]

    @classmethod
    def of(cls, name: str, unit: str, values: Iterable[float], scale: float = 1.0) -> "Series":
        """A series of ``values``, each multiplied by ``scale``."""
        return cls(name, unit, tuple(value * scale for value in values))

    @property
    def p50(self) -> float:
        return percentile(self.values, 50)

    @property
    def p99(self) -> float:
        return percentile(self.values, 99)


@dataclass(frozen=True, slots=True)
class Bar:
    """What the project set itself to reach: ``value`` is to be at most (or, if ``strict``, less than) ``limit``."""

    text: str
    value: float
    limit: float
    strict: bool = False

    @property
    def met(self) -> bool:
        return self.value < self.limit if self.strict else self.value <= self.limit

    def __str__(self) -> str:
        return f"{self.text}: {_number(self.value)} {'ok' if self.met else 'MISSED'}"


@dataclass(slots=True)
class Case:
    """A measurement of ours, what it is compared with, and the bars it has to clear."""

    ours: Series
    rivals: list[Series] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    #: What a reader has to know to understand the numbers.
    notes: list[str] = field(default_factory=list)


class Report:
    """Everything of one run."""

    def __init__(self) -> None:
        self.cases: list[Case] = []
        self.conditions: dict[str, str] = {}
        #: What could not be measured, and why.
        self.missing: list[str] = []

    def add(self, case: Case) -> None:
        """Add what one case measured."""
        self.cases.append(case)

    def missed(self) -> list[Bar]:
        """The bars that were not cleared."""
        return [bar for case in self.cases for bar in case.bars if not bar.met]

    def print(self, console: Console) -> None:
        """The table, the conditions, and a last line that counts the bars."""
        console.print(_table(self.cases))
        for note in dict.fromkeys(note for case in self.cases for note in case.notes):
            console.print(f"  {note}", style="dim", markup=False, highlight=False)
        for reason in self.missing:
            console.print(f"  not measured: {reason}", style="yellow", markup=False, highlight=False)
        facts = "; ".join(f"{name}: {value}" for name, value in self.conditions.items())
        console.print(facts, style="dim", markup=False, highlight=False)
        bars = [bar for case in self.cases for bar in case.bars]
        missed = self.missed()
        for bar in missed:
            console.print(f"  {bar}", style="red", markup=False, highlight=False)
        console.print(f"{len(bars) - len(missed)} of {len(bars)} bars met", highlight=False)

    def write_json(self, path: Path) -> None:
        """Everything, with every sample, as JSON."""
        path.write_text(json.dumps(self._data(), indent=1) + "\n")

    def _data(self) -> dict[str, Any]:
        return {
            "conditions": self.conditions,
            "missing": self.missing,
            "cases": [
                {
                    "ours": _series_data(case.ours),
                    "rivals": [
                        {**_series_data(rival), "ratio_p50": _ratio(case.ours.p50, rival.p50)} for rival in case.rivals
                    ],
                    "bars": [
                        {"text": bar.text, "value": bar.value, "limit": bar.limit, "met": bar.met} for bar in case.bars
                    ],
                    "notes": case.notes,
                }
                for case in self.cases
            ],
        }


def _series_data(series: Series) -> dict[str, Any]:
    return {
        "name": series.name,
        "unit": series.unit,
        "p50": series.p50,
        "p99": series.p99,
        "rounds": len(series.values),
        "values": series.values,
    }


def _table(cases: Sequence[Case]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measured")
    for heading in ("p50", "p99", "unit", "rounds"):
        table.add_column(heading, justify="left" if heading == "unit" else "right", no_wrap=True)
    table.add_column("ours/this\np50", justify="right")
    table.add_column("ours/this\np99", justify="right")
    table.add_column("bar")
    for case in cases:
        for row in _rows(case):
            table.add_row(*row)
        table.add_section()
    return table


def _rows(case: Case) -> Iterator[tuple[str, ...]]:
    ours = case.ours
    yield f"[bold]{ours.name}[/bold]", *_cells(ours), "", "", "\n".join(_bar_markup(bar) for bar in case.bars)
    for rival in case.rivals:
        ratios = (_ratio(ours.p50, rival.p50), _ratio(ours.p99, rival.p99))
        yield f"  {rival.name}", *_cells(rival), *(_times(ratio) for ratio in ratios), ""


def _cells(series: Series) -> tuple[str, str, str, str]:
    # With fewer than 20 rounds the 99th percentile is only the largest of them; with one it says nothing.
    p99 = _number(series.p99) if len(series.values) > 1 else ""
    return _number(series.p50), p99, series.unit, str(len(series.values))


def _bar_markup(bar: Bar) -> str:
    verdict = "[green]ok[/green]" if bar.met else "[bold red]missed[/bold red]"
    return f"{bar.text}: {_number(bar.value)} {verdict}"


def _ratio(ours: float, theirs: float) -> float | None:
    return ours / theirs if theirs else None


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}×"


def _number(value: float) -> str:
    """Three significant digits, no more than are worth reading."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(digits, 0)}f}"
