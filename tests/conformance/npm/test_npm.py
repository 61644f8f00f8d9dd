"""How the harness for npm packages reads what tests say; the tests themselves: ``make conformance-npm``."""

from tests.conformance.npm.packages import Package, package_list
from tests.conformance.npm.running import Run
from tests.conformance.npm.scores import HEADING, Score, update
from tests.conformance.npm.tap import Counts, parse


def _score(name: str, ok_inside: bytes) -> Score:
    native = Run.of(b"ok 1\nok 2\n", b"", 0, 1.0, "/tmp/x")
    return Score.of(Package(name, "1.0.0", ("test.js",)), native, Run.of(ok_inside, b"", 0, 2.0, "/home/user"))


def test_subtests_count_and_what_is_to_skip_or_to_do_neither_passes_nor_fails() -> None:
    points = [b"ok 1 a \\# skip it", b"not ok 2 b", b"    ok 1 inner", b"ok 3 # SKIP no", b"not ok 4 d # TODO"]
    assert parse(b"\n".join([b"TAP version 13", *points, b"okay", b"# ok"])) == Counts(ok=2, not_ok=1, skipped=2)


def test_times_process_numbers_and_the_home_folder_are_no_difference() -> None:
    native = Run.of(b"# at /tmp/x/a.js\n  duration_ms: 1.5\n", b"(node:7) Warning", 0, 1.0, "/tmp/x")
    inside = Run.of(b"# at /home/user/a.js\n  duration_ms: 22\n", b"(node:1) Warning", 0, 2.0, "/home/user")
    assert inside.same_as(native)


def test_another_exit_code_is_a_difference() -> None:
    assert not Run.of(b"ok 1\n", b"", 1, 1.0, "/a").same_as(Run.of(b"ok 1\n", b"", 0, 1.0, "/a"))


def test_rows_of_packages_that_were_not_run_now_stay_in_the_document() -> None:
    listed = (Package("a", "1.0.0", ("test.js",)), Package("b", "1.0.0", ("test.js",)))
    before = update([_score("a", b"ok 1\n"), _score("b", b"ok 1\nok 2\n")], listed, "# CPython\n")
    after = update([_score("a", b"ok 1\nok 2\n")], listed, before)
    assert after.startswith(f"# CPython\n\n{HEADING}\n")
    assert "| a | 1.0.0 | 2 | 0 | 0 | 1.0 | 1 | 0 | 0 | 2.0 | differs |" in before
    assert "| a | 1.0.0 | 2 | 0 | 0 | 1.0 | 2 | 0 | 0 | 2.0 | same |" in after
    assert "| b | 1.0.0 | 2 | 0 | 0 | 1.0 | 2 | 0 | 0 | 2.0 | same |" in after


def test_every_package_is_listed_once_and_has_tests() -> None:
    packages = package_list().package
    assert len({each.name for each in packages}) == len(packages) >= 10
    assert all(each.files for each in packages)
