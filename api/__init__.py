"""The HTTP face of pyvmm: ``create_app`` builds the WSGI application, ``serve`` runs it.

One file, one thing::

    app          create_app: everything put together on one screen
    server       serve: configuration, signals, the drain
    edge         what this service adds to waitress: strict framing, JSON errors, bounded connections
    resources    the endpoints
    schemas      bodies in and out
    auth         API keys            ratelimit    requests per second and key
    execution    one run on the pool, and how many at once
    pool         what is asked of a pool
    middleware   request ids, the gate (keys, rate), one log line and one count for each request
    errors       the one place that turns exceptions into HTTP errors
    metrics      Prometheus          log          JSON lines on stderr
    lifecycle    running, draining, aborting
    settings     what can be set
"""

from .app import create_app
from .server import serve
from .settings import Settings

__all__ = ["Settings", "create_app", "serve"]
