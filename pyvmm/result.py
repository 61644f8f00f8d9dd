"""What a run gave."""

from dataclasses import dataclass


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
