"""What belongs to one request on its way through the service, from its first moment."""

import time
from typing import ClassVar

import falcon
from uuid_utils import uuid7


def new_id() -> str:
    """A UUIDv7: sorts by time, unique across forks and threads."""
    return str(uuid7())


class RequestContext:
    """Made with the request itself, so that an error raised before any middleware has an id, too."""

    __slots__ = ("key_name", "request_id", "started")

    def __init__(self) -> None:
        self.request_id = new_id()
        self.started = time.perf_counter()
        self.key_name: str | None = None


class ResponseContext:
    """What the error serializer leaves for log and metrics."""

    __slots__ = ("error_kind",)

    def __init__(self) -> None:
        self.error_kind: str | None = None


class Request(falcon.Request):
    """A request whose ``context`` is typed."""

    context_type: ClassVar[type] = RequestContext
    context: RequestContext  # type: ignore[assignment]


class Response(falcon.Response):
    """A response whose ``context`` is typed."""

    context_type: ClassVar[type] = ResponseContext
    context: ResponseContext  # type: ignore[assignment]
