"""A place to run the command line in: no settings of the user, a cache of its own, and templates that only pretend."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click.testing
import pytest

import pyvmm
from pyvmm.cli import cli
from pyvmm.errors import TemplateNotFound


@dataclass
class FakeResult:
    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int = 0
    status: str = "ok"
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    fork_seconds: float = 0.0005
    exec_seconds: float = 0.004
    total_seconds: float = 0.005
    streamed: int | None = None


@dataclass
class Invoker:
    """Runs ``pyvmm`` in this process; ``result`` is what a fake template answers, ``calls`` what it was asked."""

    result: FakeResult = field(default_factory=FakeResult)
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def __call__(self, *arguments: str, **options: Any) -> click.testing.Result:
        return click.testing.CliRunner().invoke(cli, arguments, prog_name="pyvmm", **options)


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoker:
    invoker = Invoker()

    class FakeSandbox:
        def __init__(self, options: dict[str, Any]) -> None:
            self.options = options

        def __enter__(self) -> "FakeSandbox":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def run(self, code: Any, **options: Any) -> FakeResult:
            invoker.calls.append((code, self.options | options))
            out, err = self.options["sinks"]
            out(invoker.result.stdout)
            err(invoker.result.stderr[: invoker.result.streamed])
            return invoker.result

    class FakeTemplate(FakeSandbox):
        @classmethod
        def load(cls, name: str) -> "FakeTemplate":
            if name not in ("python", "node", "mine"):
                raise TemplateNotFound(f"no template named {name!r}\nbuild it")
            return cls({"template": name})

        def fork(self, **options: Any) -> FakeSandbox:
            return FakeSandbox(self.options | options)

    monkeypatch.setattr(pyvmm, "Template", FakeTemplate, raising=False)
    monkeypatch.setenv("PYVMM_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return invoker
