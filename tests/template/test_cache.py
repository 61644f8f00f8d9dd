"""The cache: a template is there whole or not at all, whoever builds, whenever they are killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pyvmm.errors import TemplateError, TemplateNotFound
from pyvmm.template.cache import TemplateCache, cache_home, content_key

BUILDER = """
import sys, time
from pathlib import Path
from pyvmm.template.cache import TemplateCache
cache = TemplateCache(Path(sys.argv[1]))
print("waits", flush=True)
with cache.build("demo", "key", waiting=lambda text: print(text, flush=True)) as folder:
    if folder is None:
        print("found", flush=True)
    else:
        (folder / "half").write_bytes(b"x" * 100)
        print("building", flush=True)
        time.sleep(float(sys.argv[2]))
        (folder / "whole").write_bytes(b"y")
print("done", flush=True)
"""


@pytest.fixture
def cache(tmp_path: Path) -> TemplateCache:
    return TemplateCache(tmp_path)


def start_builder(cache: TemplateCache, seconds: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", BUILDER, str(cache.home), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_until(process: "subprocess.Popen[str]", word: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return line.strip()
    raise AssertionError(f"ended without {word!r}")


def leftovers(cache: TemplateCache) -> list[str]:
    return os.listdir(cache.home / "building")


def test_a_build_becomes_a_template(cache: TemplateCache) -> None:
    with cache.build("demo", "k1") as folder:
        assert folder is not None
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_bytes(b"x" * 5000)
        assert cache.find("demo", "k1") is None
    entry = cache.find("demo", "k1")
    assert entry is not None
    assert (entry.name, entry.key, (entry.path / "sub" / "file").stat().st_size) == ("demo", "k1", 5000)
    assert entry.disk_bytes >= 4096
    assert abs(entry.built_at - time.time()) < 60
    assert cache.latest("demo") == entry
    assert cache.entry_path("demo", "k1") == entry.path
    assert leftovers(cache) == []


def test_a_second_build_finds_the_first(cache: TemplateCache) -> None:
    for expected in (True, False):
        with cache.build("demo", "k") as folder:
            assert (folder is not None) is expected


def test_replacing_builds_again(cache: TemplateCache) -> None:
    for content in ("old", "new"):
        with cache.build("demo", "k", replace=True) as folder:
            assert folder is not None
            (folder / "file").write_text(content)
    entry = cache.latest("demo")
    assert (entry.path / "file").read_text() == "new"
    assert leftovers(cache) == []


def test_a_failed_build_leaves_nothing(cache: TemplateCache) -> None:
    with pytest.raises(RuntimeError), cache.build("demo", "k") as folder:
        assert folder is not None
        (folder / "file").write_text("half")
        raise RuntimeError
    assert cache.entries() == []
    assert leftovers(cache) == []


def test_a_failed_replacement_leaves_the_old_one(cache: TemplateCache) -> None:
    with cache.build("demo", "k") as folder:
        assert folder is not None
        (folder / "file").write_text("old")
    with pytest.raises(RuntimeError), cache.build("demo", "k", replace=True):
        raise RuntimeError
    assert (cache.latest("demo").path / "file").read_text() == "old"


def test_a_killed_build_leaves_nothing_that_looks_finished(cache: TemplateCache) -> None:
    process = start_builder(cache, 60)
    read_until(process, "building")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert cache.entries() == []
    assert len(leftovers(cache)) == 1
    with pytest.raises(TemplateNotFound, match="pyvmm template build demo"):
        cache.latest("demo")
    with cache.build("demo", "other") as folder:
        assert leftovers(cache) == [folder.name if folder else None]
    assert [entry.key for entry in cache.entries()] == ["other"]


def test_two_builders_make_one_template(cache: TemplateCache) -> None:
    first = start_builder(cache, 0.5)
    read_until(first, "building")
    second = start_builder(cache, 0)
    assert f"waiting for another build of 'demo' (process {first.pid})" in read_until(second, "waiting")
    read_until(second, "found")
    assert (first.wait(), second.wait()) == (0, 0)
    for process in (first, second):
        process.communicate()
    assert sorted(os.listdir(cache.latest("demo").path)) == ["half", "whole"]


def test_the_next_builder_takes_over_from_a_killed_one(cache: TemplateCache) -> None:
    first = start_builder(cache, 60)
    read_until(first, "building")
    second = start_builder(cache, 0)
    read_until(second, "waiting")
    first.kill()
    read_until(second, "building")
    for process in (first, second):
        process.communicate()
    assert len(cache.entries()) == 1
    assert leftovers(cache) == []


def test_threads_exclude_each_other(cache: TemplateCache) -> None:
    made = []

    def build() -> None:
        with cache.build("demo", "k") as folder:
            if folder is not None:
                time.sleep(0.05)
                made.append(folder)

    threads = [threading.Thread(target=build) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_layers_are_made_once(cache: TemplateCache) -> None:
    for expected in (False, True):
        with cache.layer_folder("packages", "k") as (folder, finished):
            assert finished is expected
            (folder / "file").write_text("x")
    with pytest.raises(RuntimeError), cache.layer_folder("packages", "bad") as (folder, _):
        raise RuntimeError
    assert os.listdir(cache.home / "layers" / "packages") == ["k"]


def test_layer_files_appear_whole(cache: TemplateCache) -> None:
    path = cache.layer_file("bytecode", "k")
    cache.write_file(path, b"one")
    cache.write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert leftovers(cache) == []


def test_listing_and_removing(cache: TemplateCache) -> None:
    for name, key in (("b", "1"), ("a", "1"), ("a", "2")):
        with cache.build(name, key):
            pass
    assert sorted((entry.name, entry.key) for entry in cache.entries()) == [("a", "1"), ("a", "2"), ("b", "1")]
    assert cache.remove("a", "1") == 1
    assert [(entry.name, entry.key) for entry in cache.entries()] == [("a", "2"), ("b", "1")]
    assert (cache.remove("a"), cache.remove("a"), cache.remove("../b")) == (1, 0, 0)
    assert leftovers(cache) == []


def test_odd_names_reach_nothing(cache: TemplateCache) -> None:
    with pytest.raises(TemplateError, match="not a name"), cache.build("../x", "k"):
        pass
    with pytest.raises(TemplateNotFound):
        cache.latest("../x")
    assert cache.find("..", "x") is None


def test_the_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("PYVMM_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_home() == Path("/home/me/.cache/pyvmm")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_home() == Path("/caches/pyvmm")
    monkeypatch.setenv("PYVMM_HOME", "/pyvmm")
    assert cache_home() == Path("/pyvmm")


def test_keys_depend_on_contents_only() -> None:
    assert content_key({"a": 1, "b": b"x"}) == content_key({"b": b"x", "a": 1})
    assert content_key({"a": "1"}) != content_key({"a": 1})
    assert len(content_key({})) == 32
