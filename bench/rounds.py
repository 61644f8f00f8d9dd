"""Rounds of one thing with rounds of its rivals between them, for pytest-benchmark."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["interleave"]

_WARM_UP = 5


def interleave(
    benchmark: Any,
    target: Callable[[], object],
    rounds: int,
    before: Callable[[], Mapping[str, float]] = dict,
    after: Callable[[], Mapping[str, float]] = dict,
) -> dict[str, list[float]]:
    """Run ``target`` for ``rounds`` rounds; ``before`` and ``after`` run around each, outside the measured time.

    What they return, rivals' samples by name, is collected. Returns lists by name, one element for each round; the
    seconds of ``target`` are ``ours``.
    """
    samples: defaultdict[str, list[float]] = defaultdict(list)

    def collect(part: Callable[[], Mapping[str, float]]) -> None:
        for name, value in part().items():
            samples[name].append(value)

    benchmark.pedantic(
        target, setup=lambda: collect(before), teardown=lambda: collect(after), rounds=rounds, warmup_rounds=_WARM_UP
    )
    collected = {name: values[-rounds:] for name, values in samples.items()}
    for name, values in collected.items():
        benchmark.extra_info[name] = values
    collected["ours"] = list(benchmark.stats.stats.data)
    return collected
