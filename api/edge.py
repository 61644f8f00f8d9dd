"""What this service adds to waitress (3.0): strict framing, JSON errors, connections that cannot hold the server.

* A request whose length can be read in two ways is refused (RFC 9112, section 6.3): ``Transfer-Encoding`` together with
  ``Content-Length``, twice, or in HTTP/1.0. waitress 3.0.2 takes ``Transfer-Encoding`` and goes on.
* An error found before the application is reached is JSON as all others are.
* After such an error the connection is closed the way of RFC 9112, section 9.6: our side first, then what the client
  still sends is read and thrown away for a while. Closing at once makes the kernel reset the connection, and a client
  that is still uploading its too large body sees "connection reset" instead of our 413.
* A request must arrive whole within a time limit, however steadily its bytes trickle in, and when the house is full the
  connection that has been idle longest goes.
"""

# mypy: disable-error-code="import-untyped", disallow-subclassing-any=False

import http.client
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError, get_header_lines
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher

from .context import new_id
from .errors import SENTENCES, error_body
from .settings import Settings

LINGER_SECONDS = 3.0
LINGER_BYTES = 64 * 1024 * 1024
RECEIVE_BYTES = 64 * 1024
HEADER_LIMIT = 64 * 1024
NEVER = 1 << 40
"""A buffer limit in bytes that no response reaches."""


class StrictParser(HTTPRequestParser):
    """A request parser that refuses what others might read differently."""

    def __init__(self, adj: Adjustments) -> None:
        super().__init__(adj)
        self.started = time.monotonic()

    def parse_header(self, header_plus: bytes) -> None:
        """As waitress; a ``ParsingError`` is answered with 400 and the end of the connection."""
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            # urlsplit on "http://[", int() on five thousand digits: waitress would hang up without an answer.
            raise ParsingError("the request line or Content-Length is invalid") from error
        lines = get_header_lines(header_plus.partition(b"\r\n")[2])
        codings = [line.partition(b":")[2] for line in lines if line.lower().startswith(b"transfer-encoding:")]
        if codings and (
            len(codings) > 1 or codings[0].count(b",") or "CONTENT_LENGTH" in self.headers or self.version != "1.1"
        ):
            raise ParsingError("the length of the body is ambiguous")


class JsonErrorTask(ErrorTask):
    """Answers a request that never reached the application."""

    def execute(self) -> None:
        """Write the response, and have the connection closed gently."""
        code = self.request.error.code
        body = error_body(SENTENCES.get(code, "The server made a mistake."), new_id())
        self.status = f"{code} {http.client.responses.get(code, 'Error')}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.channel.linger = True
        self.write(body)
        self.channel.server.refused(code)


class Channel(HTTPChannel):
    """One connection."""

    parser_class = StrictParser
    error_task_class = JsonErrorTask

    linger = False
    """Set by a task: the client may still be sending when the response has gone out."""

    _linger_until: float | None = None
    _thrown_away = 0

    def check_client_disconnected(self) -> bool:
        """Has the client closed its side? Asked by the thread that serves the request.

        waitress notices only what it reads, and it stops reading while a second request is waiting; so the socket is
        asked, too.
        """
        if not self.connected:
            return True
        poller = select.poll()
        try:
            poller.register(self.socket.fileno(), select.POLLRDHUP)
        except (ValueError, OSError):  # closed by the main thread between the two lines
            return True
        return bool(poller.poll(0))

    def readable(self) -> bool:
        """As waitress; a lingering connection is read to be emptied."""
        return bool(self._linger_until is not None or super().readable())

    def handle_read(self) -> None:
        """As waitress, except that a lingering connection is not listened to any more."""
        if self._linger_until is None:
            super().handle_read()
            return
        # recv() closes the channel by itself when the client has closed its side.
        self._thrown_away += len(self.recv(RECEIVE_BYTES))
        if self._thrown_away > LINGER_BYTES:
            self.will_close = True

    def handle_write(self) -> None:
        """As waitress, except that a connection that lingers is not closed when its output is flushed."""
        if not (self.linger and self.close_when_flushed and not self.will_close):
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if not self.total_outbufs_len:
            self._start_lingering()

    def _start_lingering(self) -> None:
        self.close_when_flushed = False
        self._linger_until = time.monotonic() + LINGER_SECONDS
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:  # the client was faster
            self.will_close = True

    def idle(self) -> bool:
        """Neither a request in progress nor a response on its way."""
        return not self.requests and not self.total_outbufs_len

    def overdue(self, receive_seconds: float) -> bool:
        """Has this connection had its time: lingering, or sending one request?"""
        now = time.monotonic()
        if self._linger_until is not None:
            return now > self._linger_until
        partial = self.request
        return partial is not None and not self.requests and now - partial.started > receive_seconds


