"""So many requests in any second, for each key."""

import pytest
from pyvmm.api.auth import KeyRing
from pyvmm.api.ratelimit import MovingWindow
from pyvmm.api.settings import Settings


class Clock:
    """Time that passes when the test says so."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_the_limit_is_admitted_and_one_more_is_not(clock):
    window = MovingWindow(100, clock=clock)
    assert [window.hit("a") for _ in range(101)] == [None] * 100 + [1]


def test_no_second_ever_holds_more_than_the_limit(clock):
    window = MovingWindow(10, clock=clock)
    admitted = []
    for _ in range(1000):
        clock.now += 0.013
        if window.hit("a") is None:
            admitted.append(clock.now)
    assert all(late - early > 1.0 for early, late in zip(admitted, admitted[10:], strict=False))
    assert len(admitted) > 100


def test_a_refused_request_does_not_count(clock):
    window = MovingWindow(1, clock=clock)
    window.hit("a")
    clock.now += 0.9
    assert window.hit("a") == 1
    clock.now += 0.2
    assert window.hit("a") is None


def test_one_name_does_not_use_up_anothers_requests(clock):
    window = MovingWindow(1, clock=clock)
    assert (window.hit("a"), window.hit("b"), window.hit("a")) == (None, None, 1)


def test_a_million_names_do_not_grow_the_table(clock):
    window = MovingWindow(100, names=64, clock=clock)
    for number in range(1_000_000):
        window.hit(str(number))
    assert len(window) == 64


def authorized(key):
    return {"Authorization": f"Bearer {key}"}


def test_too_many_requests_of_a_key_are_429_with_retry_after(make_client, recorder):
    client = make_client(Settings(keys=KeyRing(["a", "b"]), requests_per_second=3))
    statuses = [client.simulate_get("/nowhere", headers=authorized("a")).status_code for _ in range(3)]
    reply = client.simulate_post("/v1/exec", json={"code": "x"}, headers=authorized("a"))
    assert (statuses, reply.status_code) == ([404] * 3, 429)
    assert int(reply.headers["Retry-After"]) >= 1
    assert set(reply.json) == {"error", "request_id"}
    assert recorder.requests == []
    assert client.simulate_post("/v1/exec", json={"code": "x"}, headers=authorized("b")).status_code == 200


def test_a_batch_counts_as_one_request(make_client):
    client = make_client(Settings(keys=KeyRing(["a"]), requests_per_second=2))
    body = {"executions": [{"code": ""}] * 100}
    replies = [client.simulate_post("/v1/exec/batch", json=body, headers=authorized("a")) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 200]


def test_requests_with_a_wrong_key_do_not_use_up_anything(make_client):
    client = make_client(Settings(keys=KeyRing(["a"]), requests_per_second=1))
    for _ in range(5):
        assert client.simulate_post("/v1/exec", headers=authorized("wrong")).status_code == 401
    assert client.simulate_post("/v1/exec", json={"code": ""}, headers=authorized("a")).status_code == 200


def test_health_and_metrics_are_not_limited(make_client):
    client = make_client(Settings(keys=KeyRing(["a"]), requests_per_second=1))
    paths = ["/v1/health", "/v1/metrics"] * 5
    assert {client.simulate_get(path, headers=authorized("a")).status_code for path in paths} == {200}


def test_without_keys_there_is_no_limit_unless_one_is_set_for_addresses(make_client):
    free = make_client()
    limited = make_client(Settings(anonymous_requests_per_second=2))
    assert {free.simulate_get("/x").status_code for _ in range(300)} == {404}
    assert [limited.simulate_get("/x").status_code for _ in range(3)] == [404, 404, 429]


@pytest.mark.parametrize("header", ["X-Forwarded-For", "CF-Connecting-IP", "Forwarded", "X-Real-IP"])
def test_an_address_in_a_header_is_not_believed(make_client, header):
    client = make_client(Settings(anonymous_requests_per_second=2))
    replies = [client.simulate_get("/x", headers={header: f"for=192.0.2.{number}"}) for number in range(3)]
    assert [reply.status_code for reply in replies] == [404, 404, 429]
