"""What ``strace`` shows of system calls, hostile arguments among them."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyvmm.linux.syscalls  # noqa: F401 - fills the table
from pyvmm.linux.abi.mman import PROT_READ, PROT_WRITE
from pyvmm.linux.abi.unistd import NUMBERS
from pyvmm.linux.strace import Tracer
from pyvmm.linux.table import TABLE
from tests.linux.space import FIXED, PAGE, Space

_BASE = 0x10_0000_0000


@pytest.fixture(scope="module")
def task() -> Iterator[SimpleNamespace]:
    space = Space()
    space.mm.map(_BASE, 2 * PAGE, PROT_READ | PROT_WRITE, FIXED)
    yield SimpleNamespace(mem=space.user)
    space.close()


def trace(task: SimpleNamespace, name: str, *arguments: int, result: int = 0) -> str:
    lines: list[str] = []
    tracer = Tracer(lines.append)
    call = TABLE[NUMBERS[name]]
    text = tracer.describe(task, call.number, call, arguments)  # type: ignore[arg-type]
    tracer.returned(task, text, call, arguments, result & (1 << 64) - 1)  # type: ignore[arg-type]
    (line,) = lines
    return line


def test_numbers_and_results_are_shown_in_decimal(task: SimpleNamespace) -> None:
    assert trace(task, "kill", 5, 9) == "kill(5, 9) = 0"


def test_an_error_is_shown_by_name_and_words(task: SimpleNamespace) -> None:
    assert trace(task, "kill", 5, 9, result=-3) == "kill(5, 9) = -1 ESRCH (No such process)"


def test_null_pointers_and_addresses_are_told_apart(task: SimpleNamespace) -> None:
    assert trace(task, "munmap", 0, 4096) == "munmap(NULL, 4096) = 0"
    assert trace(task, "brk", 0, result=_BASE) == "brk(NULL) = 0x1000000000"


def test_a_path_is_quoted_and_escaped(task: SimpleNamespace) -> None:
    task.mem.write(_BASE, b'a"\n\x1b[2J\xff\0')
    assert trace(task, "unlink", _BASE) == r'unlink("a\"\n\33[2J\377") = 0'


def test_a_path_that_cannot_be_read_is_shown_as_its_address(task: SimpleNamespace) -> None:
    assert trace(task, "unlink", 123, result=-14) == "unlink(0x7b) = -1 EFAULT (Bad address)"


def test_written_data_is_shown_and_long_data_cut(task: SimpleNamespace) -> None:
    task.mem.write(_BASE, b"x" * 100)
    assert trace(task, "write", 1, _BASE, 3, result=3) == 'write(1, "xxx", 3) = 3'
    assert trace(task, "write", 1, _BASE, 100, result=100) == f'write(1, "{"x" * 64}"..., 100) = 100'


def test_a_number_without_a_function_is_shown_by_its_name() -> None:
    tracer = Tracer(lambda line: None)
    assert tracer.describe(None, 0x4000_0001, None, ()) == "syscall_0x40000001(...)"  # type: ignore[arg-type]


_value = st.sampled_from([0, 1, -1, _BASE, _BASE + 2 * PAGE - 1, 1 << 47, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.sampled_from(sorted(TABLE)), values=st.lists(_value, min_size=6, max_size=6), result=_value)
def test_any_call_with_any_arguments_is_one_printable_line(
    task: SimpleNamespace, number: int, values: list[int], result: int
) -> None:
    call = TABLE[number]
    line = trace(task, call.name, *values[: len(call.arguments)], result=result)
    assert line.startswith(call.name) and line.isprintable()
