"""Runs the application: configuration, the listening socket, signals, the drain.

On SIGTERM or SIGINT the server takes no more executions (503), lets those that run finish until a deadline, then stops
them (503), and returns. A second signal brings the deadline forward to now.
"""

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from pyvmm.errors import HostError

from .app import Application, create_app
from .auth import load_keys
from .edge import EdgeServer
from .errors import kind_of
from .log import adopt_libraries, make_log
from .pool import Pool
from .settings import Settings

GRACE_SECONDS = 2.0
"""How long stopped executions may take to be answered after the deadline."""

DESCRIPTORS = 65536
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(pool: Pool, host: str = "127.0.0.1", port: int = 8080, settings: Settings | None = None) -> None:
    """Answer HTTP until a signal says to stop; the pool stays open and is closed by its owner.

    Reads the API keys, unless ``settings`` brings some. Raises ``SettingsError`` if they cannot be used, and
    ``HostError`` if the address cannot be listened on.
    """
    settings = settings or Settings()
    if settings.keys is None:
        settings = replace(settings, keys=load_keys(os.environ, Path.cwd()))
    log = make_log()
    adopt_libraries(log)
    _raise_descriptor_limit()
    app = create_app(pool, settings, log)
    server = Server(app, listen(host, port), settings)
    if settings.keys is None:
        log.warning("authentication is off: there is no API key file, anybody who reaches this port can run code")
    else:
        log.info("authentication is on", keys=len(settings.keys))
    with _signals_stop(server):
        log.info(f"listening on {server.url}")
        server.run()
    log.info("stopped")


class Server:
    """The event loop around an application; ``stop()`` from anywhere ends ``run()``."""

    def __init__(self, app: Application, listener: socket.socket, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._deadline = float("inf")
        self._edge = EdgeServer(app, listener, settings, self._refused)

    def __repr__(self) -> str:
        return f"<Server {self.url} {self._app.lifecycle!r}>"

    @property
    def port(self) -> int:
        """The port, which the kernel chose if it was asked for 0."""
        return int(self._edge.effective_port)

    @property
    def url(self) -> str:
        """Where this server answers."""
        host = str(self._edge.effective_host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def stop(self) -> None:
        """Start the drain; the second call ends it. Safe in a signal handler and in any thread."""
        second = self._app.lifecycle.draining
        self._deadline = time.monotonic() + (0 if second else self._settings.drain_seconds)
        self._app.lifecycle.drain()
        self._edge.pull_trigger()

    def run(self) -> None:
        """Serve until stopped and drained."""
        lifecycle = self._app.lifecycle
        try:
            while not self._finished():
                self._edge.poll(0.05 if lifecycle.draining else 1.0)
        finally:
            self._close()

    def _finished(self) -> bool:
        lifecycle = self._app.lifecycle
        if not lifecycle.draining:
            return False
        late = time.monotonic() - self._deadline
        if late >= 0 and not lifecycle.aborting:
            self._app.log.warning("drain deadline passed, stopping what still runs")
            lifecycle.abort()
        return not self._edge.busy() or late >= GRACE_SECONDS

    def _close(self) -> None:
        self._app.lifecycle.abort()
        self._app.close()
        self._edge.shut()

    def _refused(self, status: int) -> None:
        """Count and log a request that ended before the application was reached."""
        kind = kind_of(status)
        self._app.metrics.answered("other", "other", str(status), kind)
        self._app.log.warning("request refused by the HTTP parser", status=status, kind=kind)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; IPv4 first for a name that has both. Raises ``HostError`` that names the option to change."""
    if not 0 <= port <= 65535:
        raise HostError(f"cannot listen on {host}:{port}: there is no such port; choose another with --port")
    try:
        family, kind, protocol, _, address = sorted(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise HostError(f"cannot listen on {host}:{port}: no such address; choose another with --host") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Two sockets may be bound to one port; only listening shows that it is taken.
        listener.listen(1024)
    except OSError as error:
        listener.close()
        advice = "choose another port with --port, or another address with --host"
        raise HostError(f"cannot listen on {host}:{port}: {error.strerror}; {advice}") from error
    return listener


@contextmanager
def _signals_stop(server: Server) -> Iterator[None]:
    """While inside, SIGTERM and SIGINT stop the server; only the main thread can install that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        server.stop()

    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _raise_descriptor_limit() -> None:
    """Connections and VMs need descriptors; the soft limit is often 1,024 while the hard one allows far more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
