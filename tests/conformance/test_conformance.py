"""A few quick modules of CPython's own suite do the same in a fork as on the host; all of it: ``make conformance``."""

from collections.abc import Iterator

import pytest

from pyvmm import Host, Template
from tests.conformance.records import Difference, Outcome, Record, differences, exclusions, parse
from tests.conformance.running import NOT_INSTALLED, RECIPE, NativeRuns, is_installed, run_inside
from tests.conformance.scores import Score
from tests.conformance.tiers import TIERS


@pytest.fixture(scope="module")
def suite(host: Host) -> Iterator[Template]:
    if not is_installed():
        pytest.skip(NOT_INSTALLED)
    with Template.build(RECIPE, host=host) as built:
        yield built


@pytest.mark.kvm
@pytest.mark.parametrize("module", ["list", "fileio", "threading_local", "stat", "popen"])
def test_a_module_of_cpythons_suite_does_the_same_as_on_the_host(suite: Template, module: str) -> None:
    with NativeRuns() as runs:
        native = runs.record(module, [])
    inside, output = run_inside(suite, module, [], native)
    assert inside.finished, (inside.how, output[-2000:])
    assert differences(native, inside) == []


def test_a_record_keeps_the_worst_of_a_test_and_ignores_other_output() -> None:
    output = b'noise\n\x1f["failed", "a", "why"]\n\x1f["passed", "a", ""]\n\x1f["end", "m", ""]\n\x1f["passed", '
    assert parse(output, 1.0, "") == Record({"a": Outcome("failed", "why")}, True, 1.0)


def test_a_skip_that_is_only_inside_is_a_difference() -> None:
    native = Record({"a": Outcome("passed", ""), "b": Outcome("skipped", "")}, True, 1.0)
    inside = Record({"a": Outcome("skipped", "no"), "b": Outcome("passed", "")}, True, 1.0)
    assert differences(native, inside) == [Difference("a", "skipped", "no")]


def test_a_test_that_was_not_reached_is_a_difference() -> None:
    native = Record({"a": Outcome("passed", "")}, True, 1.0)
    assert [each.status for each in differences(native, Record({}, False, 1.0))] == ["not finished", "missing"]


def test_a_row_of_the_table_counts_both_sides() -> None:
    native = Record({"a": Outcome("passed", ""), "b": Outcome("skipped", "")}, True, 1.0)
    inside = Record({"a": Outcome("failed", ""), "b": Outcome("skipped", "")}, True, 2.5)
    score = Score.of("m", "A", native, inside, differences(native, inside))
    assert score.row() == "| m | 1 | 0 | 1 | 1.0 | 0 | 1 | 1 | 2.5 | 1 |"


def test_every_exclusion_is_of_a_module_that_is_run_and_has_a_reason() -> None:
    modules = {module for modules in TIERS.values() for module in modules}
    assert all(each.module in modules and each.test and each.reason for each in exclusions())
