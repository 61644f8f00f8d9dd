"""Wrong request bodies: always 400, 413 or 415, always JSON, and nothing is run."""

import json

import falcon
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyvmm.api.settings import Settings

DEEP = 100_000


def post(client, body, content_type=falcon.MEDIA_JSON, path="/v1/exec"):
    return client.simulate_post(path, body=body, content_type=content_type)


def assert_refused(reply, status, recorder, *words):
    assert reply.status_code == status
    assert set(reply.json) == {"error", "request_id"}
    assert all(word in reply.json["error"] for word in words), reply.json["error"]
    assert recorder.requests == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nope",
        b"null",
        b"3",
        b'"x"',
        b"[1, 2]",
        b"[]",
        b"\xff\xfe",
        b'{"code": "\xff"}',
        b'{"code": "x", "other": "\xff"}',
        b'\xef\xbb\xbf{"code": "x"}',
        b'{"code": "x"} {"code": "y"}',
        b'{"code": "\\ud800"}',
        b'{"code": "\\udc00\\ud800"}',
        b'{"code": "\xed\xa0\x80"}',
        b'{"code": "a\nb"}',
        b'{"code": "x", "other": NaN}',
        b'{"code": "x", "other": -Infinity}',
        b"[" * DEEP,
        b'{"a":' * DEEP,
        b'{"code": "x", "other": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_body_that_is_not_a_json_object_is_refused(client, recorder, body):
    assert_refused(post(client, body), 400, recorder)


@pytest.mark.parametrize("value", ["0", "-1", "301", "1e9", "1e-9", "1e2", "30.0", "NaN", "1e999", "true", "null"])
@pytest.mark.parametrize("rest", ["", ', "more": 1'])
def test_a_timeout_that_is_no_integer_from_1_to_300_is_refused(client, recorder, value, rest):
    reply = post(client, f'{{"code": "x", "timeout_seconds": {value}{rest}}}')
    assert_refused(reply, 400, recorder)
    assert value == "NaN" or "timeout_seconds" in reply.json["error"]


@pytest.mark.parametrize("value", [2**31, 2**63, 2**64, -(2**63) - 1, 10**4000, "5", [], {}])
def test_huge_and_quoted_timeouts_are_refused(client, recorder, value):
    assert_refused(post(client, json.dumps({"code": "x", "timeout_seconds": value})), 400, recorder, "timeout_seconds")


@pytest.mark.parametrize("field", ["code", "language"])
@pytest.mark.parametrize("value", [None, 1, True, [], {}, ["x"]])
def test_a_field_of_another_type_is_named(client, recorder, field, value):
    assert_refused(post(client, json.dumps({"code": "x"} | {field: value})), 400, recorder, field)


def test_a_missing_code_is_named(client, recorder):
    assert_refused(post(client, b"{}"), 400, recorder, "code")


@pytest.mark.parametrize("language", ["", "ruby", "Python", "python ", "../python", "\x1b[2J", "p" * 100_000])
def test_an_unknown_language_is_refused_without_being_repeated(client, recorder, language):
    reply = post(client, json.dumps({"code": "x", "language": language}))
    assert_refused(reply, 400, recorder, "language", "unknown", "python")
    assert len(reply.content) < 500


def test_a_known_language_without_a_template_is_refused(client, recorder):
    reply = post(client, json.dumps({"code": "x", "language": "javascript"}))
    assert_refused(reply, 400, recorder, "language", "not configured")


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-7",
        "application/json; charset=latin-1",
        "application/jsonp",
        "; charset=utf-8",
        "application/json, text/plain",
    ],
)
def test_other_content_types_are_refused(client, recorder, content_type):
    assert_refused(post(client, b'{"code": "x"}', content_type), 415, recorder)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_in_utf8_is_accepted_however_it_is_spelt(client, content_type):
    assert post(client, b'{"code": "x"}', content_type).status_code == 200


def test_a_compressed_body_is_refused(client, recorder):
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert_refused(client.simulate_post("/v1/exec", body=b"x", headers=headers), 415, recorder)


def test_a_body_at_the_limit_is_accepted_and_one_byte_more_is_not(make_client, recorder):
    client = make_client(Settings(body_limit=100))
    body = json.dumps({"code": "x" * 87}).encode()
    assert len(body) == 99
    assert post(client, body + b" ").status_code == 200
    recorder.requests.clear()
    assert_refused(post(client, body + b"  "), 413, recorder)


def test_the_limit_is_two_mebibytes_by_default(client, recorder):
    body = json.dumps({"code": "x" * (2 * 1024 * 1024)}).encode()
    assert_refused(post(client, body), 413, recorder)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "code": json_values,
        "language": st.sampled_from(["python", "node"]) | json_values,
        "timeout_seconds": st.integers(-1, 400) | json_values,
        "executions": st.lists(st.fixed_dictionaries({"code": st.text()}) | json_values, max_size=3) | json_values,
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies | json_values, path=st.sampled_from(["/v1/exec", "/exec", "/v1/exec/batch"]))
def test_no_json_value_makes_the_server_fail(client, body, path):
    reply = post(client, json.dumps(body), path=path)
    assert reply.status_code in (200, 400)
    assert isinstance(reply.json, dict)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(), content_type=st.just("application/json") | st.text(st.characters(codec="ascii")))
def test_no_bytes_make_the_server_fail(client, body, content_type):
    reply = post(client, body, content_type)
    assert reply.status_code in (400, 415)
    assert set(reply.json) == {"error", "request_id"}
