"""What a fork of ours is compared with: ``os.fork()`` of an interpreter that is as warm, and a cold interpreter."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["ForkRun", "IdleFork", "WarmInterpreter", "run_cold"]

_WARM = Path(__file__).with_name("warm.py")


@dataclass(frozen=True, slots=True)
class ForkRun:
    """A program run in a fork: seconds until its output was here and it was gone, and those of ``os.fork()`` alone."""

    seconds: float
    forked: float
    output: str


@dataclass(frozen=True, slots=True)
class IdleFork:
    """A child that was forked and killed; seconds."""

    forked: float
    destroyed: float


class WarmInterpreter:
    """A process of the host's interpreter with the template's modules imported, which forks itself.

    :param packages: the folder with the same packages as in the template.
    :param modules: what it imports.
    :param environment: its whole environment.
    """

    def __init__(
        self, interpreter: Path, packages: Path, modules: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self._process = subprocess.Popen(
            [interpreter, "-S", _WARM, packages, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            text=True,
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the warm interpreter ended with status {self._process.wait()}; its message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def run(self, code: str) -> ForkRun:
        """Fork it and run ``code`` in the child."""
        return ForkRun(**self._ask({"fork": code}))

    def idle(self) -> IdleFork:
        """Fork it, kill the child."""
        return IdleFork(**self._ask({"idle": True}))

    def close(self) -> None:
        """End the process; twice is fine."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<WarmInterpreter pid={self._process.pid}>"


def run_cold(interpreter: Path, code: str, environment: Mapping[str, str]) -> tuple[float, bytes]:
    """Start the interpreter with ``-c code``: seconds until it was waited for, and its output."""
    begun = time.perf_counter()
    done = subprocess.run(
        [interpreter, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=dict(environment), check=True
    )
    return time.perf_counter() - begun, done.stdout
