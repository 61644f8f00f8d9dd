"""The one place that turns exceptions into HTTP errors.

Every error is ``{"error": "one clear sentence", "request_id": "..."}``. The sentences are ours: what an exception says
(a path, an address, an errno) goes to the log, never to the client.
"""

import traceback
from collections.abc import Mapping
from typing import NoReturn

import falcon
import msgspec

from pyvmm import errors as pyvmm_errors

from .context import Request, Response
from .log import Log

KINDS = {
    400: "bad_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "rate_limited",
    431: "too_large",
    503: "unavailable",
}
"""The kind of an error in metrics and log where the status alone says it. All other 4xx are ``bad_request``."""

SENTENCES = {
    400: "The request is not valid.",
    404: "There is nothing at this path.",
    405: "This path does not support this method; the Allow header names those that it does.",
    413: "The request body is larger than this server accepts.",
    431: "The request headers are larger than this server accepts.",
    501: "This transfer encoding is not supported.",
}

TRACEBACK_LIMIT = 4000


class SettingsError(pyvmm_errors.PyvmmError):
    """The service is configured wrongly and does not start."""


class ApiError(falcon.HTTPError):
    """An error of this service: a status, the sentence that the client reads, and the kind that is counted."""

    def __init__(
        self,
        status: int,
        sentence: str,
        kind: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        extra = dict(headers or {})
        if retry_after is not None:
            extra["Retry-After"] = str(retry_after)
        super().__init__(status, description=sentence, headers=extra)
        self.kind = kind


class Unavailable(ApiError):
    """503: nothing is wrong with the request, it cannot be served now."""

    def __init__(self, sentence: str, kind: str, retry_after: int = 1) -> None:
        super().__init__(503, sentence, kind, retry_after)


class ShuttingDown(Unavailable):
    """503: the server is on its way out."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down.", "shutting_down", retry_after=5)


def error_body(sentence: str, request_id: str) -> bytes:
    """The JSON of every error."""
    return msgspec.json.encode({"error": sentence, "request_id": request_id})


def kind_of(status: int) -> str:
    """The kind of an error that has nothing but a status."""
    return KINDS.get(status, "bad_request" if status < 500 else "internal")


def unavailable(error: pyvmm_errors.PyvmmError) -> Unavailable:
    """What a client is told of an execution that did not take place."""
    match error:
        case pyvmm_errors.PoolSaturated():
            return Unavailable("Too many executions are waiting; try again later.", "saturated", error.retry_after)
        case pyvmm_errors.PoolClosed():
            return ShuttingDown()
        case pyvmm_errors.TemplateNotReady() | pyvmm_errors.TemplateError():
            return Unavailable("The template for this language is not ready.", "not_ready", retry_after=5)
        case pyvmm_errors.GuestFailed():
            return Unavailable("A virtual machine could not be made; nothing was run.", "fork_failed")
        case _:
            return Unavailable("The execution could not be started on this host.", "host")


class ErrorHandlers:
    """Falcon's hooks for errors, bound to a log."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def install(self, app: falcon.App[Request, Response]) -> None:
        """Make these the handlers of an application."""
        app.set_error_serializer(serialize)
        app.add_error_handler(Exception, self.unexpected)
        app.add_error_handler(pyvmm_errors.PyvmmError, self.not_executed)

    def not_executed(self, req: Request, resp: Response, error: pyvmm_errors.PyvmmError, params: object) -> NoReturn:
        """The pool could not run it: 503."""
        answer = unavailable(error)
        self._log.warning("execution refused", kind=answer.kind, reason=str(error), request_id=req.context.request_id)
        raise answer

    def unexpected(self, req: Request, resp: Response, error: Exception, params: object) -> NoReturn:
        """A bug of ours: 500, with the traceback in the log only."""
        text = "".join(traceback.format_exception(error))[-TRACEBACK_LIMIT:]
        self._log.error("unexpected exception", traceback=text, request_id=req.context.request_id)
        raise ApiError(500, "The server made a mistake; the request id finds it in its log.", "internal")


def serialize(req: Request, resp: Response, error: falcon.HTTPError) -> None:
    """Falcon's error serializer: for all errors, those of Falcon itself (404, 405) too."""
    status = error.status_code
    sentence = error.description if isinstance(error, ApiError) else None
    resp.context.error_kind = (error.kind if isinstance(error, ApiError) else None) or kind_of(status)
    resp.content_type = falcon.MEDIA_JSON
    resp.data = error_body(sentence or SENTENCES.get(status, SENTENCES[400]), req.context.request_id)
