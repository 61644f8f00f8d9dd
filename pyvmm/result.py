"""What a run gave."""

from dataclasses import dataclass
from typing import Protocol


class Stream(Protocol):
    """A captured stream."""

    truncated: bool

    def value(self) -> bytes:
        """All that was kept of it."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. Times are measured, in seconds.

    ``status`` is one of ``ok``, ``error`` (the program's own failure), ``timeout``, ``oom``, ``output_limit``,
    ``crashed`` (a signal or a processor fault), ``protocol_error``. ``exit_code`` is the program's, 128 + n for
    death by signal n, -1 for a timeout.
    """

    stdout: bytes
    stderr: bytes
    exit_code: int
    status: str
    stdout_truncated: bool
    stderr_truncated: bool
    #: From asking for a VM until it could run.
    fork_seconds: float
    #: From then until the program ended.
    exec_seconds: float
    #: Both, and what lies between.
    total_seconds: float


def make_result(
    streams: tuple[Stream, Stream],
    status: str,
    exit_code: int,
    message: str,
    *,
    asked_ns: int,
    forked_ns: int,
    begun_ns: int,
    ended_ns: int,
) -> Result:
    """The result of a run: ``message`` is what there is to say of its end, and goes behind its stderr; the times are
    those of CLOCK_MONOTONIC when the VM was asked for, could run, began, and ended.
    """
    stdout, stderr = streams
    errors = stderr.value()
    if message:
        errors += (b"\n" if errors and not errors.endswith(b"\n") else b"") + message.encode() + b"\n"
    return Result(
        stdout.value(),
        errors,
        exit_code,
        status,
        stdout.truncated,
        stderr.truncated,
        (forked_ns - asked_ns) / 1e9,
        (ended_ns - begun_ns) / 1e9,
        (ended_ns - asked_ns) / 1e9,
    )
