"""Making and destroying a fork, against the same system calls from C and against ``os.fork()``."""

from collections.abc import Callable
from functools import partial
from typing import Any

from bench.floor import Floor
from bench.report import Bar, Case, Report, Series, percentile
from bench.rivals import WarmInterpreter
from bench.rounds import interleave
from pyvmm import Sandbox, Template

_ROUNDS = 300
_MAPPINGS = (
    "C with as many mappings: KVM_CREATE_VM looks at every mapping of its process, and a Python process has hundreds."
)
_IDLE = "os.fork(): the call in an interpreter with the template's modules imported; to destroy, SIGKILL and waitpid."


def _cycle_seconds(floor: Floor, part: str) -> float:
    nanoseconds: int = getattr(floor.cycle(), part)
    return nanoseconds / 1e9


class _Rivals:
    """One round of every rival; ``part`` is ``create`` or ``destroy``.

    They take turns in who goes last: whoever follows ``os.fork()`` finds colder caches than who follows the C program.
    """

    def __init__(self, floor: Floor | None, crowded: Floor | None, warm: WarmInterpreter, part: str) -> None:
        self._turns: list[tuple[str, Callable[[], float]]] = []
        for name, program in (("C", floor), ("C, as many mappings", crowded)):
            if program is not None:
                self._turns.append((name, partial(_cycle_seconds, program, part)))
        idle_part = "forked" if part == "create" else "destroyed"
        self._turns.append(("os.fork(), warm", lambda: getattr(warm.idle(), idle_part)))
        #: The rivals in the order of the report.
        self.names = [name for name, _ in self._turns]

    def __call__(self) -> dict[str, float]:
        self._turns.append(self._turns.pop(0))
        return {name: measure() for name, measure in self._turns}


def _case(name: str, samples: dict[str, list[float]], names: list[str]) -> Case:
    ours = Series.of(name, "ms", samples["ours"], 1e3)
    rivals = [Series.of(rival, "ms", samples[rival], 1e3) for rival in names]
    return Case(ours, rivals, notes=[_MAPPINGS, _IDLE] if len(rivals) > 1 else [_IDLE])


def test_fork(
    benchmark: Any,
    template: Template,
    floor: Floor | None,
    crowded_floor: Floor | None,
    warm: WarmInterpreter,
    report: Report,
    rounds: Callable[[int], int],
) -> None:
    alive: list[Sandbox] = []
    rivals = _Rivals(floor, crowded_floor, warm, "create")

    def destroy() -> dict[str, float]:
        alive.pop().close()
        return {}

    samples = interleave(
        benchmark,
        lambda: alive.append(template.fork()),
        rounds(_ROUNDS),
        before=rivals,
        after=destroy,
    )
    case = _case("fork", samples, rivals.names)
    case.bars.append(Bar("p50 < 0.5 ms", case.ours.p50, 0.5, strict=True))
    if floor is not None:
        case.bars.append(Bar("p50 ≤ 1.3 × C", case.ours.p50 / (percentile(samples["C"], 50) * 1e3), 1.3))
    report.add(case)


def test_destroy(
    benchmark: Any,
    template: Template,
    floor: Floor | None,
    crowded_floor: Floor | None,
    warm: WarmInterpreter,
    report: Report,
    rounds: Callable[[int], int],
) -> None:
    alive: list[Sandbox] = []
    rivals = _Rivals(floor, crowded_floor, warm, "destroy")

    def make() -> dict[str, float]:
        samples = rivals()
        alive.append(template.fork())
        return samples

    samples = interleave(benchmark, lambda: alive.pop().close(), rounds(_ROUNDS), before=make)
    report.add(_case("destroy a fork that has not run", samples, rivals.names))
