"""``serve`` as a process: configuration, signals, exit status; and the examples of the documentation."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.api.running import Reply, wait_until

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys, time
from dataclasses import replace
from pyvmm.api import Settings, serve
from pyvmm.errors import PyvmmError
from tests.api.doubles import RecordingPool, echo, result

def answer(request):
    while request.code == "wait" and not request.cancelled():
        time.sleep(0.01)
    return result(status="crashed") if request.code == "wait" else echo(request)

pool = RecordingPool("python", "node")
pool.answer = answer
try:
    serve(pool, "127.0.0.1", int(sys.argv[1]), Settings(drain_seconds=float(sys.argv[2])))
except PyvmmError as error:
    sys.exit(f"pyvmm: {error}")
"""


class Process:
    """A running ``serve``, in a directory of its own."""

    def __init__(self, directory, port=0, drain_seconds=30.0, **environ):
        command = [sys.executable, "-c", PROGRAM, str(port), str(drain_seconds)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ZEROBOOT")}
        self.popen = subprocess.Popen(
            command,
            cwd=directory,
            env=clean | {"PYTHONPATH": str(ROOT)} | environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self.url = None

    def until_listening(self):
        """Read the log until the server says where it listens."""
        for line in self.popen.stderr:
            self.lines.append(json.loads(line))
            found = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)", self.lines[-1]["event"])
            if found:
                self.url = found[1]
                return self
        raise AssertionError(self.lines)

    def post(self, body):
        """Send code to run; the connection, to read the response from when it is wanted."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=20)
        connection.request("POST", "/v1/exec", json.dumps(body), {"Content-Type": "application/json"})
        return connection

    def end(self):
        """The exit status and the rest of the log."""
        _, rest = self.popen.communicate(timeout=20)
        return self.popen.returncode, rest


@pytest.fixture
def run(tmp_path):
    processes = []

    def start(**settings):
        processes.append(Process(tmp_path, **settings))
        return processes[-1]

    yield start
    for process in processes:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.communicate()
        process.popen.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_with_status_0(run, number):
    process = run().until_listening()
    process.popen.send_signal(number)
    status, rest = process.end()
    assert status == 0
    assert json.loads(rest.splitlines()[-1])["event"] == "stopped"


def test_a_second_signal_ends_the_drain_and_the_client_is_told(run):
    process = run().until_listening()
    connection = process.post({"code": "wait"})
    wait_until(lambda: "pyvmm_executions_in_flight 1.0" in metrics_of(process))
    process.popen.send_signal(signal.SIGTERM)
    wait_until(lambda: refuses(process))
    process.popen.send_signal(signal.SIGTERM)
    reply = Reply(connection.getresponse())
    connection.close()
    assert (reply.status, set(reply.json)) == (503, {"error", "request_id"})
    assert process.end()[0] == 0


def metrics_of(process):
    with urllib.request.urlopen(process.url + "/v1/metrics", timeout=10) as response:
        return response.read().decode()


def refuses(process):
    connection = process.post({"code": "x"})
    status = connection.getresponse().status
    connection.close()
    return status == 503


def test_without_a_key_file_the_log_says_that_authentication_is_off(run):
    process = run().until_listening()
    assert any("authentication is off" in line["event"] for line in process.lines)


def test_with_a_key_file_requests_need_a_key(run, tmp_path):
    (tmp_path / "api_keys.json").write_text('["key"]')
    process = run().until_listening()
    connection = process.post({"code": "x"})
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize("content", ["", "[]", '[""]', "not json"])
def test_a_key_file_that_cannot_be_used_stops_the_start_with_one_line(run, tmp_path, content):
    (tmp_path / "api_keys.json").write_text(content)
    status, said = run().end()
    assert status == 1
    assert re.fullmatch(r"pyvmm: API keys: .*api_keys\.json.*\n", said)


def test_a_named_key_file_that_is_missing_stops_the_start(run):
    status, said = run(ZEROBOOT_API_KEYS_FILE="missing.json").end()
    assert status == 1
    assert "missing.json" in said
    assert "does not exist" in said


def test_a_port_that_is_taken_stops_the_start_with_one_line(run):
    port = int(run().until_listening().url.rpartition(":")[2])
    status, said = run(port=port).end()
    assert status == 1
    assert re.fullmatch(rf"pyvmm: cannot listen on 127\.0\.0\.1:{port}: .*--port.*\n", said)


def examples():
    text = (ROOT / "docs" / "http-api.md").read_text()
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def test_the_documentation_has_examples():
    assert len(examples()) >= 4


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("example", examples(), ids=lambda example: example.split("\n")[0][:60])
def test_the_examples_of_the_documentation_work(run, tmp_path, example):
    (tmp_path / "api_keys.json").write_text('["KEY"]')
    process = run().until_listening()
    script = example.replace("http://127.0.0.1:8080", process.url).replace(
        "curl ", "curl --fail --silent --show-error "
    )
    done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
