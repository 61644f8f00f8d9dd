"""Runs on the pool: who is let in, one run, many runs side by side."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import msgspec

from pyvmm.errors import PoolSaturated, PyvmmError, TemplateNotReady
from pyvmm.pool import ExecRequest
from pyvmm.result import Result
from pyvmm.template.recipe import builtin_runtimes, canonical_language

from .context import new_id
from .errors import ApiError, ShuttingDown, Unavailable, unavailable
from .lifecycle import Lifecycle
from .log import Log
from .metrics import Metrics
from .pool import Pool
from .schemas import ExecBody, OutputBudget, not_run, response_of
from .settings import Settings

RETRY_SECONDS = 0.02
ENDED_BY_FORCE = frozenset({"timeout", "crashed", "protocol_error"})


class Slots:
    """A fixed number of places; whoever finds none is sent away at once instead of holding a thread."""

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold one place, or raise 503."""
        if not self._free.acquire(blocking=False):
            raise Unavailable("Too many executions are waiting; try again later.", "saturated")
        try:
            yield
        finally:
            self._free.release()


class Runner:
    """One execution on the pool, counted."""

    def __init__(self, pool: Pool, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self._pool = pool
        self._metrics = metrics
        self._lifecycle = lifecycle

    def request_of(self, body: ExecBody, client_gone: Callable[[], bool], field: str = "") -> ExecRequest:
        """What the pool gets for a body; 400 if there is no template for its language, 503 if it is not ready."""
        language = canonical_language(body.language)
        configured = self._pool.templates()
        if language not in configured:
            names = ", ".join(sorted(configured)) or "none"
            what = "is not configured on this server" if body.language in builtin_runtimes() else "is unknown"
            raise ApiError(400, f"Field `{field}language`: the language {what}; there are: {names}.")
        if not configured[language].ready:
            raise TemplateNotReady(f"template {language} is not ready")
        lifecycle = self._lifecycle
        return ExecRequest(
            language=language,
            code=body.code,
            timeout_seconds=body.timeout_seconds,
            cancelled=lambda: lifecycle.aborting or client_gone(),
        )

    def run(self, request: ExecRequest) -> Result:
        """Run it; raises what the pool raises, and 503 for what the end of the server cut short."""
        with self._metrics.in_flight.track_inprogress():
            result = self._pool.execute(request)
        cancelled = bool(result.status in ENDED_BY_FORCE and request.cancelled and request.cancelled())
        self._metrics.executed(request.language, result, cancelled)
        if cancelled and self._lifecycle.aborting:
            raise ShuttingDown
        return result


class BatchRunner:
    """The members of batches, on threads of their own: a bounded number for all batches together."""

    def __init__(self, runner: Runner, metrics: Metrics, log: Log, settings: Settings) -> None:
        self._runner = runner
        self._metrics = metrics
        self._log = log
        self._settings = settings
        self._threads = ThreadPoolExecutor(settings.batch_threads, "pyvmm-batch")

    def run(self, requests: Sequence[ExecRequest]) -> list[bytes]:
        """The encoded responses in the order of the requests; raises 503 only if not one of them could be run."""
        batch = _Batch(self._settings.batch_patience_seconds)
        budget = OutputBudget(self._settings.batch_output_limit)
        self._metrics.waiting.inc(len(requests))
        futures = [self._threads.submit(self._member, request, batch, budget) for request in requests]
        answers = [future.result() for future in futures]
        refusals = [answer for answer in answers if isinstance(answer, Unavailable)]
        if len(refusals) == len(answers):
            raise refusals[0]
        return [
            msgspec.json.encode(not_run(answer.description or "")) if isinstance(answer, Unavailable) else answer
            for answer in answers
        ]

    def close(self) -> None:
        """Start no more members. Those that run are not waited for; twice is fine."""
        self._threads.shutdown(wait=False)

    def _member(self, request: ExecRequest, batch: "_Batch", budget: OutputBudget) -> bytes | Unavailable:
        self._metrics.waiting.dec()
        while True:
            if request.cancelled and request.cancelled():
                return ShuttingDown()
            try:
                with batch.inside():
                    result = self._runner.run(request)
                # Encoded here and now: bytes are all that is kept of a member while the others run.
                return msgspec.json.encode(response_of(request, result, new_id(), budget))
            except PoolSaturated as error:
                if not batch.may_wait():
                    return unavailable(error)
                time.sleep(RETRY_SECONDS)
            except PyvmmError as error:
                refusal = unavailable(error)
                self._log.warning("member of a batch refused", kind=refusal.kind, reason=str(error))
                return refusal
            except ShuttingDown as error:
                return error
            except Exception as error:
                # A fault of ours in one member is no reason to lose the answers of the others.
                self._log.error("member of a batch failed", kind="internal", reason=repr(error))
                return Unavailable("The execution failed for a reason of the service's own.", "internal")


class _Batch:
    """Whether a batch is getting on: as long as one of its members is in the pool, the others may wait for a place."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._inside = 0
        self._last_progress = time.monotonic()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Around a call of the pool."""
        with self._lock:
            self._inside += 1
        refused = False
        try:
            yield
        except PoolSaturated:
            refused = True
            raise
        finally:
            with self._lock:
                self._inside -= 1
                if not refused:
                    self._last_progress = time.monotonic()

    def may_wait(self) -> bool:
        """After a refusal: try again?"""
        with self._lock:
            return self._inside > 0 or time.monotonic() - self._last_progress < self._patience
