"""The endpoints. Each takes what it needs, and does nothing but translate between HTTP and the rooms behind it."""

from collections.abc import Callable

import msgspec

from .body import read_json_bytes
from .context import Request, Response
from .errors import ShuttingDown
from .execution import BatchRunner, Runner, Slots
from .lifecycle import Lifecycle
from .metrics import CONTENT_TYPE, Metrics
from .pool import Pool
from .schemas import BatchBody, ExecBody, HealthResponse, Parser, TemplateHealth, check_batch, response_of


class Exec:
    """Run code in a freshly forked VM."""

    def __init__(self, runner: Runner, slots: Slots, lifecycle: Lifecycle, body_limit: int) -> None:
        self._runner = runner
        self._slots = slots
        self._lifecycle = lifecycle
        self._body_limit = body_limit
        self._parser = Parser(ExecBody)

    def on_post(self, req: Request, resp: Response) -> None:
        """POST /v1/exec"""
        if self._lifecycle.draining:
            raise ShuttingDown
        body = self._parser.parse(read_json_bytes(req, self._body_limit))
        request = self._runner.request_of(body, client_gone(req))
        with self._slots.taken():
            result = self._runner.run(request)
        resp.data = msgspec.json.encode(response_of(request, result, req.context.request_id))


class Batch:
    """Run several snippets side by side, each in its own VM."""

    def __init__(
        self, batches: BatchRunner, runner: Runner, slots: Slots, lifecycle: Lifecycle, body_limit: int
    ) -> None:
        self._batches = batches
        self._runner = runner
        self._slots = slots
        self._lifecycle = lifecycle
        self._body_limit = body_limit
        self._parser = Parser(BatchBody)

    def on_post(self, req: Request, resp: Response) -> None:
        """POST /v1/exec/batch"""
        if self._lifecycle.draining:
            raise ShuttingDown
        body = self._parser.parse(read_json_bytes(req, self._body_limit))
        check_batch(body)
        gone = client_gone(req)
        requests = [
            self._runner.request_of(member, gone, f"executions[{index}].")
            for index, member in enumerate(body.executions)
        ]
        with self._slots.taken():
            results = self._batches.run(requests)
        resp.data = b'{"results":[' + b",".join(results) + b"]}"


class Health:
    """Whether every configured template is ready.

    Not ready is ``starting`` until everything was ready once, and ``degraded`` from then on; draining is not ready.
    """

    def __init__(self, pool: Pool, lifecycle: Lifecycle) -> None:
        self._pool = pool
        self._lifecycle = lifecycle
        self._was_ready = False

    def on_get(self, req: Request, resp: Response) -> None:
        """GET /v1/health"""
        templates = {
            name: TemplateHealth(ready=template.ready, memory_mb=template.memory_mb)
            for name, template in self._pool.templates().items()
        }
        ready = bool(templates) and all(template.ready for template in templates.values())
        self._was_ready = self._was_ready or ready
        ok = ready and not self._lifecycle.draining
        status = "ok" if ok else "degraded" if self._was_ready else "starting"
        resp.status = 200 if ok else 503
        if not ok:
            resp.set_header("Retry-After", "5")
        resp.set_header("Cache-Control", "no-store")
        resp.data = msgspec.json.encode(HealthResponse(status=status, templates=templates))

    on_head = on_get


class MetricsText:
    """What Prometheus scrapes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def on_get(self, req: Request, resp: Response) -> None:
        """GET /v1/metrics"""
        resp.content_type = CONTENT_TYPE
        resp.data = self._metrics.render()

    on_head = on_get


def client_gone(req: Request) -> Callable[[], bool]:
    """A question that the pool asks while it runs: has this client closed its connection?"""
    ask: Callable[[], bool] | None = req.env.get("waitress.client_disconnected")
    return ask or (lambda: False)
