"""POST /v1/exec/batch."""

import threading

import msgspec
import pytest
from pyvmm.api.settings import Settings

from pyvmm.errors import ForkFailed, PoolSaturated
from tests.api.doubles import echo, result

PATH = "/v1/exec/batch"


def members(*codes):
    return {"executions": [{"code": code} for code in codes]}


def test_results_come_in_the_order_of_the_snippets(client, recorder):
    release = {"a": threading.Event(), "b": threading.Event()}

    def last_first(request):
        if request.code in release:
            assert release[request.code].wait(10)
        for code, previous in (("b", "a"), ("c", "b")):
            if request.code == code:
                release[previous].set()
        return echo(request)

    recorder.answer = last_first
    reply = client.simulate_post(PATH, json=members("a", "b", "c"))
    assert [answer["stdout"] for answer in reply.json["results"]] == ["a", "b", "c"]


def test_all_hundred_snippets_run_at_the_same_time(client, recorder):
    together = threading.Barrier(100)

    def meet(request):
        together.wait(20)
        return echo(request)

    recorder.answer = meet
    reply = client.simulate_post(PATH, json=members(*map(str, range(100))))
    assert [answer["stdout"] for answer in reply.json["results"]] == [str(number) for number in range(100)]


def test_every_member_has_the_shape_of_an_exec_response_and_its_own_id(client):
    single = client.simulate_post("/v1/exec", json={"code": ""}).json
    results = client.simulate_post(PATH, json=members("", "")).json["results"]
    assert all(set(answer) == set(single) for answer in results)
    assert results[0]["id"] != results[1]["id"]


def test_one_members_failure_or_timeout_does_not_touch_the_others(client, recorder):
    answers = {
        "bad": result(status="error", exit_code=1, stderr=b"Traceback"),
        "slow": result(status="timeout", exit_code=-1),
        "good": result(stdout=b"fine"),
    }
    recorder.answer = lambda request: answers[request.code]
    reply = client.simulate_post(PATH, json=members("bad", "slow", "good"))
    assert reply.status_code == 200
    assert [answer["status"] for answer in reply.json["results"]] == ["error", "timeout", "ok"]
    assert reply.json["results"][1]["stderr"] == "Execution timed out after 30s"


def test_a_member_whose_vm_cannot_be_made_does_not_fail_the_others(client, recorder):
    def second_fails(request):
        if request.code == "b":
            raise ForkFailed("secret /host/path")
        return echo(request)

    recorder.answer = second_fails
    reply = client.simulate_post(PATH, json=members("a", "b", "c"))
    first, second, third = reply.json["results"]
    assert (first["stdout"], third["stdout"]) == ("a", "c")
    assert (second["status"], second["exit_code"]) == ("crashed", -1)
    assert "virtual machine" in second["error"]
    assert "secret" not in reply.text


def test_members_wait_while_their_siblings_fill_the_pool(client, recorder):
    free = threading.Semaphore(2)

    def two_at_once(request):
        if not free.acquire(blocking=False):
            raise PoolSaturated("full")
        try:
            threading.Event().wait(0.02)
            return echo(request)
        finally:
            free.release()

    recorder.answer = two_at_once
    reply = client.simulate_post(PATH, json=members(*map(str, range(20))))
    assert [answer["stdout"] for answer in reply.json["results"]] == [str(number) for number in range(20)]


def test_a_batch_is_refused_as_a_whole_when_the_pool_stays_full(make_client, recorder):
    def full(request):
        raise PoolSaturated("full", retry_after=3)

    recorder.answer = full
    reply = make_client(Settings(batch_patience_seconds=0.05)).simulate_post(PATH, json=members("a", "b"))
    assert reply.status_code == 503
    assert reply.headers["Retry-After"] == "3"


@pytest.mark.parametrize("count", [0, 101, 100_000])
def test_none_or_more_than_a_hundred_snippets_are_refused(client, recorder, count):
    reply = client.simulate_post(PATH, json=members(*[""] * count))
    assert reply.status_code == 400
    assert recorder.requests == []


@pytest.mark.parametrize(
    "member",
    [None, 5, {}, {"code": 1}, {"code": "", "timeout_seconds": 0}, {"code": "", "language": "ruby"}],
)
def test_an_invalid_member_is_named_by_its_index_and_nothing_is_run(client, recorder, member):
    body = members("a", "b", "c", "d")
    body["executions"][2] = member
    reply = client.simulate_post(PATH, json=body)
    assert reply.status_code == 400
    assert "executions[2]" in reply.json["error"]
    assert recorder.requests == []


@pytest.mark.parametrize("body", [{}, {"executions": None}, {"executions": {}}, {"executions": "x"}, []])
def test_a_batch_without_a_list_is_refused(client, recorder, body):
    assert client.simulate_post(PATH, json=body).status_code == 400
    assert recorder.requests == []


def test_the_output_of_a_whole_batch_is_bounded(make_client, recorder):
    recorder.answer = lambda request: result(stdout=b"x" * 1000)
    client = make_client(Settings(batch_output_limit=2500))
    results = client.simulate_post(PATH, json=members("a", "b", "c", "d")).json["results"]
    assert sum(len(answer["stdout"]) for answer in results) == 2500
    assert sum(answer["stdout_truncated"] for answer in results) == 2


def test_all_batches_together_use_a_bounded_number_of_threads(make_client, recorder):
    running = threading.Semaphore(3)

    def three_at_most(request):
        assert running.acquire(blocking=False)
        threading.Event().wait(0.005)
        running.release()
        return echo(request)

    recorder.answer = three_at_most
    reply = make_client(Settings(batch_threads=3)).simulate_post(PATH, json=members(*[""] * 30))
    assert {answer["status"] for answer in reply.json["results"]} == {"ok"}


def test_a_batch_beyond_the_slots_is_refused(make_client, recorder):
    reply = make_client(Settings(batch_slots=0)).simulate_post(PATH, json=members("a"))
    assert reply.status_code == 503
    assert recorder.requests == []


def test_the_response_is_one_json_document(client):
    reply = client.simulate_post(PATH, json=members("a"))
    assert msgspec.json.decode(reply.content)["results"][0]["stdout"] == "a"
