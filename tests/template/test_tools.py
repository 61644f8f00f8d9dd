"""Programs of this host for an image: which are found, and which may be missing."""

import os
from pathlib import Path

import pytest

from pyvmm.errors import TemplateError
from pyvmm.image import Image
from pyvmm.template.cache import TemplateCache
from pyvmm.template.recipe import parse_recipe
from pyvmm.template.tools import find_tools, tools_identity
from pyvmm.template.userland import build_image


def program(folder: Path, name: str, text: str = "#!/bin/sh\necho x\n") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_the_usual_tools_are_found() -> None:
    found = find_tools(["@usual"])
    assert {"sh", "ls", "awk", "[", "xargs"} <= set(found)
    assert all(place.is_absolute() and not place.is_symlink() for place in found.values())


def test_all_that_are_missing_are_named() -> None:
    with pytest.raises(TemplateError, match="this host has no no-such-1, no-such-2, which the recipe asks for"):
        find_tools(["no-such-1", "sh", "no-such-2"])


def test_what_may_be_missing(path: Path) -> None:
    program(path, "there")
    assert set(find_tools(["no-such?", "there?"])) == {"there"}


def test_the_system_comes_before_the_users_path(path: Path) -> None:
    program(path, "ls")
    assert find_tools(["ls"])["ls"].parent != path


def test_a_script_for_another_program_than_sh_is_no_tool(path: Path) -> None:
    program(path, "snake", "#!/usr/bin/env python3\n")
    with pytest.raises(TemplateError, match="snake"):
        find_tools(["snake"])
    assert find_tools(["snake?"]) == {}


def test_another_version_is_another_identity(path: Path) -> None:
    before = tools_identity(["mine?", "sh"])
    place = program(path, "mine")
    first = tools_identity(["mine?", "sh"])
    place.write_text("#!/bin/sh\nsomething else\n")
    assert len({tuple(before), tuple(first), tuple(tools_identity(["mine?", "sh"]))}) == 3


def test_tools_in_an_image(path: Path, tmp_path: Path) -> None:
    real = program(path, "real-name")
    for name in ("alias", "other"):
        (path / name).symlink_to(real)
    recipe = parse_recipe("r", b'runtime = "bash"\ntools = ["alias", "other", "real-name", "no-such?", "ls"]\n', "r")
    build_image(recipe, tmp_path / "image", lambda text: None, TemplateCache(tmp_path / "cache"))
    with Image.open(tmp_path / "image") as image:
        inodes = dict(image.walk())
        assert image.read(inodes["/usr/bin/real-name"], 0, 99) == real.read_bytes()
        assert [inodes[f"/usr/bin/{name}"].target for name in ("alias", "other")] == [b"real-name"] * 2
        assert inodes["/bin"].target == b"usr/bin"
        assert {"/usr/bin/bash", "/usr/bin/ls"} <= set(inodes)
        assert {path.rpartition("/")[2] for path in inodes if path.startswith("/usr/bin/")} == {
            "alias", "bash", "ls", "other", "real-name",
        }  # fmt: skip
        libraries = [path for path in inodes if path.startswith("/lib") and ".so" in path]
    assert any("libc.so.6" in path for path in libraries)
    assert not any("libpython" in path or "libssl" in path for path in libraries)
