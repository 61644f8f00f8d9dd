"""How the harness for libuv reads what tests say; the tests themselves: ``make conformance-libuv``."""

from tests.conformance.libuv.listed import Listed, Reviewed, listed
from tests.conformance.libuv.running import Outcome, parse
from tests.conformance.libuv.scores import Pair, table


def _outcome(status: str, detail: str = "") -> Outcome:
    return Outcome(status, detail, 1.0)


def test_a_test_has_passed_failed_or_been_skipped_as_its_line_says() -> None:
    assert parse(b"ok 1 - fs_poll\n", "", 1.0) == _outcome("passed")
    assert parse(b"noise\nok 1 - tty # SKIP no terminal\n", "", 1.0) == _outcome("skipped", "no terminal")
    assert parse(b"not ok 1 - fs_poll\n# exit code 6\n", "", 1.0).status == "failed"


def test_a_test_that_came_to_no_line_has_failed_and_says_how_it_ended() -> None:
    assert parse(b"half of a l", "timeout", 1.0) == _outcome("failed", "timeout\nhalf of a l")


def test_a_test_differs_if_it_does_not_pass_inside_and_is_not_the_same_on_the_host() -> None:
    statuses = ("passed", "failed", "skipped")
    differing = {
        (native, inside)
        for native in statuses
        for inside in statuses
        if Pair(_outcome(native), _outcome(inside)).differs
    }
    assert differing == {("passed", "failed"), ("passed", "skipped"), ("failed", "skipped"), ("skipped", "failed")}


def test_the_table_groups_by_the_first_word_and_tells_why_tests_differ() -> None:
    same, worse = Pair(_outcome("passed"), _outcome("passed")), Pair(_outcome("passed"), _outcome("failed"))
    pairs = {**{f"fs_{number}": same for number in range(5)}, "fs_x": worse, "tty": same, "idle": worse}
    text = table(pairs, Listed(differs=(Reviewed("why it is so", ("fs_x", "gone")),)), "1.0", 4)
    assert "| fs | 6 | 0 | 0 | 6.0 | 5 | 1 | 0 | 6.0 | 1 |" in text
    assert "| others | 2 | 0 | 0 | 2.0 | 1 | 1 | 0 | 2.0 | 1 |" in text
    assert "| **all** | 8 | 0 | 0 | 8.0 | 6 | 2 | 0 | 8.0 | 2 |" in text
    assert "* `fs_x`: why it is so\n* `idle`: not explained" in text


def test_every_reviewed_test_is_named_once() -> None:
    names = [test for each in (*listed().left_out, *listed().differs) for test in each.tests]
    assert len(names) == len(set(names)) > 0
