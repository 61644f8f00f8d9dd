"""The application, put together on one screen. Nothing here reads the environment; ``serve`` does."""

import falcon

from .context import Request, Response
from .errors import ErrorHandlers
from .execution import BatchRunner, Runner, Slots
from .lifecycle import Lifecycle
from .log import Log, make_log
from .metrics import Metrics
from .middleware import AccessLog, Gate
from .pool import Pool
from .resources import Batch, Exec, Health, MetricsText
from .settings import Settings


class Application(falcon.App[Request, Response]):
    """A WSGI application, and what a server has to reach in it."""

    log: Log
    metrics: Metrics
    lifecycle: Lifecycle
    batches: BatchRunner

    def close(self) -> None:
        """Let the threads of the batches go; the pool is its owner's."""
        self.batches.close()


def create_app(pool: Pool, settings: Settings | None = None, log: Log | None = None) -> Application:
    """The service over a pool."""
    settings = settings or Settings()
    log = log or make_log()
    metrics = Metrics(pool)
    lifecycle = Lifecycle()
    runner = Runner(pool, metrics, lifecycle)
    batches = BatchRunner(runner, metrics, log, settings)

    app = Application(
        request_type=Request,
        response_type=Response,
        middleware=[Gate(settings), AccessLog(log, metrics)],
    )
    app.log, app.metrics, app.lifecycle, app.batches = log, metrics, lifecycle, batches
    ErrorHandlers(log).install(app)

    execute = Exec(runner, Slots(settings.execution_slots), lifecycle, settings.body_limit)
    health = Health(pool, lifecycle)
    app.add_route("/v1/exec", execute)
    app.add_route("/exec", execute)
    app.add_route("/v1/exec/batch", Batch(batches, runner, Slots(settings.batch_slots), lifecycle, settings.body_limit))
    app.add_route("/v1/health", health)
    app.add_route("/health", health)
    app.add_route("/v1/metrics", MetricsText(metrics))
    return app
