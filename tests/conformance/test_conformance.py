"""A few quick modules of CPython's own suite do the same in a fork as on the host; all of it: ``make conformance``."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvmm import Host, Template
from tests.conformance.packages import PACKAGES
from tests.conformance.records import Difference, Outcome, Record, differences, exclusions, parse
from tests.conformance.running import CPYTHON, NOT_INSTALLED, NativeRuns, is_installed, run_inside
from tests.conformance.scores import Score
from tests.conformance.tiers import PACKAGE_TIERS, TIERS


@pytest.fixture(scope="module")
def suite(host: Host) -> Iterator[Template]:
    if not is_installed():
        pytest.skip(NOT_INSTALLED)
    with Template.build(CPYTHON.recipe, host=host) as built:
        yield built


@pytest.mark.kvm
@pytest.mark.parametrize("module", ["list", "fileio", "threading_local", "stat", "popen"])
def test_a_module_of_cpythons_suite_does_the_same_as_on_the_host(suite: Template, module: str) -> None:
    with NativeRuns(CPYTHON) as runs:
        native = runs.record(module, [])
    inside, output = run_inside(CPYTHON, suite, module, [], native)
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


def test_the_plugin_of_pytest_says_how_each_test_ended(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(
        "import pytest\n"
        "def test_a(): print('noise')\n"
        "def test_b(): assert 0\n"
        "def test_c(): pytest.skip('why')\n"
        "def test_d(): pass\n"
    )
    shutil.copy(PACKAGES.runner, tmp_path)
    arguments = PACKAGES.arguments("test_x", ["test_x::test_d"])
    ended = subprocess.run([sys.executable, *arguments, f"--rootdir={tmp_path}"], cwd=tmp_path, stdout=subprocess.PIPE)
    record = parse(ended.stdout, 1.0, "")
    assert record.finished
    assert {name: outcome.status for name, outcome in record.outcomes.items()} == {
        "test_x::test_a": "passed", "test_x::test_b": "failed", "test_x::test_c": "skipped",
    }  # fmt: skip


def test_every_exclusion_is_of_a_module_that_is_run_and_has_a_reason() -> None:
    modules = {module for modules in (TIERS | PACKAGE_TIERS).values() for module in modules}
    assert all(each.module in modules and each.test and each.reason for each in exclusions())
