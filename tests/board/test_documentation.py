"""The example of docs/kernel-guests.md does what stands below it."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.kvm


def test_the_example_prints_what_it_says(capsys):
    page = (Path(__file__).parents[2] / "docs" / "kernel-guests.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(example, "kernel-guests.md", "exec"), {})
    expected = re.findall(r"(?m)^# (exit .*)$", example)
    assert capsys.readouterr().out.splitlines() == expected
