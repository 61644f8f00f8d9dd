"""``pyvmm run``: what the program gets, what comes out, and with which exit code."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyvmm.cli.run import Outlet

from .conftest import FakeResult, Invoker


def test_code(invoke: Invoker) -> None:
    invoke.result = FakeResult(stdout=b"2\n")
    answer = invoke("run", "-c", "print(1 + 1)", "a", "-x", "--time")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (0, "2\n", "")
    code, options = invoke.calls[0]
    assert (code, options["argv"], options["stdin"]) == ("print(1 + 1)", ["a", "-x", "--time"], b"")
    assert (options["timeout"], options["tracer"], options["output_limit"]) == (30.0, None, 64 << 20)


def test_script(invoke: Invoker, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_bytes(b"# -*- coding: latin-1 -*-\nprint('\xe9')\n")
    assert invoke("run", "--timeout", "2.5", "s.py", "--help").exit_code == 0
    code, options = invoke.calls[0]
    assert code == (tmp_path / "s.py").read_bytes()
    assert (options["name"], options["argv"], options["timeout"]) == ("s.py", ["--help"], 2.5)


def test_program_from_stdin(invoke: Invoker) -> None:
    invoke("run", "-", "a", input=b"print(2)")
    code, options = invoke.calls[0]
    assert (code, options["argv"], options["stdin"]) == (b"print(2)", ["a"], b"")


def test_stdin_is_handed_on(invoke: Invoker) -> None:
    invoke("run", "--stdin", "-c", "pass", input=b"\xff\0x")
    assert invoke.calls[0][1]["stdin"] == b"\xff\0x"


def test_streams_stay_apart_and_exact(invoke: Invoker) -> None:
    invoke.result = FakeResult(stdout=b"\xff\r\n\0", stderr=b"err\xfe", exit_code=3, status="error")
    answer = invoke("run", "-c", "")
    assert (answer.stdout_bytes, answer.stderr_bytes, answer.exit_code) == (b"\xff\r\n\0", b"err\xfe", 3)


def test_timeout_is_124_and_says_so(invoke: Invoker) -> None:
    invoke.result = FakeResult(stdout=b"so far", exit_code=-1, status="timeout")
    answer = invoke("run", "--timeout", "1", "-c", "")
    assert (answer.exit_code, answer.stdout) == (124, "so far")
    assert answer.stderr == "pyvmm: the program was stopped after 1 s\n"


def test_times_and_truncation_are_told_on_stderr(invoke: Invoker) -> None:
    invoke.result = FakeResult(stdout=b"abc", stdout_truncated=True, exit_code=139, status="crashed")
    answer = invoke("run", "--time", "-c", "")
    assert (answer.exit_code, answer.stdout) == (139, "abc")
    assert answer.stderr.splitlines() == [
        "pyvmm: the program was stopped: it wrote more than 64 MiB to stdout",
        "pyvmm: fork 0.50 ms, exec 4.00 ms, total 5.00 ms",
    ]


def test_the_last_words_of_pyvmm_follow_the_programs(invoke: Invoker) -> None:
    invoke.result = FakeResult(stderr=b"program\nKilled\n", exit_code=137, status="oom", streamed=8)
    answer = invoke("run", "-c", "")
    assert (answer.exit_code, answer.stderr) == (137, "program\nKilled\n")


def test_a_reader_that_leaves_stops_the_program() -> None:
    reader, writer = os.pipe()
    stopped = []
    with open(writer, "wb") as stream:
        outlet = Outlet(stream)
        outlet.sandbox = SimpleNamespace(stop=lambda: stopped.append(True))  # type: ignore[assignment]
        outlet(b"abc")
        assert os.read(reader, 10) == b"abc"
        os.close(reader)
        for _ in range(3):
            outlet(b"def")
    assert (outlet.gone, outlet.count, stopped) == (True, 12, [True])


def test_strace_is_run_with_trace(invoke: Invoker) -> None:
    invoke("strace", "-c", "")
    invoke("run", "--trace", "-c", "")
    assert [options["tracer"] is not None for _, options in invoke.calls] == [True, True]


@pytest.mark.parametrize(
    ("arguments", "template"),
    [
        (("-c", ""), "python"),
        (("-l", "node", "-c", ""), "node"),
        (("--language", "node", "s.py"), "node"),
        (("--template", "mine", "s.js"), "mine"),
        (("s.js", "a.py"), "node"),
        (("s.py",), "python"),
        (("script",), "python"),
    ],
)
def test_the_template_is_the_languages(
    invoke: Invoker, tmp_path: Path, arguments: tuple[str, ...], template: str
) -> None:
    for name in ("s.js", "s.py", "script"):
        (tmp_path / name).write_text("")
    assert invoke("run", *arguments).exit_code == 0
    assert invoke.calls[0][1]["template"] == template


def test_a_program_without_a_file_has_the_name_that_the_language_gives(invoke: Invoker) -> None:
    invoke("run", "-l", "node", "-c", "1")
    invoke("run", "-", input=b"1")
    assert [options["name"] for _, options in invoke.calls] == [None, None]


def test_own_errors_are_one_line_and_125(invoke: Invoker) -> None:
    answer = invoke("run", "--template", "nix", "-c", "")
    assert (answer.exit_code, answer.stderr) == (125, "pyvmm: no template named 'nix' build it\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing to run"),
        (("missing.py",), "cannot read missing.py: No such file or directory"),
        (("--stdin", "-"), "exclude each other"),
        (("--timeout", "0", "-c", ""), "0<x<="),
        (("--nonsense",), "No such option"),
        (("-l", "python", "--template", "mine", "-c", ""), "exclude each other"),
    ],
)
def test_wrong_use_is_2(invoke: Invoker, arguments: tuple[str, ...], words: str) -> None:
    answer = invoke("run", *arguments)
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert invoke.calls == []
