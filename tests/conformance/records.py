"""What the runner has said of one module, and how what happened inside compares with the host."""

import json
import tomllib
from datetime import date
from pathlib import Path

import msgspec

_SEPARATOR = b"\x1f"
_EXCLUSIONS = Path(__file__).with_name("exclusions.toml")


class Outcome(msgspec.Struct, frozen=True):
    """How one test ended: ``passed``, ``failed`` or ``skipped``, and the reason or the traceback."""

    status: str
    detail: str


class Record(msgspec.Struct, frozen=True):
    """One run of one module. ``finished`` is False when it was stopped, or died, on its way."""

    outcomes: dict[str, Outcome]
    finished: bool
    seconds: float
    how: str = ""

    def count(self, status: str) -> int:
        """How many tests have this status."""
        return sum(outcome.status == status for outcome in self.outcomes.values())


class Difference(msgspec.Struct, frozen=True):
    """A test that is not inside what it is on the host."""

    test: str
    status: str
    detail: str


class Exclusion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A test of a module that is not run, on neither side."""

    module: str
    test: str
    reason: str
    date: date


def parse(output: bytes, seconds: float, how: str) -> Record:
    """The record in what a runner has written."""
    outcomes: dict[str, Outcome] = {}
    finished = False
    for line in output.split(b"\n"):
        if not line.startswith(_SEPARATOR):
            continue
        try:
            status, name, detail = json.loads(line[1:])
        except ValueError:
            continue  # cut off by the end of the run
        if status == "end":
            finished = True
        elif name not in outcomes or outcomes[name].status != "failed":
            outcomes[name] = Outcome(status, detail)
    return Record(outcomes, finished, seconds, how)


def differences(native: Record, inside: Record) -> list[Difference]:
    """Tests that pass on the host and not inside, and those that are skipped or fail only there."""
    found = [Difference("the module", "not finished", inside.how)] if native.finished and not inside.finished else []
    for test, outcome in native.outcomes.items():
        there = inside.outcomes.get(test)
        if outcome.status != "passed" or (there is not None and there.status == "passed"):
            continue
        found.append(Difference(test, there.status, there.detail) if there else Difference(test, "missing", inside.how))
    for test, outcome in inside.outcomes.items():
        if test not in native.outcomes and outcome.status != "passed":
            found.append(Difference(test, outcome.status, outcome.detail))
    return found


def exclusions(path: Path = _EXCLUSIONS) -> list[Exclusion]:
    """The reviewed list of tests that are not run."""
    return msgspec.convert(tomllib.loads(path.read_text()).get("excluded", []), list[Exclusion])
