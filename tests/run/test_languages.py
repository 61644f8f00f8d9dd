"""A language of one's own: a recipe and an agent."""

from pathlib import Path

import pytest

from pyvmm import Host, Template, TemplateError

pytestmark = pytest.mark.kvm

_RECIPE = """
memory_mb = 64
tools = ["@usual"]

[runtime]
suffixes = [".awk"]
agent = "agent.sh"
command = ["/bin/sh", "{agent}"]
rehearsal = "BEGIN { print 1 + 1 }"

[env]
PATH = "/usr/bin"
"""
_AGENT = """
LC_ALL=C IFS=' ' read -r head source <&3
words=$(head -c "$head" <&3 | tr '\\0' '\\n')
printf ready >&3
exec 3>&-
IFS='
'
set -f
set -- $words
exec awk -f "$@"
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYVMM_HOME", str(tmp_path / "home"))
    (tmp_path / "agent.sh").write_text(_AGENT)
    (tmp_path / "awk.toml").write_text(_RECIPE)
    return tmp_path / "awk.toml"


def test_a_language_is_a_recipe_and_an_agent(host: Host, recipe: Path) -> None:
    with Template.build(recipe, host=host) as template:
        assert (template.name, template.language, template.script, template.memory_mb) == ("awk", "awk", "main.awk", 64)
        result = template.run("{ print NR, $1 }", argv=["a b"], files={"a b": b"x 1\ny 2\n"})
        assert (result.stdout, result.stderr, result.exit_code) == (b"1 x\n2 y\n", b"", 0)
        assert template.run("BEGIN { exit 3 }").exit_code == 3
    with Template.load("awk", host=host) as again:
        assert again.run('BEGIN { print "again" }').stdout == b"again\n"


def test_a_rehearsal_that_does_not_print_two_is_told(host: Host, recipe: Path) -> None:
    recipe.write_text(_RECIPE.replace("1 + 1", "3"))
    with pytest.raises(TemplateError, match="the rehearsal in a fork of the new template failed"):
        Template.build(recipe, host=host)


def test_an_agent_that_ends_before_it_waits_is_told(host: Host, recipe: Path) -> None:
    (recipe.parent / "agent.sh").write_text("echo sorry >&2; exit 4")
    with pytest.raises(TemplateError, match=r"(?s)while warming up\. It said:\nsorry"):
        Template.build(recipe, host=host)


def test_a_command_that_is_not_in_the_image_is_told(host: Host, recipe: Path) -> None:
    recipe.write_text(_RECIPE.replace("/bin/sh", "/bin/no-such"))
    with pytest.raises(TemplateError, match="/bin/no-such cannot be started in the image"):
        Template.build(recipe, host=host)
