"""A pool without virtual machines, for tests of the HTTP edge: it records what it is asked, and answers as told."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from pyvmm.pool import ExecRequest, TemplateStatus
from pyvmm.result import Result


def result(**changes: Any) -> Result:
    """A successful result, with changes."""
    fields: dict[str, Any] = {
        "stdout": b"",
        "stderr": b"",
        "exit_code": 0,
        "status": "ok",
        "stdout_truncated": False,
        "stderr_truncated": False,
        "fork_seconds": 0.0005,
        "exec_seconds": 0.004,
        "total_seconds": 0.005,
    }
    return Result(**fields | changes)


def echo(request: ExecRequest) -> Result:
    """The code comes back as output."""
    return result(stdout=request.code.encode())


class RecordingPool:
    """Implements ``pyvmm.api.pool.Pool``; ``answer`` and ``statuses`` may be replaced at any time."""

    def __init__(self, *languages: str) -> None:
        self.statuses = {name: TemplateStatus(ready=True, memory_mb=256) for name in languages or ("python",)}
        self.answer: Callable[[ExecRequest], Result] = echo
        self.requests: list[ExecRequest] = []
        self.forks = 0
        self.closed = False
        self._lock = threading.Lock()

    def templates(self) -> Mapping[str, TemplateStatus]:
        return dict(self.statuses)

    def execute(self, request: ExecRequest) -> Result:
        with self._lock:
            self.requests.append(request)
            self.forks += 1
        try:
            return self.answer(request)
        finally:
            with self._lock:
                self.forks -= 1

    def live_forks(self) -> int:
        return self.forks

    def close(self) -> None:
        self.closed = True


class Gate:
    """An answer that waits until the test opens the gate, or the request is cancelled."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        self.cancelled = threading.Event()

    def __call__(self, request: ExecRequest) -> Result:
        self.entered.release()
        while not self.opened.wait(0.01):
            if request.cancelled and request.cancelled():
                self.cancelled.set()
                return result(status="crashed", exit_code=137)
        return echo(request)
