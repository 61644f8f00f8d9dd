"""Every error is JSON of one shape; what went wrong inside goes to the log only."""

import json
import uuid

import pytest
from pyvmm.api.settings import Settings

from pyvmm.errors import ForkFailed, HostError, PoolClosed, PoolSaturated, SnapshotError, TemplateNotReady
from pyvmm.pool import TemplateStatus
from tests.api.doubles import Gate

SECRET = "/host/secret/path"


def assert_error(reply, status):
    assert reply.status_code == status
    assert reply.headers["Content-Type"] == "application/json"
    assert set(reply.json) == {"error", "request_id"}
    assert uuid.UUID(reply.json["request_id"]).version == 7
    assert reply.headers["X-Request-Id"] == reply.json["request_id"]
    assert reply.json["error"]
    assert SECRET not in reply.text


def failing_with(error):
    def answer(request):
        raise error

    return answer


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v2/exec", "/v1/exec/", "/V1/EXEC", "/v1/exec/batch/x", "/v1/exec/../exec"]
)
def test_an_unknown_path_is_404(client, path):
    assert_error(client.simulate_post(path, json={"code": "x"}), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/exec", "POST"),
        ("PUT", "/exec", "POST"),
        ("DELETE", "/v1/exec/batch", "POST"),
        ("POST", "/v1/health", "GET"),
        ("PATCH", "/v1/metrics", "GET"),
    ],
)
def test_a_wrong_method_is_405_and_names_the_right_one(client, method, path, allowed):
    reply = client.simulate_request(method, path)
    assert_error(reply, 405)
    assert allowed in reply.headers["Allow"]


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [
        (PoolSaturated(SECRET, retry_after=4), "4"),
        (PoolClosed(SECRET), "5"),
        (TemplateNotReady(SECRET), "5"),
        (SnapshotError(SECRET), "5"),
        (ForkFailed(SECRET), "1"),
        (HostError(SECRET), "1"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_run_now_is_503_with_retry_after(client, recorder, log_text, error, retry_after):
    recorder.answer = failing_with(error)
    reply = client.simulate_post("/v1/exec", json={"code": "x"})
    assert_error(reply, 503)
    assert reply.headers["Retry-After"] == retry_after
    assert SECRET in log_text.getvalue()


@pytest.mark.parametrize("path", ["/v1/exec", "/v1/exec/batch"])
def test_a_template_that_is_not_ready_is_503_and_nothing_is_run(client, recorder, path):
    recorder.statuses["python"] = TemplateStatus(ready=False, memory_mb=256)
    reply = client.simulate_post(path, json={"code": "x", "executions": [{"code": "x"}]})
    assert_error(reply, 503)
    assert reply.headers["Retry-After"] == "5"
    assert recorder.requests == []


@pytest.mark.parametrize(
    "error", [RuntimeError(SECRET), OSError(5, SECRET), RecursionError(), MemoryError(), KeyError(1)]
)
def test_a_bug_is_500_without_details(client, recorder, log_text, error):
    recorder.answer = failing_with(error)
    reply = client.simulate_post("/v1/exec", json={"code": "x"})
    assert_error(reply, 500)
    assert reply.json["request_id"] in log_text.getvalue()


def test_a_bug_in_templates_is_500_and_not_a_dead_server(client, recorder):
    def broken():
        raise RuntimeError(SECRET)

    recorder.templates = broken
    for method, path in (("POST", "/v1/exec"), ("GET", "/v1/health"), ("GET", "/v1/metrics")):
        assert_error(client.simulate_request(method, path, json={"code": "x"}), 500)


def test_every_request_has_another_id(client):
    assert client.simulate_get("/x").json["request_id"] != client.simulate_get("/x").json["request_id"]


def test_an_execution_beyond_the_slots_is_503_at_once(make_client, recorder):
    reply = make_client(Settings(execution_slots=0)).simulate_post("/v1/exec", json={"code": "x"})
    assert_error(reply, 503)
    assert reply.headers["Retry-After"] == "1"
    assert recorder.requests == []


def test_a_slot_is_free_again_after_a_failure(make_client, recorder):
    client = make_client(Settings(execution_slots=1))
    recorder.answer = failing_with(RuntimeError())
    statuses = [client.simulate_post("/v1/exec", json={"code": "x"}).status_code for _ in range(3)]
    assert statuses == [500, 500, 500]


@pytest.mark.parametrize("path", ["/v1/exec", "/v1/exec/batch"])
def test_a_draining_server_takes_no_executions(client, recorder, path):
    client.app.lifecycle.drain()
    reply = client.simulate_post(path, json={"code": "x", "executions": [{"code": "x"}]})
    assert_error(reply, 503)
    assert "Retry-After" in reply.headers
    assert recorder.requests == []


def test_what_the_end_of_the_server_cuts_short_is_503(client, recorder):
    recorder.answer = Gate()
    client.app.lifecycle.aborting = True
    assert_error(client.simulate_post("/v1/exec", json={"code": "x"}), 503)


def test_errors_are_ascii_json_whatever_was_sent(client):
    reply = client.simulate_post("/v1/exec", json={"code": "x", "language": "\N{PILE OF POO}\x1b"})
    assert json.loads(reply.content.decode("ascii"))["error"]
