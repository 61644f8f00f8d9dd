"""``pyvmm serve``: which templates it serves."""

from pathlib import Path

import pytest

from pyvmm import Host
from pyvmm.cli.serve import _default_recipes
from pyvmm.template.build import template_key
from pyvmm.template.cache import TemplateCache
from pyvmm.template.recipe import load_recipe

pytestmark = pytest.mark.kvm


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TemplateCache:
    monkeypatch.setenv("PYVMM_HOME", str(tmp_path))
    return TemplateCache()


def pretend(cache: TemplateCache, name: str, key: str) -> None:
    with cache.build(name, key) as folder:
        assert folder is not None


def test_python_is_always_served(cache: TemplateCache) -> None:
    assert _default_recipes() == ("python",)


def test_a_language_whose_template_is_built_is_served(cache: TemplateCache, host: Host) -> None:
    for name in ("python", "node"):
        pretend(cache, name, template_key(load_recipe(name), host.processor))
    pretend(cache, "mine", "key")
    assert _default_recipes() == ("python", "node")


def test_a_template_that_is_out_of_date_is_not_served_and_that_is_said(
    cache: TemplateCache, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(cache, "bash", "old")
    assert _default_recipes() == ("python",)
    assert capsys.readouterr().err == ("bash is not served, its template is out of date: pyvmm template build bash\n")
