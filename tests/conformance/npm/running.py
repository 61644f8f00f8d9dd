"""Runs the tests of a package on the host and in a fork: the same node, program, files, environment and privileges."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec

from pyvmm import Template
from pyvmm.program import HOME
from pyvmm.template.cache import TemplateCache
from pyvmm.template.interpreter import find_interpreter
from pyvmm.template.packages import install_packages
from pyvmm.template.recipe import load_recipe
from tests.conformance.npm.packages import Package, contents, test_files
from tests.conformance.npm.tap import Counts, normalized, parse

_RUNNER = Path(__file__).with_name("runner.js")
_NATIVE_SECONDS = 120.0
#: As for CPython's suite: so many times as long inside as on the host, and never less than 60 s.
_TIME_LIMIT = 12
_LEAST_SECONDS = 5.0
_OUTPUT_BYTES = 64 << 20
#: The user that programs are in a sandbox.
_USER_ID = 1000


class Run(msgspec.Struct, frozen=True):
    """How one run ended. ``lines`` are those of both streams, normalized."""

    counts: Counts
    exit_code: int
    seconds: float
    lines: tuple[list[bytes], list[bytes]]

    @classmethod
    def of(cls, stdout: bytes, stderr: bytes, exit_code: int, seconds: float, home: str) -> "Run":
        """The run that wrote this."""
        place = home.encode()
        lines = (normalized(stdout, place), normalized(stderr, place))
        return cls(parse(stdout), exit_code, seconds, lines)

    def same_as(self, other: "Run") -> bool:
        """Whether a program could tell them apart only by the clock."""
        return (self.exit_code, self.lines) == (other.exit_code, other.lines)


def node_program() -> Path:
    """The node that is in the image of the template."""
    recipe = load_recipe("node")
    installed = install_packages(recipe.all_packages, find_interpreter(), TemplateCache(), lambda step: None)
    return installed.folder / recipe.runtime.files[recipe.runtime.command[0]]


def run_on_host(package: Package, folder: Path, node: Path) -> Run:
    """The tests on the host, in a copy of the files that belongs to an unprivileged user."""
    with tempfile.TemporaryDirectory(prefix="npm", ignore_cleanup_errors=True) as name:
        home = Path(name).resolve()
        place = home / "user"
        shutil.copytree(folder / "node_modules", place / "node_modules")
        shutil.copy(_RUNNER, place / _RUNNER.name)
        program = home / "node"
        shutil.copy2(node, program)
        identity = {}
        if os.geteuid() == 0:
            identity = {"user": _USER_ID, "group": _USER_ID, "extra_groups": [_USER_ID]}
            home.chmod(0o755)
            for path in (place, *place.rglob("*")):
                os.chown(path, _USER_ID, _USER_ID, follow_symlinks=False)
        began = time.monotonic()
        process = subprocess.Popen(
            [program, place / _RUNNER.name, *_arguments(package, folder)],
            cwd=place,
            env={**load_recipe("node").env, "HOME": str(place)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **identity,
        )
        try:
            stdout, stderr = process.communicate(timeout=_NATIVE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
        return Run.of(stdout, stderr, process.returncode, time.monotonic() - began, str(place))


def run_inside(package: Package, folder: Path, template: Template, native: Run) -> Run:
    """The tests in a fork of the template of node."""
    limit = _TIME_LIMIT * max(native.seconds, _LEAST_SECONDS)
    with template.fork(output_limit=_OUTPUT_BYTES) as sandbox:
        result = sandbox.run(
            _RUNNER.read_bytes(),
            name=_RUNNER.name,
            argv=_arguments(package, folder),
            files={f"node_modules/{path}": data for path, data in contents(folder / "node_modules").items()},
            timeout=limit,
        )
    return Run.of(result.stdout, result.stderr, result.exit_code, result.exec_seconds, HOME)


def _arguments(package: Package, folder: Path) -> list[str]:
    return [f"node_modules/{package.name}", *package.options, *test_files(package, folder)]
