"""The service on a real socket: framing, connections, load, the drain."""

import json
import os
import resource
import select
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyvmm.api.auth import KeyRing
from pyvmm.api.server import listen
from pyvmm.api.settings import Settings

from pyvmm.errors import HostError
from tests.api.doubles import Gate, result
from tests.api.running import closed_by_server, read_all, wait_until

BODY = b'{"code": "x"}'
POST = b"POST /v1/exec HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GOOD = POST + b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
HEALTH = b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def status_of(response):
    return int(response.split(b" ", 2)[1])


def body_of(response):
    return json.loads(response.partition(b"\r\n\r\n")[2])


# Framing


def test_answers_over_the_wire_without_naming_the_server(start_server):
    reply = start_server().request("POST", "/v1/exec", {"code": "hello"})
    assert (reply.status, reply.json["stdout"]) == (200, "hello")
    assert reply.headers["Server"] is None


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 13\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 13\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"Content-Length: 13\r\nContent-Length: 13\r\n",
        b"Content-Length: 13\r\nContent-Length: 14\r\n",
        b"Content-Length: +13\r\n",
        b"Content-Length: -13\r\n",
        b"Content-Length: 0xd\r\n",
        b"Content-Length: 1_3\r\n",
        b"Content-Length: \r\n",
        b"Content-Length: " + b"1" * 5000 + b"\r\n",
        b"Content-Length : 13\r\n",
        b"no colon\r\n",
        b"Content-Length: 13\nX: y\r\n",
    ],
    ids=lambda headers: repr(headers[:50]),
)
def test_a_request_with_a_doubtful_length_is_refused_and_the_connection_closed(start_server, recorder, headers):
    response = start_server().raw(POST + headers + b"\r\n" + BODY)
    assert status_of(response) in (400, 501)
    assert set(body_of(response)) == {"error", "request_id"}
    assert recorder.requests == []


def test_an_old_version_with_a_transfer_encoding_is_refused(start_server, recorder):
    request = GOOD.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: x", b"Transfer-Encoding: chunked")
    assert status_of(start_server().raw(request)) == 400
    assert recorder.requests == []


@pytest.mark.parametrize(
    "line", [b"GET http://[ HTTP/1.1", b"GET", b"get /v1/health HTTP/1.1", b"GET /a b HTTP/1.1", b"\x16\x03\x01"]
)
def test_a_request_line_that_is_none_is_refused_as_json(start_server, line):
    response = start_server().raw(line + b"\r\nHost: x\r\n\r\n")
    assert status_of(response) == 400
    assert set(body_of(response)) == {"error", "request_id"}


def test_refusals_of_the_parser_are_counted_and_logged_without_what_was_sent(start_server, log_text):
    server = start_server()
    server.raw(b"GET /secret HTTP/1.1\r\nAuthorization: Bearer secret\nX: y\r\n\r\n")
    assert b'pyvmm_errors_total{kind="bad_request"} 1.0' in server.request("GET", "/v1/metrics").body
    assert "secret" not in log_text.getvalue()


