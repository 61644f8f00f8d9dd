"""What happens to every request: it is let in or not, and it leaves one line and one count."""

import time

import falcon

from .auth import KeyRing
from .context import Request, Response
from .errors import ApiError
from .log import Log
from .metrics import Metrics, endpoint_of, method_of
from .ratelimit import MovingWindow
from .settings import Settings

PUBLIC = frozenset({"/v1/health", "/v1/metrics"})
"""Endpoints that need no key and are not limited. All other paths, existing or not, answer 401 first."""

TABLE_SIZE = 4096


class Gate:
    """Authentication, then the rate limit."""

    def __init__(self, settings: Settings) -> None:
        self._keys = settings.keys
        limit = settings.anonymous_requests_per_second if self._keys is None else settings.requests_per_second
        self._window = MovingWindow(limit, names=max(TABLE_SIZE, len(self._keys or ()))) if limit else None

    def process_request(self, req: Request, resp: Response) -> None:
        """Falcon's hook before routing."""
        if endpoint_of(req.path) in PUBLIC:
            return
        # The peer's own address: headers in which a proxy may have put another one are not believed.
        client = req.remote_addr or ""
        if self._keys is not None:
            client = _authenticate(self._keys, req)
        wait = self._window.hit(client) if self._window is not None else None
        if wait is not None:
            raise ApiError(429, "Too many requests in one second; try again later.", retry_after=wait)


class AccessLog:
    """One log line, and one count, for every response."""

    def __init__(self, log: Log, metrics: Metrics) -> None:
        self._log = log
        self._metrics = metrics

    def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        """Falcon's hook after everything else."""
        endpoint, method = endpoint_of(req.path), method_of(req.method)
        status = falcon.code_to_http_status(resp.status)[:3]
        error = resp.context.error_kind
        resp.set_header("X-Request-Id", req.context.request_id)
        self._metrics.answered(endpoint, method, status, error)
        self._log.info(
            "request",
            request_id=req.context.request_id,
            client=req.remote_addr,
            key=req.context.key_name,
            method=method,
            endpoint=endpoint,
            status=int(status),
            error=error,
            seconds=round(time.perf_counter() - req.context.started, 6),
        )


def _authenticate(keys: KeyRing, req: Request) -> str:
    key = keys.identify(req.auth)
    if key is None:
        sentence = "A valid API key is needed, in the header Authorization: Bearer KEY."
        raise ApiError(401, sentence, headers={"WWW-Authenticate": "Bearer"})
    req.context.key_name = key[:8]
    return key
