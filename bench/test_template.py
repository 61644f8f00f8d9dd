"""What happens once: loading a template, starting the service on one, and building one."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.report import Bar, Case, Report, Series
from bench.rounds import interleave
from pyvmm import Host, Template
from pyvmm.template.build import build
from pyvmm.template.cache import TemplateCache, cache_home

_ROUNDS = 5
_START_LIMIT = 30.0


def test_template_load(
    benchmark: Any, host: Host, template: Template, report: Report, rounds: Callable[[int], int]
) -> None:
    loaded: list[Template] = []

    def close() -> dict[str, float]:
        loaded.pop().close()
        return {}

    samples = interleave(
        benchmark, lambda: loaded.append(Template.load(template.name, host=host)), rounds(_ROUNDS), after=close
    )
    report.add(Case(Series.of("load a template, checksums and all", "s", samples["ours"])))


def test_template_served(template: Template, report: Report, rounds: Callable[[int], int], tmp_path: Path) -> None:
    """From the command to the first answer, with the template there."""
    seconds = [_start_service(tmp_path) for _ in range(rounds(_ROUNDS))]
    series = Series.of("pyvmm serve until it answers, template built", "s", seconds)
    report.add(Case(series, bars=[Bar("within 2 s", series.p50, 2.0)]))


def _start_service(folder: Path) -> float:
    """Seconds from the start of ``pyvmm serve`` until /v1/health answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("pyvmm")), "serve", "--port", str(port)]
    with (folder / "serve.log").open("wb") as log:
        begun = time.perf_counter()
        service = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            while not _answers(port):
                if service.poll() is not None or time.perf_counter() - begun > _START_LIMIT:
                    pytest.fail(
                        f"pyvmm serve does not answer:\n{(folder / 'serve.log').read_text()[-2000:]}", pytrace=False
                    )
                time.sleep(0.01)
            return time.perf_counter() - begun
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/health", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def test_template_build(host: Host, report: Report, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """A build from nothing but the installed packages, then one with the byte code there as well."""
    if not pytestconfig.getoption("--build-template"):
        pytest.skip("a build of the template is measured with --build-template")
    cache = TemplateCache(tmp_path)
    layers = Path(os.fspath(tmp_path)) / "layers"
    layers.mkdir()
    # The wheels are there, unpacked: the folder of packages of the user's own cache, seen through a link.
    (layers / "packages").symlink_to(cache_home() / "layers" / "packages")
    times = []
    for _ in range(2):
        begun = time.perf_counter()
        build("python", lambda step: None, host=host, cache=cache, replace=True)
        times.append(time.perf_counter() - begun)
    report.add(
        Case(
            Series.of("build the template, packages installed", "s", times[:1]),
            [Series.of("again, with the byte code compiled", "s", times[1:])],
            [Bar("< 15 s", times[0], 15.0, strict=True)],
        )
    )