def test_too_large_headers_are_431(start_server):
    response = start_server().raw(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n")
    assert status_of(response) == 431
    assert set(body_of(response)) == {"error", "request_id"}


def test_a_chunked_body_is_read(start_server):
    chunks = b"5\r\n" + BODY[:5] + b"\r\n8\r\n" + BODY[5:] + b"\r\n0\r\n\r\n"
    response = start_server().raw(POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + chunks)
    assert (status_of(response), body_of(response)["stdout"]) == (200, "x")


def test_a_chunked_body_over_the_limit_is_413(start_server, recorder):
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    response = start_server().raw(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 40 + b"0\r\n\r\n")
    assert (status_of(response), recorder.requests) == (413, [])


def test_an_announced_body_over_the_limit_is_413_at_once_and_the_connection_ends_soon(start_server):
    with start_server().connect() as connection:
        begin = time.monotonic()
        connection.sendall(POST + b"Content-Length: 1000000000\r\n\r\n")
        response = connection.recv(65536)
        assert time.monotonic() - begin < 1
        assert status_of(response) == 413
        assert closed_by_server(connection, 10)


@pytest.mark.parametrize("size", [2 * 1024 * 1024 + 1, 3_000_000, 30_000_000])
def test_a_client_that_uploads_too_much_reads_413_and_no_reset(start_server, recorder, size):
    reply = start_server().request("POST", "/v1/exec", b" " * size)
    assert (reply.status, set(reply.json)) == (413, {"error", "request_id"})
    assert recorder.requests == []


def test_a_body_of_exactly_the_limit_is_accepted(start_server):
    body = b'{"code": ""}'.ljust(2 * 1024 * 1024)
    assert start_server().request("POST", "/v1/exec", body).status == 200


@pytest.mark.parametrize("method", [b"PROPFIND", b"WEBSOCKET", b"X!#$%"])
def test_an_unusual_method_is_a_clients_mistake(start_server, method):
    response = start_server().raw(GOOD.replace(b"POST", method).replace(b"Host: x", b"Connection: close"))
    assert status_of(response) in (400, 405)
    assert set(body_of(response)) == {"error", "request_id"}


@pytest.mark.parametrize(
    "target",
    [
        b"//v1//exec",
        b"/v1/exec/",
        b"/V1/EXEC",
        b"/v1%2fexec",
        b"/v1/./exec",
        b"/v1/../v1/exec",
        b"/v1/exec%00",
        b"/v1/exec;x",
        b"/v1/%ff%fe",
        b"http://elsewhere/v1/exec",
        b"/v1/health/../exec",
        b"//v1/exec",
        b"*",
    ],
)
def test_no_spelling_of_a_path_goes_round_the_keys(start_server, recorder, target):
    server = start_server(Settings(keys=KeyRing(["key"]), execution_slots=2))
    response = server.raw(GOOD.replace(b"/v1/exec", target, 1).replace(b"Host: x", b"Connection: close"))
    assert status_of(response) == 401
    assert recorder.requests == []


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Bearer key", 200),
        (b"Bearer key \t", 200),
        (b"bearer  key", 200),
        (b"Bearer\tkey", 401),
        (b"Bearer k\xc3\xa9y", 401),
        (b"Bearer \xff", 401),
        (b"Bearer \xef\xbb\xbfkey", 401),
        (b"Bearer key\r\nAuthorization: Bearer key", 401),
        (b"", 401),
    ],
)
def test_the_rule_for_keys_holds_for_raw_bytes(start_server, header, status):
    server = start_server(Settings(keys=KeyRing(["key"]), execution_slots=2))
    request = GOOD.replace(b"Host: x", b"Connection: close\r\nAuthorization: " + header)
    assert status_of(server.raw(request)) == status


# Connections


def test_pipelined_requests_are_answered_in_order(start_server):
    requests = b""
    for number in range(200):
        body = b'{"code": "%d"}' % number
        requests += POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    response = start_server().raw(requests + HEALTH)
    outputs = [part.split(b'"', 1)[0] for part in response.split(b'"stdout":"')[1:]]
    assert outputs == [str(number).encode() for number in range(200)]


def test_half_open_connections_do_not_keep_others_out(start_server):
    server = start_server(Settings(connection_limit=60, execution_slots=4, spare_threads=2))
    held = [server.connect() for _ in range(200)]
    try:
        for connection in held:
            try:
                connection.sendall(b"POST /v1/exec HTTP/1.1\r\nX")
            except ConnectionError:
                pass  # already shown out
        begin = time.monotonic()
        assert server.request("GET", "/v1/health").status == 200
        assert time.monotonic() - begin < 1
    finally:
        for connection in held:
            connection.close()


