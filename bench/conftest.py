"""Options, what the cases share, and the table at the end."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from bench.conditions import count_mappings, describe_host
from bench.floor import Floor, FloorMissing
from bench.report import Report
from bench.rivals import WarmInterpreter
from pyvmm import Template
from pyvmm.errors import HostError
from pyvmm.fork import fork
from pyvmm.host import Host
from pyvmm.template.build import build
from pyvmm.template.cache import TemplateCache
from pyvmm.template.interpreter import find_interpreter
from pyvmm.template.packages import install_packages
from pyvmm.template.recipe import Recipe, load_recipe

_REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "measurements of pyvmm")
    group.addoption("--json", type=Path, metavar="FILE", help="write all samples to FILE")
    group.addoption("--rounds", type=float, default=1.0, metavar="FACTOR", help="times the usual number of rounds")
    group.addoption("--build-template", action="store_true", help="measure a whole build of the template too")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REPORT] = Report()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash[_REPORT]
    if not report.cases and not report.missing:
        return
    terminalreporter.section("forks and their floors")
    # A file or a pipe has no width of its own: give the table the room that it needs.
    console = Console()
    report.print(console if console.is_terminal else Console(width=150))
    path: Path | None = config.getoption("--json")
    if path is not None:
        report.write_json(path)
        terminalreporter.write_line(f"all samples: {path}")


@dataclass(frozen=True, slots=True)
class HostPython:
    """The interpreter that the template was made of, and the same packages beside it."""

    executable: Path
    packages: Path


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """Where every case puts what it measured."""
    return pytestconfig.stash[_REPORT]


@pytest.fixture(scope="session")
def rounds(pytestconfig: pytest.Config) -> Callable[[int], int]:
    """How many rounds to make of a usual number, by ``--rounds``."""
    factor: float = pytestconfig.getoption("--rounds")
    return lambda usual: max(round(usual * factor), 2)


@pytest.fixture(scope="session")
def host(report: Report) -> Iterator[Host]:
    try:
        opened = Host()
    except HostError as error:
        if str(error) not in report.missing:
            report.missing.append(str(error))
        pytest.skip(str(error))
    report.conditions.update(describe_host(opened))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return load_recipe("python")


@pytest.fixture(scope="session")
def template(host: Host, report: Report) -> Iterator[Template]:
    """The python template, built if it is not there."""
    path = build("python", lambda step: print(f"template: {step}", flush=True), host=host)
    with Template.open(path, host=host) as built:
        manifest = built.snapshot.manifest
        report.conditions["snapshot"] = (
            f"{manifest.memory_size >> 20} MiB of {manifest.memory_limit >> 20} MiB, hot {manifest.hot_size >> 10} KiB"
        )
        yield built


@pytest.fixture(scope="session")
def floor(host: Host, template: Template, report: Report) -> Iterator[Floor | None]:
    """The C program, with the sizes and the processor state of a real fork.

    None, and a line in the report, if it cannot be had.
    """
    snapshot = template.snapshot
    with fork(host, snapshot) as machine:
        limit, in_use = machine.memory.limit, machine.memory.in_use
    manifest, vcpu = snapshot.manifest, snapshot.vcpu
    try:
        with Floor(
            limit, in_use, snapshot.memory_fd, manifest.memory_size, host.xcr0, vcpu.xsave, vcpu.msrs
        ) as running:
            yield running
    except FloorMissing as error:
        report.missing.append(str(error))
        yield None


@pytest.fixture(scope="session")
def crowded_floor(host: Host, template: Template, floor: Floor | None) -> Iterator[Floor | None]:
    """The same in a process that has as many mappings as this one."""
    if floor is None:
        yield None
        return
    manifest, vcpu = template.snapshot.manifest, template.snapshot.vcpu
    fd = template.snapshot.memory_fd
    with Floor(
        manifest.memory_limit, floor.in_use, fd, manifest.memory_size, host.xcr0, vcpu.xsave, vcpu.msrs
    ) as running:
        running.add_mappings(count_mappings())
        yield running


@pytest.fixture(scope="session")
def host_python(recipe: Recipe) -> HostPython:
    interpreter = find_interpreter()
    packages = install_packages(recipe.packages, interpreter, TemplateCache(), lambda step: print(f"packages: {step}"))
    return HostPython(interpreter.executable, packages.folder)


@pytest.fixture(scope="session")
def warm(host_python: HostPython, recipe: Recipe) -> Iterator[WarmInterpreter]:
    """The host's interpreter with everything imported that the template has imported."""
    with WarmInterpreter(host_python.executable, host_python.packages, recipe.warm, recipe.env) as running:
        yield running
