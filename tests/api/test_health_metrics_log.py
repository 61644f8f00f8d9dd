"""GET /v1/health, GET /v1/metrics, and the log."""

import json
import random

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pyvmm.api.auth import KeyRing
from pyvmm.api.log import BurstLimit, make_log
from pyvmm.api.settings import Settings

from pyvmm.errors import ForkFailed
from pyvmm.pool import TemplateStatus
from tests.api.doubles import RecordingPool, result

READY = TemplateStatus(ready=True, memory_mb=256)
NOT_READY = TemplateStatus(ready=False, memory_mb=256)


def samples(client):
    """Every sample of the metrics: (name, labels) -> value."""
    text = client.simulate_get("/v1/metrics").text
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("path", ["/v1/health", "/health"])
def test_health_is_ok_when_every_template_is_ready(client, path):
    reply = client.simulate_get(path)
    assert reply.status_code == 200
    assert reply.json == {"status": "ok", "templates": {"python": {"ready": True, "memory_mb": 256}}}


def test_health_is_starting_until_everything_was_ready_once_and_degraded_from_then_on(client, recorder):
    recorder.statuses = {"python": READY, "node": NOT_READY}
    first = client.simulate_get("/v1/health")
    recorder.statuses["node"] = READY
    second = client.simulate_get("/v1/health")
    recorder.statuses["python"] = NOT_READY
    third = client.simulate_get("/v1/health")
    assert [reply.status_code for reply in (first, second, third)] == [503, 200, 503]
    assert [reply.json["status"] for reply in (first, second, third)] == ["starting", "ok", "degraded"]
    assert third.json["templates"]["python"] == {"ready": False, "memory_mb": 256}


def test_health_is_not_ok_without_any_template(client, recorder):
    recorder.statuses = {}
    assert client.simulate_get("/v1/health").status_code == 503


def test_health_is_not_ok_while_the_server_drains(make_app, make_client):
    client = make_client()
    client.app.lifecycle.drain()
    assert client.simulate_get("/v1/health").status_code == 503


def test_health_answers_head_requests(client):
    reply = client.simulate_head("/v1/health")
    assert (reply.status_code, reply.content) == (200, b"")


def test_metrics_are_prometheus_text(client):
    reply = client.simulate_get("/v1/metrics")
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    names = {family.name for family in text_string_to_metric_families(reply.text)}
    assert names >= {
        "pyvmm_fork_duration_seconds",
        "pyvmm_exec_duration_seconds",
        "pyvmm_total_duration_seconds",
        "pyvmm_http_requests",
        "pyvmm_executions",
        "pyvmm_errors",
        "pyvmm_live_forks",
        "pyvmm_executions_in_flight",
        "process_resident_memory_bytes",
    }


def test_executions_are_counted_by_language_and_outcome_and_timed(client, recorder):
    recorder.answer = lambda request: result(status="timeout", exit_code=-1, fork_seconds=0.25, total_seconds=2.5)
    client.simulate_post("/v1/exec", json={"code": ""})
    client.simulate_post("/v1/exec/batch", json={"executions": [{"code": ""}]})
    seen = samples(client)
    assert seen["pyvmm_executions_total", ("language", "python"), ("outcome", "timeout")] == 2
    assert seen["pyvmm_fork_duration_seconds_count",] == 2
    assert seen["pyvmm_fork_duration_seconds_sum",] == 0.5
    assert seen["pyvmm_total_duration_seconds_bucket", ("le", "2.0")] == 0
    assert seen["pyvmm_total_duration_seconds_bucket", ("le", "5.0")] == 2


def test_requests_and_errors_are_counted_with_aliases_as_one_endpoint(client, recorder):
    def fail(request):
        raise ForkFailed("no")

    recorder.answer = fail
    for path in ("/v1/exec", "/exec"):
        client.simulate_post(path, json={"code": ""})
    client.simulate_get("/nowhere")
    seen = samples(client)
    assert seen["pyvmm_http_requests_total", ("endpoint", "/v1/exec"), ("method", "POST"), ("status", "503")] == 2
    assert seen["pyvmm_http_requests_total", ("endpoint", "other"), ("method", "GET"), ("status", "404")] == 1
    assert seen["pyvmm_errors_total", ("kind", "fork_failed")] == 2
    assert seen["pyvmm_errors_total", ("kind", "not_found")] == 1


