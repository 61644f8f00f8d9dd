"""Logs: one JSON object a line on stderr.

A line never holds code, output, whole keys or anything else that a client chose freely. All that is not ASCII and all
control characters are escaped by JSON. Warnings that guests or clients can cause are limited for each kind of
warning, and what was left out is counted in the next line of that kind.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

import structlog

Log = structlog.typing.FilteringBoundLogger

BURST = 10
WINDOW_SECONDS = 5.0
VALUE_LIMIT = 4096


def make_log(stream: TextIO | None = None, limit: "BurstLimit | None" = None) -> Log:
    """A logger that writes to ``stream``, by default to what ``sys.stderr`` is when the line is written."""
    log: Log = structlog.wrap_logger(
        _Lines(stream),
        processors=[
            structlog.processors.add_log_level,
            limit or BurstLimit(),
            _shorten,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
    return log


class BurstLimit:
    """Lets ten warnings of one kind through in five seconds; the next one after that says how many were left out.

    The kind is the event, which is always a literal in the code and never built from what a client sent.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[float, int]] = {}

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if method in ("info", "debug"):
            return event
        name = str(event["event"])
        with self._lock:
            now = self._clock()
            since, count = self._windows.get(name, (now, 0))
            if now - since < WINDOW_SECONDS:
                self._windows[name] = (since, count + 1)
                if count >= BURST:
                    raise structlog.DropEvent
                return event
            self._windows[name] = (now, 1)
        if count > BURST:
            event["suppressed"] = count - BURST
        return event


class StandardLibraryBridge(logging.Handler):
    """Puts the records of a library that uses ``logging`` into our log."""

    def __init__(self, log: Log, event: str) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        """As one warning, with the message as data."""
        cause = repr(record.exc_info[1]) if record.exc_info else None
        self._log.warning(self._event, logger=record.name, message=record.getMessage(), cause=cause)


def adopt_libraries(log: Log) -> None:
    """Send what pyvmm and waitress log to ``log``, without a warning for every request that waits for a thread."""
    for name in ("pyvmm", "waitress"):
        library = logging.getLogger(name)
        library.handlers = [StandardLibraryBridge(log, f"message of {name}")]
        library.propagate = False
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)


class _Lines:
    """Writes lines; a log that cannot be written (closed pipe, full disk) must not fail the request."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        stream = self._stream or sys.stderr
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = msg


def _shorten(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str) and len(value) > VALUE_LIMIT:
            event[name] = value[:VALUE_LIMIT] + "…"
    return event
