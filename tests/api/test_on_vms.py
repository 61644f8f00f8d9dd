"""The contract on real virtual machines: what only a pool that forks can show."""

import threading
import time

import pytest
from falcon import testing
from pyvmm.api.app import create_app
from pyvmm.api.settings import Settings

pytestmark = pytest.mark.kvm


@pytest.fixture
def vms(pool):
    app = create_app(pool, Settings())
    yield testing.TestClient(app)
    app.close()


def run(client, code, **fields):
    reply = client.simulate_post("/v1/exec", json={"code": code} | fields)
    assert reply.status_code == 200, reply.text
    return reply.json


def test_output_comes_back_exactly_as_written(vms):
    answer = run(vms, "import sys; print(1 + 1); sys.stdout.write('  no newline'); sys.stderr.write('warn')")
    assert (answer["stdout"], answer["stderr"]) == ("2\n  no newline", "warn")
    assert (answer["exit_code"], answer["status"]) == (0, "ok")


def test_bytes_that_are_not_utf8_are_replaced(vms):
    answer = run(vms, "import os; os.write(1, bytes(range(256)))")
    assert answer["stdout"] == bytes(range(256)).decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("code", "expected"), [("import sys; sys.exit(7)", 7), ("raise SystemExit('no')", 1), ("1/0", 1)]
)
def test_the_exit_code_is_the_programs(vms, code, expected):
    answer = run(vms, code)
    assert (answer["exit_code"], answer["status"]) == (expected, "error")


def test_a_traceback_is_on_stderr(vms):
    answer = run(vms, "1/0")
    assert answer["stderr"].endswith("ZeroDivisionError: division by zero\n")
    assert answer["stdout"] == ""


def test_a_timeout_keeps_the_output_and_says_so(vms):
    begin = time.monotonic()
    answer = run(vms, "print('so far', flush=True)\nwhile True: pass", timeout_seconds=1)
    assert time.monotonic() - begin < 2
    assert answer["stdout"] == "so far\n"
    assert (answer["exit_code"], answer["status"]) == (-1, "timeout")
    assert answer["stderr"].endswith("Execution timed out after 1s")


def test_the_times_are_measured(vms):
    answer = run(vms, "import time; time.sleep(0.2)")
    assert answer["fork_time_ms"] > 0
    assert answer["exec_time_ms"] >= 200
    assert answer["total_time_ms"] >= answer["fork_time_ms"] + answer["exec_time_ms"]


def test_endless_output_is_cut_and_marked(vms):
    answer = run(vms, "while True: print('x' * 1000)", timeout_seconds=20)
    assert (answer["status"], answer["stdout_truncated"]) == ("output_limit", True)
    assert len(answer["stdout"]) <= 1024 * 1024


def test_nothing_is_left_for_the_next_run(vms):
    run(vms, "open('/tmp/left', 'w').write('x'); import builtins; builtins.left = 1")
    answer = run(vms, "import os, builtins; print(os.path.exists('/tmp/left'), hasattr(builtins, 'left'))")
    assert answer["stdout"] == "False False\n"


def test_two_runs_see_different_random_numbers(vms):
    code = "import random, os, uuid; print(random.random(), os.urandom(8).hex(), uuid.uuid4())"
    assert run(vms, code)["stdout"] != run(vms, code)["stdout"]


def test_a_batch_runs_side_by_side_in_order_and_failures_stay_alone(vms):
    codes = ["print('a')", "1/0", "while True: pass", "print('d')"]
    body = {"executions": [{"code": code, "timeout_seconds": 1} for code in codes]}
    results = vms.simulate_post("/v1/exec/batch", json=body).json["results"]
    assert [answer["status"] for answer in results] == ["ok", "error", "timeout", "ok"]
    assert (results[0]["stdout"], results[3]["stdout"]) == ("a\n", "d\n")


def test_parallel_requests_get_their_own_answers(vms):
    answers = {}

    def ask(number):
        answers[number] = run(vms, f"print({number} * 7)")["stdout"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {number: f"{number * 7}\n" for number in range(16)}


def test_a_client_that_leaves_frees_its_vm(start_server, pool):
    server = start_server(over=pool)
    idle = pool.live_forks()
    body = b'{"code": "while True: pass", "timeout_seconds": 60}'
    head = b"POST /v1/exec HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with server.connect() as connection:
        connection.sendall(head % len(body) + body)
        wait_for(lambda: server.app.metrics.in_flight._value.get() == 1)
    wait_for(lambda: server.app.metrics.in_flight._value.get() == 0 and pool.live_forks() <= idle, seconds=2)


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_health_names_the_template(vms):
    reply = vms.simulate_get("/v1/health")
    assert reply.json["templates"]["python"]["ready"] is True
    assert reply.json["templates"]["python"]["memory_mb"] > 0
