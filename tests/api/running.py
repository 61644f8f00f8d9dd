"""A real server in a thread, and ways to talk to it."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from pyvmm.api.app import Application
from pyvmm.api.server import Server, listen
from pyvmm.api.settings import Settings


class Running:
    """A real server in a thread, and ways to talk to it."""

    def __init__(self, app: Application, settings: Settings) -> None:
        self.app = app
        self.server = Server(app, listen("127.0.0.1", 0), settings)
        self.port = self.server.port
        self.thread = threading.Thread(target=self.server.run, name="server")
        self.thread.start()

    def connect(self) -> socket.socket:
        """A connection of its own."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, data: bytes) -> bytes:
        """Send bytes as they are; what comes back until the server closes."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> "Reply":
        """One request on a connection of its own; a body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
            sent = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, body, sent | (headers or {}))
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def stop(self) -> None:
        """Drain, and wait for the end of the server's thread."""
        self.server.stop()
        self.thread.join(30)


class Reply:
    """A response that has been read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def closed_by_server(connection: socket.socket, seconds: float) -> bool:
    """Does the other side close within some seconds?"""
    connection.settimeout(seconds)
    try:
        read_all(connection)
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread does soon."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.01)
