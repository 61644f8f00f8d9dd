"""POST /v1/exec: what comes in, what comes out."""

import uuid

import falcon
import pytest

from tests.api.doubles import result


def test_answers_with_the_output_and_all_promised_fields(client, recorder):
    recorder.answer = lambda request: result(stdout=b"2\n", stderr=b"w", exit_code=3, status="error")
    reply = client.simulate_post("/v1/exec", json={"code": "print(1 + 1)"})
    assert reply.status_code == 200
    answer = reply.json
    assert uuid.UUID(answer.pop("id")).version == 7
    assert answer == {
        "stdout": "2\n",
        "stderr": "w",
        "exit_code": 3,
        "fork_time_ms": 0.5,
        "exec_time_ms": 4.0,
        "total_time_ms": 5.0,
        "status": "error",
        "stdout_truncated": False,
        "stderr_truncated": False,
    }


def test_defaults_are_python_and_thirty_seconds(client, recorder):
    client.simulate_post("/v1/exec", json={"code": "x"})
    assert (recorder.requests[0].language, recorder.requests[0].timeout_seconds) == ("python", 30)


def test_passes_code_language_and_timeout_on_unchanged(make_client, recorder):
    recorder.statuses["node"] = recorder.statuses["python"]
    code = "\ufeff a\r\n\x00\N{PILE OF POO}"
    make_client().simulate_post("/exec", json={"code": code, "language": "node", "timeout_seconds": 300})
    request = recorder.requests[0]
    assert (request.code, request.language, request.timeout_seconds) == (code, "node", 300)


def test_javascript_is_another_name_of_node(make_client, recorder):
    recorder.statuses["node"] = recorder.statuses["python"]
    make_client().simulate_post("/v1/exec", json={"code": "x", "language": "javascript"})
    assert recorder.requests[0].language == "node"


@pytest.mark.parametrize(("language", "what"), [("node", "is not configured on this server"), ("perl", "is unknown")])
def test_a_language_without_a_template_is_400_and_the_others_are_named(client, recorder, language, what):
    recorder.statuses["bash"] = recorder.statuses["python"]
    reply = client.simulate_post("/v1/exec", json={"code": "x", "language": language})
    assert reply.status_code == 400
    assert reply.json["error"] == f"Field `language`: the language {what}; there are: bash, python."
    assert recorder.requests == []


@pytest.mark.parametrize("body", ['{"code": "x", "z": [1, {"y": null}]}', '{"code": "old", "code": "x"}'])
def test_ignores_unknown_fields_and_takes_the_last_of_repeated_ones(client, recorder, body):
    reply = client.simulate_post("/v1/exec", body=body, content_type=falcon.MEDIA_JSON)
    assert reply.json["stdout"] == "x"


def test_every_response_has_another_id(client):
    ids = {client.simulate_post("/v1/exec", json={"code": ""}).json["id"] for _ in range(50)}
    assert len(ids) == 50


def test_bytes_that_are_not_utf8_come_back_as_replacement_characters(client, recorder):
    recorder.answer = lambda request: result(stdout=bytes(range(256)))
    text = client.simulate_post("/v1/exec", json={"code": ""}).json["stdout"]
    assert text == bytes(range(128)).decode() + "\ufffd" * 128


def test_a_character_cut_by_the_output_limit_is_left_out(client, recorder):
    recorder.answer = lambda request: result(
        stdout="a€".encode()[:-1], stdout_truncated=True, stderr="€".encode()[:-1], status="output_limit"
    )
    answer = client.simulate_post("/v1/exec", json={"code": ""}).json
    assert (answer["stdout"], answer["stdout_truncated"]) == ("a", True)
    assert (answer["stderr"], answer["stderr_truncated"]) == ("\ufffd", False)


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        (b"", "Execution timed out after 7s"),
        (b"warn\n", "warn\nExecution timed out after 7s"),
        (b"warn", "warn\nExecution timed out after 7s"),
    ],
)
def test_a_timeout_is_told_at_the_end_of_stderr_and_keeps_the_output(client, recorder, stderr, expected):
    recorder.answer = lambda request: result(stdout=b"so far", stderr=stderr, exit_code=-1, status="timeout")
    reply = client.simulate_post("/v1/exec", json={"code": "", "timeout_seconds": 7})
    assert reply.status_code == 200
    answer = reply.json
    assert (answer["stdout"], answer["stderr"]) == ("so far", expected)
    assert (answer["exit_code"], answer["status"]) == (-1, "timeout")


def test_control_characters_in_the_output_are_escaped_in_the_body(client, recorder):
    output = b"\x00\x1b[2J\x1b]52;c;eA==\x07\r"
    recorder.answer = lambda request: result(stdout=output)
    reply = client.simulate_post("/v1/exec", json={"code": ""})
    assert not any(byte < 0x20 for byte in reply.content)
    assert reply.json["stdout"].encode() == output
