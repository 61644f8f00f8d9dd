"""The page of system calls says what the table says."""

from pathlib import Path

from pyvmm.linux.compatibility import page

_PAGE = Path(__file__).parents[2] / "docs" / "system-calls.md"


def test_the_page_of_system_calls_is_up_to_date() -> None:
    assert _PAGE.read_text() == page(), "run: python -m pyvmm.linux.compatibility > docs/system-calls.md"
