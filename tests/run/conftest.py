"""The templates of other languages, built once and kept in the cache."""

from collections.abc import Iterator
from typing import Any

import pytest

from pyvmm import Host, PyvmmError, Result, Template


def _built(language: str, host: Host) -> Iterator[Template]:
    try:
        built = Template.build(language, progress=lambda step: print(f"{language}: {step}", flush=True), host=host)
    except PyvmmError as error:
        pytest.fail(f"the template for {language} cannot be built: {error}", pytrace=False)
    with built:
        yield built


@pytest.fixture(scope="session")
def bash_template(host: Host) -> Iterator[Template]:
    yield from _built("bash", host)


@pytest.fixture(scope="session")
def node_template(host: Host) -> Iterator[Template]:
    """61 MB from the package index, the first time."""
    yield from _built("node", host)


class Shell:
    """Runs programs of one language, each in a fork of its own."""

    def __init__(self, template: Template) -> None:
        self.template = template

    def __call__(self, code: str, **options: Any) -> Result:
        return self.template.run(code, **{"timeout": 60.0, **options})

    def lines(self, code: str, **options: Any) -> list[str]:
        """What a program that must succeed printed."""
        result = self(code, **options)
        assert (result.status, result.stderr) == ("ok", b""), result
        return result.stdout.decode().splitlines()


@pytest.fixture
def bash(bash_template: Template) -> Shell:
    return Shell(bash_template)


@pytest.fixture
def node(node_template: Template) -> Shell:
    return Shell(node_template)
