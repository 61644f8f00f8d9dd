"""What commands print: progress on stderr, tables on stdout."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import click


class Steps:
    """Shows the steps of something long on stderr: a spinner at a terminal, plain lines with seconds elsewhere.

    Call it with a sentence for each step.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._start = time.monotonic()
        self._status = None
        self._last: str | None = None
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status(title)

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        else:
            self(self._title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
        if kind is None:
            click.echo(f"{self._elapsed()} {self._title}: done", err=True)

    def __call__(self, text: str) -> None:
        """A step begins."""
        if self._status is not None:
            from rich.markup import escape

            if self._last:
                self._status.console.print(f"{self._elapsed()} {self._last}", markup=False, highlight=False)
            self._status.update(escape(text))
            self._last = text
        else:
            click.echo(f"{self._elapsed()} {text}", err=True)

    def _elapsed(self) -> str:
        return f"[{time.monotonic() - self._start:6.1f} s]"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns aligned, nothing cut: good to read and good for ``awk``."""
    table = [[*header], *[[*row] for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for number, row in enumerate(table):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        click.echo(click.style(line, bold=True) if number == 0 else line)


def format_size(size: int) -> str:
    """Bytes for people: ``12 MiB``."""
    number, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit != "GiB" else f"{number:.1f} {unit}"
