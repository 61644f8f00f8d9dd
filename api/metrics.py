"""Prometheus metrics: one registry for each application, base units, and a fixed set of values for every label."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from pyvmm.result import Result

from .pool import Pool

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

ENDPOINTS = {
    "/v1/exec": "/v1/exec",
    "/exec": "/v1/exec",
    "/v1/exec/batch": "/v1/exec/batch",
    "/v1/health": "/v1/health",
    "/health": "/v1/health",
    "/v1/metrics": "/v1/metrics",
}
"""Path -> endpoint, as metrics and log name it; every other path is ``other``."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OUTCOMES = frozenset({"ok", "error", "timeout", "oom", "output_limit", "crashed", "protocol_error"})

BUCKETS = (
    *(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0),
)
"""Seconds: from a fork at its best to the longest timeout."""


def endpoint_of(path: str) -> str:
    """The endpoint that a path belongs to."""
    return ENDPOINTS.get(path, "other")


def method_of(method: str) -> str:
    """The method, if it is one of the usual ones."""
    return method if method in METHODS else "other"


class Metrics:
    """Everything that is counted."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.registry = CollectorRegistry()
        self.fork = self._histogram("pyvmm_fork_duration_seconds", "From asking for a VM until it can run.")
        self.exec = self._histogram("pyvmm_exec_duration_seconds", "From the start of a program until its end.")
        self.total = self._histogram("pyvmm_total_duration_seconds", "From asking for a VM until the result is there.")
        self.requests = Counter(
            "pyvmm_http_requests",
            "HTTP requests by endpoint, method and status.",
            ("endpoint", "method", "status"),
            registry=self.registry,
        )
        self.executions = Counter(
            "pyvmm_executions",
            "Executions by language and outcome.",
            ("language", "outcome"),
            registry=self.registry,
        )
        self.errors = Counter("pyvmm_errors", "Error responses by kind.", ("kind",), registry=self.registry)
        self.in_flight = self._gauge(
            "pyvmm_executions_in_flight", "Executions in the pool, running or waiting for a VM."
        )
        self.waiting = self._gauge("pyvmm_batch_executions_waiting", "Snippets of batches not yet given to the pool.")
        self._gauge("pyvmm_live_forks", "Forked VMs that exist now.").set_function(pool.live_forks)
        self._ready = Gauge(
            "pyvmm_template_ready", "1 if the template is ready, else 0.", ("template",), registry=self.registry
        )
        ProcessCollector(registry=self.registry)

    def executed(self, language: str, result: Result, cancelled: bool) -> None:
        """Count one execution; ``cancelled`` if it ended because nobody waits for it any more."""
        outcome = "cancelled" if cancelled else result.status if result.status in OUTCOMES else "protocol_error"
        self.executions.labels(language, outcome).inc()
        self.fork.observe(result.fork_seconds)
        self.exec.observe(result.exec_seconds)
        self.total.observe(result.total_seconds)

    def answered(self, endpoint: str, method: str, status: str, error_kind: str | None) -> None:
        """Count one HTTP response."""
        self.requests.labels(endpoint, method, status).inc()
        if error_kind is not None:
            self.errors.labels(error_kind).inc()

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        for name, template in self._pool.templates().items():
            self._ready.labels(name).set(template.ready)
        return generate_latest(self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=BUCKETS, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)
