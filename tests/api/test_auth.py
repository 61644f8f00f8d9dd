"""API keys: the file, and the header."""

import json
import os

import pytest
from pyvmm.api.auth import DEFAULT_FILE, VARIABLE, KeyRing, load_keys
from pyvmm.api.errors import SettingsError
from pyvmm.api.settings import Settings

KEY = "zb_live_0123456789"
ENDPOINTS = [("POST", "/v1/exec"), ("POST", "/exec"), ("POST", "/v1/exec/batch"), ("GET", "/v1/exec"), ("GET", "/x")]


@pytest.fixture
def guarded(make_client):
    return make_client(Settings(keys=KeyRing([KEY, "another"])))


def exec_with(client, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    return client.simulate_post("/v1/exec", json={"code": "x"}, headers=headers)


@pytest.mark.parametrize(
    "header",
    [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER {KEY}", f"Bearer   {KEY}", f"Bearer {KEY} \t", "Bearer another"],
)
def test_a_valid_key_is_let_in(guarded, header):
    assert exec_with(guarded, header).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        KEY,
        "Bearer wrong",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY}x",
        f"Bearer {KEY}, Bearer {KEY}",
        f"Bearer\t{KEY}",
        f"Bearer \t{KEY}",
        f'Bearer "{KEY}"',
        f"Bearer \xef\xbb\xbf{KEY}",
        f"Bearer {KEY}\xe9",
        "Bearer \u20ac",
        f"Basic {KEY}",
        f"Token {KEY}",
        f"Bearer {KEY.upper()}",
        "Bearer " + "x" * 60_000,
    ],
)
def test_everything_else_is_401_with_the_same_words_and_runs_nothing(guarded, recorder, header):
    reply = exec_with(guarded, header)
    assert reply.status_code == 401
    assert reply.json["error"] == exec_with(guarded, None).json["error"]
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert recorder.requests == []


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_every_path_but_health_and_metrics_asks_for_a_key_first(guarded, method, path):
    assert guarded.simulate_request(method, path, body="not json").status_code == 401


@pytest.mark.parametrize("path", ["/v1/health", "/health", "/v1/metrics"])
def test_health_and_metrics_need_no_key(guarded, path):
    assert guarded.simulate_get(path).status_code == 200


def test_a_valid_key_sees_404_for_an_unknown_path(guarded):
    assert guarded.simulate_get("/x", headers={"Authorization": f"Bearer {KEY}"}).status_code == 404


def test_without_a_key_ring_anybody_is_let_in(client):
    assert exec_with(client, None).status_code == 200


def test_a_key_ring_does_not_show_its_keys(guarded):
    assert KEY not in repr(KeyRing([KEY]))
    assert KEY not in repr(Settings(keys=KeyRing([KEY])))


def test_the_default_file_is_read_from_the_directory(tmp_path):
    (tmp_path / DEFAULT_FILE).write_text(json.dumps([KEY]))
    keys = load_keys({}, tmp_path)
    assert keys.identify(f"Bearer {KEY}")


def test_no_default_file_means_no_authentication(tmp_path):
    assert load_keys({}, tmp_path) is None


def test_a_named_file_is_used_instead_of_the_default_one(tmp_path):
    (tmp_path / DEFAULT_FILE).write_text('["default"]')
    (tmp_path / "other.json").write_text(json.dumps([KEY]))
    keys = load_keys({VARIABLE: str(tmp_path / "other.json")}, tmp_path)
    assert keys.identify(f"Bearer {KEY}")
    assert not keys.identify("Bearer default")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"[]",
        b'[""]',
        b'["good", ""]',
        b'["good", " padded "]',
        b'["tab\\t"]',
        b'["\xc3\xa9"]',
        b'["a\\nb"]',
        b'["a", 5]',
        b"[null]",
        b'"key"',
        b'{"key": true}',
        b"null",
        b'["key"',
        b'["key"] x',
        b'\xef\xbb\xbf["key"]',
        b'["\xff"]',
        b'["\\ud800"]',
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content[:16]),
)
def test_a_file_that_is_no_list_of_keys_stops_the_start(tmp_path, content):
    (tmp_path / DEFAULT_FILE).write_bytes(content)
    with pytest.raises(SettingsError, match=DEFAULT_FILE):
        load_keys({}, tmp_path)


def test_the_reason_does_not_show_a_key(tmp_path):
    (tmp_path / DEFAULT_FILE).write_text(f'["{KEY}", ""]')
    with pytest.raises(SettingsError) as caught:
        load_keys({}, tmp_path)
    assert KEY not in str(caught.value)


def test_a_named_file_that_does_not_exist_stops_the_start(tmp_path):
    with pytest.raises(SettingsError, match="does not exist"):
        load_keys({VARIABLE: "missing.json"}, tmp_path)


def test_an_empty_name_stops_the_start(tmp_path):
    with pytest.raises(SettingsError, match=VARIABLE):
        load_keys({VARIABLE: ""}, tmp_path)


def test_a_directory_in_place_of_the_file_stops_the_start(tmp_path):
    (tmp_path / DEFAULT_FILE).mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        load_keys({}, tmp_path)


def test_a_dangling_link_in_place_of_the_file_stops_the_start(tmp_path):
    (tmp_path / DEFAULT_FILE).symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingsError, match="does not exist"):
        load_keys({}, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_stops_the_start(tmp_path):
    (tmp_path / DEFAULT_FILE).write_text('["key"]')
    (tmp_path / DEFAULT_FILE).chmod(0)
    with pytest.raises(SettingsError, match="cannot be read"):
        load_keys({}, tmp_path)
