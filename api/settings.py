"""What can be set about the service. Plain data: nothing here reads the environment."""

from dataclasses import dataclass, fields

from .auth import KeyRing

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything ``create_app`` and the server need to know; the defaults suit one machine on a trusted network."""

    keys: KeyRing | None = None
    """Who may call. ``None`` given to ``create_app``: anybody. ``None`` given to ``serve``: read the key file."""

    requests_per_second: int = 100
    """Requests that one key may make in any second; a batch counts as one."""

    anonymous_requests_per_second: int = 0
    """The same for each client address while authentication is off; 0 means no limit."""

    body_limit: int = 2 * MIB
    """The largest request body in bytes; one byte more is 413."""

    execution_slots: int = 128
    """Requests to ``/v1/exec`` that may be inside the pool (running, or waiting for a VM); one more is 503."""

    batch_slots: int = 8
    """Batches that may be in progress; one more is 503."""

    batch_threads: int = 100
    """Snippets of all batches together that may be inside the pool at the same time."""

    batch_patience_seconds: float = 1.0
    """How long a snippet of a batch tries again while the pool is saturated and holds none of its siblings."""

    batch_output_limit: int = 32 * MIB
    """Bytes of output that one batch may return altogether; what comes later is cut and marked as truncated."""

    spare_threads: int = 8
    """Threads beyond the slots, so that health, metrics and refusals are answered while every slot is taken."""

    drain_seconds: float = 30.0
    """After SIGTERM: how long running requests may take before they are stopped and answered with 503."""

    connection_limit: int = 1000
    """Open connections. At the limit the one that has been idle longest makes room for the next."""

    idle_seconds: int = 30
    """A connection without a request in progress is closed after this time without traffic."""

    receive_seconds: float = 30.0
    """How long a client may take to send one whole request (head and body)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not value >= 0:
                raise ValueError(f"the setting {field.name} must not be negative: {value}")

    @property
    def threads(self) -> int:
        """Threads that the server needs so that no admitted request waits for one."""
        return self.execution_slots + self.batch_slots + self.spare_threads
