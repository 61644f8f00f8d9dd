"""Request and response bodies.

Decoding is strict: ``true``, ``"5"`` and ``1e2`` are no integers, NaN and 1e999 no numbers, a lone surrogate no
character. Whatever is wrong becomes a 400 whose sentence names the field.
"""

import codecs
import re
import threading
from typing import Annotated, Generic, TypeVar

import msgspec

from pyvmm.pool import ExecRequest
from pyvmm.result import Result

from .context import new_id
from .errors import ApiError

BATCH_LIMIT = 100

_AT = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<field>.*)`)?", re.DOTALL)

T = TypeVar("T")


class ExecBody(msgspec.Struct):
    """What ``POST /v1/exec`` takes. Unknown fields are ignored; the last of repeated ones counts."""

    code: str
    language: str = "python"
    timeout_seconds: Annotated[int, msgspec.Meta(ge=1, le=300)] = 30


class BatchBody(msgspec.Struct):
    """What ``POST /v1/exec/batch`` takes."""

    executions: list[ExecBody]


class ExecResponse(msgspec.Struct, omit_defaults=True):
    """How one execution went."""

    id: str
    stdout: str
    stderr: str
    exit_code: int
    fork_time_ms: float
    exec_time_ms: float
    total_time_ms: float
    status: str
    stdout_truncated: bool
    stderr_truncated: bool
    error: str | None = None
    """Only in a batch: why this snippet could not be run although the batch was accepted."""


class TemplateHealth(msgspec.Struct):
    """The state of one template."""

    ready: bool
    memory_mb: int


class HealthResponse(msgspec.Struct):
    """What ``GET /v1/health`` answers."""

    status: str
    templates: dict[str, TemplateHealth]


class Parser(Generic[T]):
    """Bytes to a checked body of one type."""

    def __init__(self, body_type: type[T]) -> None:
        self._decoder = msgspec.json.Decoder(body_type)

    def parse(self, body: bytes) -> T:
        """The body, or a 400 that says what is wrong with it."""
        try:
            # The decoder does not look into strings that it skips; a body is UTF-8 as a whole or not at all.
            body.decode("utf-8")
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise ApiError(400, _sentence(str(error))) from None
        except UnicodeDecodeError:
            raise ApiError(400, "The request body is not valid UTF-8.") from None
        except RecursionError:
            raise ApiError(400, "The request body is nested too deeply.") from None
        except msgspec.DecodeError as error:
            raise ApiError(400, f"The request body is not valid JSON: {error}.") from None


def check_batch(batch: BatchBody) -> None:
    """1 to 100 members, or a 400."""
    if not 1 <= len(batch.executions) <= BATCH_LIMIT:
        raise ApiError(
            400, f"Field `executions` must have 1 to {BATCH_LIMIT} members, and has {len(batch.executions)}."
        )


class OutputBudget:
    """How many bytes of output may still go into one response; shared by the members of a batch and their threads."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._lock = threading.Lock()

    def take(self, output: bytes) -> tuple[bytes, bool]:
        """As much of ``output`` as there is room for, and whether that was less than all of it."""
        with self._lock:
            granted = min(len(output), self._left)
            self._left -= granted
        return output[:granted], granted < len(output)


def response_of(
    request: ExecRequest, result: Result, response_id: str, budget: OutputBudget | None = None
) -> ExecResponse:
    """A result as the client reads it."""
    stdout_bytes, stdout_cut = budget.take(result.stdout) if budget else (result.stdout, False)
    stderr_bytes, stderr_cut = budget.take(result.stderr) if budget else (result.stderr, False)
    stdout_truncated = result.stdout_truncated or stdout_cut
    stderr_truncated = result.stderr_truncated or stderr_cut
    stderr = text_of(stderr_bytes, stderr_truncated)
    if result.status == "timeout":
        gap = "\n" if stderr and not stderr.endswith("\n") else ""
        stderr += f"{gap}Execution timed out after {request.timeout_seconds:g}s"
    return ExecResponse(
        id=response_id,
        stdout=text_of(stdout_bytes, stdout_truncated),
        stderr=stderr,
        exit_code=result.exit_code,
        fork_time_ms=_milliseconds(result.fork_seconds),
        exec_time_ms=_milliseconds(result.exec_seconds),
        total_time_ms=_milliseconds(result.total_seconds),
        status=result.status,
        stdout_truncated=stdout_truncated,
        stderr_truncated=stderr_truncated,
    )


def not_run(reason: str) -> ExecResponse:
    """A member of a batch that the pool could not run, in the shape of the others: one never fails the rest."""
    return ExecResponse(
        id=new_id(),
        stdout="",
        stderr="",
        exit_code=-1,
        fork_time_ms=0.0,
        exec_time_ms=0.0,
        total_time_ms=0.0,
        status="crashed",
        stdout_truncated=False,
        stderr_truncated=False,
        error=reason,
    )


def text_of(output: bytes, truncated: bool) -> str:
    """Output as text: what is not UTF-8 becomes U+FFFD; a character that only our own limit cut in two is left out."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(output, final=not truncated)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 6)


def _sentence(message: str) -> str:
    """The decoder's message with the field in front: ``Field `executions[3].code`: expected `str`, got `int`.``"""
    match = _AT.fullmatch(message)
    what, field = (match["what"], match["field"]) if match else (message, None)
    what = what[:1].lower() + what[1:]
    return f"Field `{field}`: {what}." if field else f"The request body is not as expected: {what}."
