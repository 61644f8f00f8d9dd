"""``pyvmm template list|inspect|rm`` on a cache with templates that hold little."""

import json
from pathlib import Path

import pytest

from pyvmm.image import ImageWriter
from pyvmm.template.cache import TemplateCache

from .conftest import Invoker


@pytest.fixture
def cache(invoke: Invoker, tmp_path: Path) -> TemplateCache:
    cache = TemplateCache(tmp_path / "cache")
    for key in ("aaaa1111", "bbbb2222"):
        with cache.build("demo", key) as folder:
            assert folder is not None
            manifest = {"format": 1, "packages": [{"name": "numpy", "version": "2"}], "warm": ["json", "re"]}
            (folder / "manifest.json").write_text(json.dumps(manifest))
            with ImageWriter(folder / "image") as writer:
                writer.file("/etc/hosts", b"127.0.0.1 localhost\n")
                writer.symlink("/bin", "usr/bin")
                writer.finish()
    return cache


@pytest.mark.usefixtures("cache")
def test_list(invoke: Invoker) -> None:
    lines = invoke("template", "list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "KEY", "SIZE", "BUILT"]
    assert sorted(line.split()[:2] for line in lines[1:]) == [["demo", "aaaa1111"], ["demo", "bbbb2222"]]
    entries = json.loads(invoke("template", "list", "--json").stdout)
    assert {entry["key"] for entry in entries} == {"aaaa1111", "bbbb2222"}


def test_list_nothing(invoke: Invoker) -> None:
    answer = invoke("template", "list")
    assert (answer.exit_code, answer.stdout) == (0, "")
    assert "pyvmm template build python" in answer.stderr


@pytest.mark.usefixtures("cache")
def test_inspect(invoke: Invoker) -> None:
    text = invoke("template", "inspect", "demo").stdout
    assert "numpy 2" in text
    assert "warm: json, re" in text
    assert json.loads(invoke("template", "inspect", "demo", "--json").stdout)["manifest"]["format"] == 1


@pytest.mark.usefixtures("cache")
def test_inspect_files(invoke: Invoker) -> None:
    lines = invoke("template", "inspect", "demo", "--files").stdout.splitlines()
    assert "-rw-r--r--         20 /etc/hosts" in lines
    assert "lrwxrwxrwx          7 /bin -> usr/bin" in lines


def test_rm(invoke: Invoker, cache: TemplateCache) -> None:
    newest = cache.latest("demo").key
    assert invoke("template", "rm", "demo", "--old").exit_code == 0
    assert [entry.key for entry in cache.entries()] == [newest]
    assert "removed 0" in invoke("template", "rm", "demo", "--key", "cccc").stdout
    assert "removed 1 of demo" in invoke("template", "rm", "demo").stdout
    assert cache.entries() == []


def test_what_is_not_there(invoke: Invoker) -> None:
    for command in ("inspect", "rm"):
        answer = invoke("template", command, "demo")
        assert answer.exit_code == 125
        assert answer.stderr.startswith("pyvmm: no template named 'demo'")
