"""The names of what runs in the lab."""

import re
from pathlib import Path

import pytest

from pyvmm.lab.parts import PARTS, select

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PARTS)
def test_what_a_part_names_is_there(name):
    for argument in PARTS[name].arguments:
        file, _, test = re.sub("^--(deselect|ignore)=", "", argument).partition("::")
        if not file.startswith("-"):
            assert (_ROOT / file).exists(), argument
        if test:
            assert f"def {test.partition('[')[0]}(" in (_ROOT / file).read_text(), argument


def test_a_part_stands_for_its_arguments_and_the_rest_is_pytests():
    assert select(["kvm", "-x", "tests/test_pool.py"]) == [*PARTS["kvm"].arguments, "-x", "tests/test_pool.py"]


def test_without_a_name_all_parts_run():
    everything = [argument for part in PARTS.values() for argument in part.arguments]
    assert select([]) == everything
    assert select(["-x"]) == [*everything, "-x"]