def test_a_running_request_is_never_shown_out(start_server, recorder):
    recorder.answer = gate = Gate()
    server = start_server(Settings(connection_limit=20, execution_slots=4, spare_threads=2))
    with server.connect() as running:
        running.sendall(GOOD.replace(b"Host: x", b"Connection: close"))
        assert gate.entered.acquire(timeout=10)
        held = [server.connect() for _ in range(60)]
        assert server.request("GET", "/v1/health").status == 200
        gate.opened.set()
        assert status_of(read_all(running)) == 200
        for connection in held:
            connection.close()


@pytest.mark.parametrize("begin", [b"POST /v1/exec HTTP/1.1\r\n", POST + b"Content-Length: 1000\r\n\r\n"])
def test_a_request_that_trickles_in_is_cut_off_after_its_time(start_server, begin):
    server = start_server(Settings(receive_seconds=0.5, execution_slots=2))
    with server.connect() as connection:
        connection.sendall(begin)
        end = time.monotonic() + 15
        while not select.select([connection], [], [], 0.05)[0]:
            assert time.monotonic() < end
            connection.sendall(b"X")


def test_an_idle_connection_is_closed_after_its_time(start_server):
    server = start_server(Settings(idle_seconds=1, execution_slots=2))
    with server.connect() as connection:
        assert closed_by_server(connection, 10)


def test_a_client_that_leaves_has_its_execution_cancelled(start_server, recorder):
    recorder.answer = gate = Gate()
    server = start_server()
    with server.connect() as connection:
        connection.sendall(GOOD)
        assert gate.entered.acquire(timeout=10)
    assert gate.cancelled.wait(1)


def test_a_client_that_pipelines_and_leaves_has_its_execution_cancelled(start_server, recorder):
    recorder.answer = gate = Gate()
    server = start_server()
    with server.connect() as connection:
        connection.sendall(GOOD * 3)
        assert gate.entered.acquire(timeout=10)
    assert gate.cancelled.wait(1)


