"""Fixtures for tests of the HTTP service: an application over a recording pool, and a real server on a free port."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from falcon import testing
from pyvmm.api.app import Application, create_app
from pyvmm.api.log import make_log
from pyvmm.api.settings import Settings

from tests.api.doubles import RecordingPool
from tests.api.running import Running


@pytest.fixture
def recorder() -> RecordingPool:
    """A pool that records and echoes."""
    return RecordingPool()


@pytest.fixture
def log_text() -> io.StringIO:
    """What the service logged."""
    return io.StringIO()


@pytest.fixture
def make_app(recorder: RecordingPool, log_text: io.StringIO) -> Iterator[Callable[..., Application]]:
    """Builds applications over the recorder (or another pool)."""
    apps = []

    def build(settings: Settings | None = None, over: Any = None) -> Application:
        apps.append(create_app(over or recorder, settings, make_log(log_text)))
        return apps[-1]

    yield build
    for app in apps:
        app.close()


@pytest.fixture
def client(make_app: Callable[..., Application]) -> testing.TestClient:
    """The application with default settings, without a network."""
    return testing.TestClient(make_app())


@pytest.fixture
def make_client(make_app: Callable[..., Application]) -> Callable[..., testing.TestClient]:
    """Builds clients of applications with other settings."""
    return lambda settings=None, over=None: testing.TestClient(make_app(settings, over))


@pytest.fixture
def start_server(make_app: Callable[..., Application]) -> Iterator[Callable[..., Running]]:
    """Starts servers; they are stopped at the end of the test."""
    running = []

    def start(settings: Settings | None = None, over: Any = None) -> Running:
        settings = settings or Settings(execution_slots=8, spare_threads=4)
        running.append(Running(make_app(settings, over), settings))
        return running[-1]

    yield start
    for server in running:
        server.stop()
        server.stop()
        assert not server.thread.is_alive()
