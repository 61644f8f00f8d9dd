"""Recipes: what is accepted, what is refused and with which words."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvmm.errors import RecipeError
from pyvmm.template.recipe import (
    GuestKind,
    Recipe,
    builtin_recipes,
    builtin_runtimes,
    canonical_language,
    canonical_name,
    language_of,
    load_recipe,
    parse_recipe,
    template_name,
)

_TABLE = "[runtime]\nagent = 'a'\nrehearsal = ''\n"


def test_the_builtin_python_recipe() -> None:
    recipe = load_recipe("python")
    assert recipe.name == "python"
    assert {"numpy", "pandas"} <= set(recipe.packages) & set(recipe.warm)
    assert recipe.env["OPENBLAS_NUM_THREADS"] == "1"
    assert "python" in builtin_recipes()


def test_a_file_gives_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('runtime = "python"\nmemory_mb = 128\n')
    python = load_recipe("python").runtime
    assert load_recipe(path) == load_recipe(str(path)) == Recipe(name="mine", runtime=python, memory_mb=128)


def test_equal_recipes_encode_equally() -> None:
    one = parse_recipe("r", b'runtime = "python"\n[env]\nA = "1"\nB = "2"\n', "r")
    other = parse_recipe("r", b'# a comment\nruntime="python"\nmemory_mb=512\nenv={B="2",A="1"}\n', "r")
    assert one.encode() == other.encode()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "missing required field `runtime`"),
        ("runtime = 'cobol'", "runtime: no language named 'cobol': there are bash, .*python"),
        ("runtime = ", "not TOML"),
        ("runtime = 'python'\nmemory = 1", "unknown field `memory`"),
        ("runtime = 'python'\nname = 'x'", "the file's name is the recipe's name"),
        ("runtime = 'python'\nmemory_mb = 63", r">= 64 - at `\$.memory_mb`"),
        ("runtime = 'python'\nmemory_mb = 1e3", r"Expected `int`"),
        ("runtime = 'python'\npackages = 'numpy'", "Expected `array`"),
        ("runtime = 'python'\npackages = ['--index-url=http://x']", "not a package with an optional version"),
        ("runtime = 'python'\npackages = ['x @ file:///etc']", "not a package with an optional version"),
        ("runtime = 'python'\npackages = ['./here']", "not a package with an optional version"),
        ("runtime = 'python'\npackages = ['a_b', 'A-b>=1']", "'a-b' is named twice"),
        ("runtime = 'python'\nwarm = ['os; print(1)']", "not the name of a module"),
        ("runtime = 'python'\nexclude = ['../x']", "not a pattern below"),
        ("runtime = 'python'\n[env]\n'A=B' = 'x'", "not the name of a variable"),
        ('runtime = "python"\n[env]\nA = "x\\u0000y"', "null character"),
        ("runtime = 'bash'\npackages = ['numpy']", "packages: these are Python's"),
        ("runtime = 'bash'\ntools = ['../ls']", "tools: not the name of a program"),
        ("runtime = 'bash'\ntools = ['-x']", "tools: not the name of a program"),
        ("runtime = 1", r"got `int` - at `\$.runtime`"),
        ("[runtime]\nagent = 'a'", "missing required field"),
        (f"{_TABLE}command = []\nsuffixes = ['.x']", "length >= 1"),
        (f"{_TABLE}command = ['sh']\nsuffixes = ['.x']", "not the absolute path of a program"),
        (f"{_TABLE}command = ['/bin/sh', '{{agnet}}']\nsuffixes = ['.x']", "{agnet} stands for nothing"),
        (f"{_TABLE}command = ['/bin/sh']\nsuffixes = ['x']", "not like '.py'"),
        (f"{_TABLE}command = ['/bin/sh']\nsuffixes = ['.x']\naliases = ['A b']", "not the name of a language"),
        (f"{_TABLE}command = ['/x']\nsuffixes = ['.x']\nfiles = {{'/x' = '../y'}}", "not a path below the folder"),
        (f"{_TABLE}command = ['/x']\nsuffixes = ['.x']\nfiles = {{'x' = 'y'}}", "not a plain absolute path"),
    ],
)
def test_faults_are_named(source: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        parse_recipe("bad", source.encode(), "here/bad.toml")
    assert str(caught.value).startswith("here/bad.toml: ")


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe named 'perl': there are .*python"):
        load_recipe("perl")
    with pytest.raises(RecipeError, match="No such file"):
        load_recipe(tmp_path / "x.toml")
    with pytest.raises(RecipeError, match="a recipe's name is made of"):
        parse_recipe("Näme", b"", "Näme.toml")


@pytest.mark.parametrize(
    "requirement", ["numpy", "numpy==2.0.*", "a.b_c[x, y] >= 1.0, != 1.5", "z~=1.4", "x===1!2.0+local"]
)
def test_ordinary_requirements_are_accepted(requirement: str) -> None:
    source = f'runtime = "python"\npackages = ["{requirement}"]'
    assert parse_recipe("r", source.encode(), "r").packages == (requirement,)


def test_names_are_normalised() -> None:
    assert canonical_name("Foo._-Bar[x]>=1") == "foo-bar"


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_give_another_exception(source: bytes) -> None:
    try:
        parse_recipe("fuzz", source, "fuzz.toml")
    except RecipeError as error:
        assert str(error)


@settings(deadline=None)
@given(st.sampled_from(["packages", "exclude", "warm"]), st.lists(st.text(max_size=12), max_size=4))
def test_any_list_is_a_recipe_or_a_recipe_error(field: str, values: list[str]) -> None:
    quoted = ", ".join('"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"' for value in values)
    try:
        recipe = parse_recipe("fuzz", f'runtime = "python"\n{field} = [{quoted}]'.encode(), "fuzz.toml")
    except RecipeError:
        return
    assert list(getattr(recipe, field)) == values


def test_the_languages_that_come_with_pyvmm() -> None:
    assert {"python", "bash", "sh", "node", "javascript"} <= set(builtin_runtimes())
    for name in builtin_recipes():
        assert load_recipe(name).runtime.agent_source()


@pytest.mark.parametrize(
    ("given", "language"),
    [("javascript", "node"), ("node", "node"), ("sh", "bash"), ("python", "python"), ("mine", "mine"), ("", "")],
)
def test_an_alias_is_another_name_of_a_language(given: str, language: str) -> None:
    assert canonical_language(given) == language


def test_a_template_can_be_asked_for_by_an_alias() -> None:
    assert load_recipe("javascript") == load_recipe("node")


@pytest.mark.parametrize(
    ("script", "language"),
    [
        ("a.py", "python"),
        ("a.b.mjs", "node"),
        ("x.cjs", "node"),
        ("run.sh", "bash"),
        ("Makefile", None),
        ("a.txt", None),
    ],
)
def test_a_suffix_tells_the_language(script: str, language: str | None) -> None:
    assert language_of(script) == language


def test_a_recipe_of_a_language_has_its_tools_and_its_own() -> None:
    recipe = parse_recipe("r", b'runtime = "bash"\ntools = ["git?"]\n', "r")
    assert recipe.all_tools == ("bash", "git?")


def test_a_language_is_named_after_its_recipe_and_its_agent_lies_beside(tmp_path: Path) -> None:
    (tmp_path / "agent.x").write_bytes(b"the agent")
    path = tmp_path / "cobol.toml"
    path.write_text("[runtime]\nagent = 'agent.x'\nrehearsal = ''\ncommand = ['/usr/bin/x']\nsuffixes = ['.cob']\n")
    runtime = load_recipe(path).runtime
    assert (runtime.language, runtime.script, runtime.agent_source()) == ("cobol", "main.cob", b"the agent")
    (tmp_path / "agent.x").unlink()
    with pytest.raises(RecipeError, match=r"cannot read the agent .*agent\.x: No such file"):
        runtime.agent_source()


def test_a_recipe_can_have_linux_as_its_guest() -> None:
    named, asked = load_recipe("python-linux"), load_recipe("python", "linux")
    assert named == asked
    assert (named.name, named.guest, load_recipe("python").guest) == ("python-linux", "linux", "process")
    assert load_recipe("javascript", "linux").name == "node-linux"


def test_a_file_can_say_that_its_guest_is_linux(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('runtime = "bash"\nguest = "linux"\n')
    assert load_recipe(tmp_path / "mine.toml").name == "mine-linux"
    assert load_recipe(tmp_path / "mine.toml", "process").name == "mine"
    (tmp_path / "mine.toml").write_text('runtime = "bash"\nguest = "windows"\n')
    with pytest.raises(RecipeError, match="guest"):
        load_recipe(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("given", "guest", "name"),
    [
        ("python", None, "python"),
        ("python", "linux", "python-linux"),
        ("python-linux", None, "python-linux"),
        ("python-linux", "linux", "python-linux"),
        ("js", "linux", "node-linux"),
        ("js-linux", None, "node-linux"),
        ("mine", "process", "mine"),
    ],
)
def test_templates_of_linux_guests_are_named_so(given: str, guest: GuestKind | None, name: str) -> None:
    assert template_name(given, guest) == name
