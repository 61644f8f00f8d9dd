"""The bytes of a request body, after all that its headers can be wrong about."""

import falcon

from .context import Request
from .errors import ApiError


def read_json_bytes(req: Request, limit: int) -> bytes:
    """The body of a request that says it is JSON and is not larger than ``limit``; 415 or 413 otherwise."""
    _check_type(req)
    if (req.content_length or 0) > limit:
        raise _too_large(limit)
    body: bytes = req.bounded_stream.read(limit + 1)
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _check_type(req: Request) -> None:
    media_type, parameters = falcon.parse_header(req.content_type or "")
    if media_type.lower() != falcon.MEDIA_JSON:
        raise ApiError(415, "The Content-Type must be application/json.")
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise ApiError(415, "The charset of the body must be utf-8.")
    if (req.get_header("Content-Encoding") or "identity").lower() != "identity":
        raise ApiError(415, "The body must not be compressed.")


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The request body is larger than {limit} bytes.")
