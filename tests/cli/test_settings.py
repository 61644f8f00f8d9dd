"""Where settings come from: the command line over the environment over the file."""

from pathlib import Path

import pytest

from .conftest import Invoker


def timeout_used(invoke: Invoker, *arguments: str) -> float:
    answer = invoke(*arguments, "-c", "")
    assert answer.exit_code == 0, answer.output
    value: float = invoke.calls[-1][1]["timeout"]
    return value


def test_precedence(invoke: Invoker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert timeout_used(invoke, "run") == 30
    (tmp_path / "pyvmm.toml").write_text("[run]\ntimeout = 3\n")
    assert timeout_used(invoke, "run") == 3
    monkeypatch.setenv("PYVMM_RUN_TIMEOUT", "2")
    assert timeout_used(invoke, "run") == 2
    assert timeout_used(invoke, "run", "--timeout", "1") == 1


def test_the_file_can_be_named(invoke: Invoker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyvmm.toml").write_text("[run]\ntimeout = 3\n")
    (tmp_path / "other.toml").write_text("[run]\ntimeout = 4\n")
    assert timeout_used(invoke, "--config", "other.toml", "run") == 4
    monkeypatch.setenv("PYVMM_CONFIG", str(tmp_path / "other.toml"))
    assert timeout_used(invoke, "run") == 4


def test_the_users_file_is_the_last(invoke: Invoker, tmp_path: Path) -> None:
    (tmp_path / "config" / "pyvmm").mkdir(parents=True)
    (tmp_path / "config" / "pyvmm" / "pyvmm.toml").write_text("[run]\ntimeout = 5\n")
    assert timeout_used(invoke, "run") == 5
    (tmp_path / "pyvmm.toml").write_text("")
    assert timeout_used(invoke, "run") == 30


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[rum]\n", "'rum' is not the table of a command"),
        ("port = 1\n", "'port' is not the table of a command"),
        ("[run]\ntime-out = 1\n", "[run] has no option 'time_out'"),
        ("[run]\ntimeout = 'soon'\n", "'soon' is not a valid float"),
        ("[run\n", "is not TOML"),
    ],
)
def test_mistakes_are_told(invoke: Invoker, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "pyvmm.toml").write_text(text)
    answer = invoke("run", "-c", "")
    assert answer.exit_code == 2
    assert words in answer.stderr


def test_a_file_that_is_not_there(invoke: Invoker) -> None:
    answer = invoke("--config", "none.toml", "run", "-c", "")
    assert (answer.exit_code, "cannot read the settings file none.toml" in answer.stderr) == (2, True)


def test_nested_tables(invoke: Invoker, tmp_path: Path) -> None:
    (tmp_path / "pyvmm.toml").write_text("[template.list]\njson = true\n")
    assert "has no option 'json'" in invoke("template", "list").stderr
    (tmp_path / "pyvmm.toml").write_text("[template.list]\nas_json = true\n")
    assert invoke("template", "list").stdout == "[]\n"


def test_every_command_has_help_with_examples(invoke: Invoker) -> None:
    for command in ("run", "strace", "serve", "doctor"):
        answer = invoke(command, "--help")
        assert answer.exit_code == 0
        assert "Examples:" in answer.stdout
    assert all(name in invoke("--help").stdout for name in ("run", "strace", "serve", "template", "doctor"))