class EdgeServer(TcpWSGIServer):
    """The listening socket."""

    channel_class = Channel

    def __init__(
        self, application: Any, listener: socket.socket, settings: Settings, refused: Callable[[int], None]
    ) -> None:
        self._settings = settings
        self._shut = False
        self.refused = refused
        adjustments = _adjustments(settings, listener)
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(settings.threads)
        super().__init__(
            application,
            map={},
            _sock=listener,
            dispatcher=dispatcher,
            adj=adjustments,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )

    def handle_accept(self) -> None:
        """Accept one; if that fills the house, show out the connection that has been idle longest."""
        super().handle_accept()
        if len(self._map) < self.adj.connection_limit:
            return
        channels = list(self.active_channels.values())
        idle = [channel for channel in channels if channel.idle() and not channel.will_close]
        if idle:
            min(idle, key=lambda channel: channel.last_activity).will_close = True

    def maintenance(self, now: float) -> None:
        """Every second: close what is idle or overdue.

        Over a copy: a thread that sends "100 Continue" to a client that has left removes a channel meanwhile.
        """
        quiet_since = now - self._settings.idle_seconds
        for channel in list(self.active_channels.values()):
            silent = not channel.requests and channel.last_activity < quiet_since
            if silent or channel.overdue(self._settings.receive_seconds):
                channel.will_close = True

    def poll(self, seconds: float) -> None:
        """Wait for something to happen, for some seconds at most, and deal with it."""
        wasyncore.poll2(seconds, self._map)

    def shut(self) -> None:
        """Close the listener and every connection; threads that still serve a request are given a second."""
        self.task_dispatcher.shutdown(timeout=1)
        self._shut = True
        wasyncore.close_all(self._map)

    def pull_trigger(self) -> None:
        """Wake the event loop; after its end a late thread must not write to a descriptor that is another's by now."""
        if not self._shut:
            super().pull_trigger()

    def busy(self) -> bool:
        """Is there a request in progress or a response on its way?"""
        return any(not channel.idle() for channel in list(self.active_channels.values()))


def _adjustments(settings: Settings, listener: socket.socket) -> Adjustments:
    return Adjustments(
        sockets=[listener],
        threads=settings.threads,
        # select() cannot count beyond 1,024 descriptors, and every VM holds several.
        asyncore_use_poll=True,
        # Keep reading during a request, to see the client leave.
        channel_request_lookahead=1,
        connection_limit=settings.connection_limit,
        cleanup_interval=1,
        # waitress refuses from this size on, the contract above it.
        max_request_body_size=settings.body_limit + 1,
        max_request_header_size=HEADER_LIMIT,
        recv_bytes=RECEIVE_BYTES,
        # Bodies stay in memory: nothing that a client sends is written to disk.
        inbuf_overflow=settings.body_limit + RECEIVE_BYTES,
        outbuf_overflow=16 * 1024 * 1024,
        # A thread never waits for a slow reader; the main thread sends what is left, and idle_seconds ends it.
        outbuf_high_watermark=NEVER,
        ident=None,
        expose_tracebacks=False,
        log_socket_errors=False,
    )
