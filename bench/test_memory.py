"""What a live fork holds before it runs: memory, descriptors, mappings."""

import time
from collections.abc import Callable
from contextlib import ExitStack

from bench.conditions import count_descriptors, count_mappings, memory_available, memory_of_forks
from bench.floor import Floor
from bench.report import Bar, Case, Report, Series
from pyvmm import Template

_FORKS = 200
_ROUNDS = 3
#: What was freed a moment ago is not available yet: the kernel frees much of a VM later.
_SETTLE_SECONDS = 0.5
_NOTE = (
    f"Memory: MemAvailable over {_FORKS} forks, and whatever else the host does meanwhile. Counted: kernel slabs, "
    "vmalloc areas and page tables, and this process's own pages. Every fork stays alive until the last one is "
    "measured, for the kernel keeps for a while what it frees. The bar takes the larger of the two."
)


class _Growth:
    """How much a figure has changed since the last time it was asked for, for each fork."""

    def __init__(self, figure: Callable[[], int], scale: float = 1.0) -> None:
        self._figure, self._scale = figure, scale
        self._last = figure()

    def each(self) -> float:
        last, self._last = self._last, self._figure()
        return (self._last - last) * self._scale / _FORKS


def test_memory(template: Template, floor: Floor | None, report: Report, rounds: Callable[[int], int]) -> None:
    ours, theirs, counted, descriptors, mappings = [], [], [], [], []
    with ExitStack() as alive:
        # The first forks load what a process needs once.
        for _ in range(10):
            alive.enter_context(template.fork())
        time.sleep(_SETTLE_SECONDS)
        fds, maps = _Growth(count_descriptors), _Growth(count_mappings)
        used, known = _Growth(memory_available, -1 / 1024), _Growth(memory_of_forks, 1 / 1024)
        for _ in range(rounds(_ROUNDS)):
            for _ in range(_FORKS):
                alive.enter_context(template.fork())
            time.sleep(_SETTLE_SECONDS)
            ours.append(used.each())
            counted.append(known.each())
            descriptors.append(fds.each())
            mappings.append(maps.each())
            if floor is not None:
                floor.hold(_FORKS)
                time.sleep(_SETTLE_SECONDS)
                theirs.append(used.each())
                known.each()
        if floor is not None:
            floor.drop()
    total = Series.of("memory of a live fork", "KiB", ours)
    rivals = [Series.of("of it counted", "KiB", counted)] + ([Series.of("C", "KiB", theirs)] if theirs else [])
    # Another process that ended meanwhile gave memory back: what can be counted is then the better witness.
    growth = max(total.p50, rivals[0].p50)
    report.add(Case(total, rivals, [Bar("p50 < 500 KiB", growth, 500, strict=True)], [_NOTE]))
    report.add(Case(Series.of("descriptors of a live fork", "fds", descriptors)))
    report.add(Case(Series.of("mappings of a live fork", "maps", mappings)))