def test_live_forks_are_asked_from_the_pool(client, recorder):
    recorder.forks = 7
    assert samples(client)["pyvmm_live_forks",] == 7


def test_gauges_are_back_at_zero_when_nothing_runs(client):
    client.simulate_post("/v1/exec/batch", json={"executions": [{"code": ""}] * 10})
    seen = samples(client)
    assert (seen["pyvmm_executions_in_flight",], seen["pyvmm_batch_executions_waiting",]) == (0, 0)


def test_what_clients_choose_does_not_add_series(client):
    def visit(chosen):
        client.simulate_request(chosen.choice(["GET", "POST", "TRACE"]), f"/{chosen.random()}")
        client.simulate_post("/v1/exec", json={"code": "", "language": str(chosen.random())})
        client.simulate_post(f"/v1/exec?{chosen.random()}", json={"code": "", "timeout_seconds": chosen.random()})

    chosen = random.Random(1)
    for _ in range(50):
        visit(chosen)
    samples(client)
    before = set(samples(client))
    for _ in range(500):
        visit(chosen)
    assert set(samples(client)) == before


def test_an_unknown_status_of_the_pool_does_not_become_a_label(client, recorder):
    recorder.answer = lambda request: result(status="surprise")
    client.simulate_post("/v1/exec", json={"code": ""})
    assert samples(client)["pyvmm_executions_total", ("language", "python"), ("outcome", "protocol_error")] == 1


def test_two_applications_count_apart(make_client):
    one, other = make_client(), make_client(over=RecordingPool("python"))
    one.simulate_post("/v1/exec", json={"code": ""})
    assert samples(other)["pyvmm_fork_duration_seconds_count",] == 0


def test_every_request_leaves_one_line_of_json(client, log_text):
    client.simulate_post("/v1/exec", json={"code": "x"})
    (line,) = log_text.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["method"], entry["endpoint"], entry["status"]) == ("request", "POST", "/v1/exec", 200)


def test_the_log_holds_neither_code_nor_keys_nor_paths_nor_control_characters(make_client, log_text):
    client = make_client(Settings(keys=KeyRing(["zb_secret_key"])))
    code = "secret_code\n2026-01-01 INFO admin \x1b[2J"
    headers = {"Authorization": "Bearer zb_secret_key", "User-Agent": "secret_agent"}
    client.simulate_post("/v1/exec", json={"code": code, "language": "secret\nlanguage"}, headers=headers)
    client.simulate_post("/v1/exec", json={"code": code}, headers=headers)
    client.simulate_get("/secret_path%0a%1b", headers=headers, query_string="secret_query")
    client.simulate_get("/x", headers={"Authorization": "Bearer secret_wrong_key"})
    text = log_text.getvalue()
    assert len(text.splitlines()) == 4
    assert "secret" not in text
    assert "admin" not in text
    assert not any(character < " " for character in text.replace("\n", ""))


def test_a_key_is_logged_by_a_short_name_only(make_client, log_text):
    client = make_client(Settings(keys=KeyRing(["zb_secret_key"])))
    client.simulate_get("/x", headers={"Authorization": "Bearer zb_secret_key"})
    assert len(json.loads(log_text.getvalue())["key"]) == 8


def test_one_request_logs_less_than_eight_kibibytes_even_when_we_fail(client, recorder, log_text):
    def explode(depth):
        if depth:
            explode(depth - 1)
        raise RuntimeError("x" * 100_000)

    recorder.answer = lambda request: explode(200)
    client.simulate_post("/v1/exec", json={"code": ""})
    assert len(log_text.getvalue()) < 8192


def test_warnings_are_limited_and_the_rest_is_counted(log_text):
    now = [0.0]
    limit = BurstLimit(clock=lambda: now[0])
    log = make_log(log_text, limit)
    for _ in range(100_000):
        log.warning("again")
    log.warning("another kind")
    now[0] = 5.0
    log.warning("again")
    entries = [json.loads(line) for line in log_text.getvalue().splitlines()]
    assert [entry["event"] for entry in entries] == ["again"] * 10 + ["another kind", "again"]
    assert entries[-1]["suppressed"] == 99_990


def test_a_log_that_cannot_be_written_does_not_fail_the_request(client, log_text):
    log_text.close()
    assert client.simulate_post("/v1/exec", json={"code": ""}).status_code == 200