def test_a_client_that_leaves_has_its_batch_cancelled(start_server, recorder):
    recorder.answer = gate = Gate()
    server = start_server(Settings(batch_threads=2, execution_slots=2))
    body = json.dumps({"executions": [{"code": "x"}] * 50}).encode()
    with server.connect() as connection:
        connection.sendall(
            POST.replace(b"/v1/exec", b"/v1/exec/batch") + b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        assert gate.entered.acquire(timeout=10)
    assert gate.cancelled.wait(1)
    wait_until(lambda: b"pyvmm_batch_executions_waiting 0.0" in server.request("GET", "/v1/metrics").body)
    assert len(recorder.requests) < 10


def test_clients_that_do_not_read_hold_no_thread(start_server, recorder):
    recorder.answer = lambda request: result(stdout=b"\x00" * 1_000_000)
    server = start_server(Settings(execution_slots=1, batch_slots=0, spare_threads=1))
    silent = [server.connect() for _ in range(4)]
    for number, connection in enumerate(silent, 1):
        connection.sendall(GOOD)
        wait_until(lambda number=number: len(recorder.requests) == number and recorder.forks == 0)
    assert server.request("GET", "/v1/health").status == 200
    assert server.request("POST", "/v1/exec", BODY).status == 200
    for connection in silent:
        connection.close()


def test_serves_on_with_more_than_a_thousand_descriptors_open(start_server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2048:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        server = start_server()
        assert server.request("POST", "/v1/exec", {"code": "x"}).status == 200
    finally:
        for descriptor in held:
            os.close(descriptor)


# Load


def test_health_and_metrics_answer_while_every_slot_is_taken_and_the_next_execution_is_503(start_server, recorder):
    recorder.answer = gate = Gate()
    server = start_server(Settings(execution_slots=3, batch_slots=1, spare_threads=1))
    with ThreadPoolExecutor(4) as clients:
        running = [clients.submit(server.request, "POST", "/v1/exec", {"code": "x"}) for _ in range(3)]
        running.append(clients.submit(server.request, "POST", "/v1/exec/batch", {"executions": [{"code": "x"}]}))
        for _ in range(4):
            assert gate.entered.acquire(timeout=10)
        begin = time.monotonic()
        assert server.request("GET", "/v1/health").status == 200
        assert b"pyvmm_executions_in_flight 4.0" in server.request("GET", "/v1/metrics").body
        refused = server.request("POST", "/v1/exec", {"code": "x"})
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert server.request("POST", "/v1/exec/batch", {"executions": [{"code": "x"}]}).status == 503
        assert time.monotonic() - begin < 1
        gate.opened.set()
        assert [reply.result().status for reply in running] == [200] * 4


def test_a_hundred_parallel_requests_each_get_their_own_answer(start_server):
    server = start_server(Settings(execution_slots=100))
    codes = [f"nonce-{number}" for number in range(1000)]
    with ThreadPoolExecutor(100) as clients:
        replies = list(clients.map(lambda code: server.request("POST", "/v1/exec", {"code": code}), codes))
    assert [reply.json.get("stdout") for reply in replies] == codes


# The end


def test_running_requests_finish_during_the_drain_and_new_ones_are_503(start_server, recorder):
    recorder.answer = gate = Gate()
    server = start_server()
    with ThreadPoolExecutor(5) as clients:
        running = [clients.submit(server.request, "POST", "/v1/exec", {"code": "x"}) for _ in range(5)]
        for _ in range(5):
            assert gate.entered.acquire(timeout=10)
        server.server.stop()
        late = server.request("POST", "/v1/exec", {"code": "x"})
        assert (late.status, late.headers["Retry-After"]) == (503, "5")
        assert server.request("GET", "/v1/health").status == 503
        gate.opened.set()
        assert [reply.result().status for reply in running] == [200] * 5
    server.thread.join(5)
    assert not server.thread.is_alive()


def test_what_still_runs_at_the_deadline_is_stopped_and_answered(start_server, recorder):
    recorder.answer = gate = Gate()
    server = start_server(Settings(drain_seconds=0.2, execution_slots=4))
    with ThreadPoolExecutor(2) as clients:
        single = clients.submit(server.request, "POST", "/v1/exec", {"code": "x"})
        batch = clients.submit(server.request, "POST", "/v1/exec/batch", {"executions": [{"code": "x"}] * 3})
        for _ in range(4):
            assert gate.entered.acquire(timeout=10)
        server.server.stop()
        assert (single.result().status, batch.result().status) == (503, 503)
    server.thread.join(5)
    assert not server.thread.is_alive()


def test_a_pool_that_does_not_stop_does_not_keep_the_server(start_server, recorder):
    stuck = threading.Event()
    entered = threading.Event()

    def hang(request):
        entered.set()
        stuck.wait(60)
        return result()

    recorder.answer = hang
    server = start_server(Settings(drain_seconds=0, execution_slots=2))
    with server.connect() as connection:
        connection.sendall(GOOD)
        assert entered.wait(10)
        server.stop()
        assert not server.thread.is_alive()
        stuck.set()


def test_a_port_that_is_taken_is_named_with_the_option(start_server):
    port = start_server().port
    with pytest.raises(HostError, match=rf"127\.0\.0\.1:{port}.*--port"):
        listen("127.0.0.1", port)


@pytest.mark.parametrize(("host", "port"), [("a..b", 0), ("127.0.0.1", 70000), ("127.0.0.1", -1), ("192.0.2.1", 0)])
def test_an_address_that_cannot_be_listened_on_is_named(host, port):
    with pytest.raises(HostError, match="cannot listen on"):
        listen(host, port)


def test_ipv6_addresses_work(start_server):
    try:
        with listen("::1", 0) as listener:
            assert listener.family is socket.AF_INET6
    except HostError:
        pytest.skip("this machine has no IPv6")
