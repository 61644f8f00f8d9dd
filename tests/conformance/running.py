"""Runs a module of a suite on the host and in a fork, with the same program, environment and privileges."""

import functools
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import msgspec

from pyvmm import Template
from pyvmm.template.cache import TemplateCache, cache_home
from pyvmm.template.interpreter import Interpreter, find_interpreter, interpreter_identity
from pyvmm.template.packages import install_packages
from pyvmm.template.recipe import load_recipe
from tests.conformance.records import Record, parse
from tests.conformance.tiers import full_name

#: A module may take so many times as long inside as on the host, where what takes less than _LEAST_SECONDS counts as
#: that. All of it is multiplied by the published factor: a new interpreter takes seven times as long to start inside,
#: and there are modules that do little else.
_TIME_LIMIT = 4
TIME_FACTOR = 3
_LEAST_SECONDS = 5.0
_NATIVE_SECONDS = 600.0
_OUTPUT_BYTES = 256 << 20
#: The user that programs are in a sandbox.
_USER_ID = 1000

# The fork's program gives way to the interpreter, started anew: what is then run is what is run on the host.
_PROGRAM = """\
import os, sys
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Suite(msgspec.Struct, frozen=True):
    """Tests that a recipe has in its image.

    ``arguments`` are those of the interpreter for a module and the tests of it that are excluded; the file ``runner``
    is in its working directory. On the host the recipe's packages are found by ``PYTHONPATH``.
    """

    recipe: Path
    runner: Path
    arguments: Callable[[str, Sequence[str]], list[str]]


def _cpython_arguments(module: str, excluded: Sequence[str]) -> list[str]:
    return ["runner.py", full_name(module), *excluded]


CPYTHON = Suite(Path(__file__).with_name("suite.toml"), Path(__file__).with_name("runner.py"), _cpython_arguments)
NOT_INSTALLED = "this interpreter has no test suite: on Debian it is the package libpython3-testsuite"


def is_installed() -> bool:
    """Whether the interpreter's own tests are on this machine: Debian has them in a package of their own."""
    return (find_interpreter().stdlib / "test" / "test_list.py").exists()


class NativeRuns:
    """Runs on the host, each kept on disk as long as all that they depend on is the same."""

    def __init__(self, suite: Suite, home: Path | None = None) -> None:
        self._suite = suite
        self._home = (home or cache_home()) / "conformance"
        self._interpreter = find_interpreter()
        self._recipe = load_recipe(suite.recipe)
        self._owned = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._owned.close()

    def record(self, module: str, excluded: list[str], again: bool = False) -> Record:
        """How the module ends on the host."""
        runner, arguments = self._suite.runner.read_bytes(), self._suite.arguments(module, sorted(excluded))
        parts = (interpreter_identity(), self._recipe.encode(), str(self._packages), runner, arguments, os.geteuid())
        key = hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
        kept = self._home / "native" / f"{module}.{key}"
        if kept.exists() and not again:
            return msgspec.msgpack.decode(kept.read_bytes(), type=Record)
        record = self._run(module, excluded)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(msgspec.msgpack.encode(record))
        return record

    def _run(self, module: str, excluded: list[str]) -> Record:
        with tempfile.TemporaryDirectory(prefix="conf", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            (folder / "tmp").mkdir()
            runner = folder / self._suite.runner.name
            shutil.copy(self._suite.runner, runner)
            identity = {}
            if os.geteuid() == 0:
                identity = {"user": _USER_ID, "group": _USER_ID, "extra_groups": [_USER_ID]}
                for path in (folder, folder / "tmp", runner):
                    os.chown(path, _USER_ID, _USER_ID)
            executable, environment = self._executable, self._environment
            began = time.monotonic()
            program = subprocess.Popen(
                [executable, *self._suite.arguments(module, excluded)],
                cwd=folder,
                env={**environment, "HOME": name, "TMPDIR": f"{name}/tmp"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **identity,
            )
            try:
                output, _ = program.communicate(timeout=_NATIVE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(program.pid, signal.SIGKILL)
                output, _ = program.communicate()
            return parse(output, time.monotonic() - began, f"exit code {program.returncode}")

    @functools.cached_property
    def _packages(self) -> Path:
        """The layer of packages that the template has been made of."""
        return install_packages(self._recipe.all_packages, self._interpreter, TemplateCache(), print).folder

    @functools.cached_property
    def _environment(self) -> dict[str, str]:
        """The recipe's, and the packages, with byte code as in the image, where the tests' user can reach them."""
        copy = Path(self._owned.enter_context(tempfile.TemporaryDirectory(prefix="packages")))
        copy.chmod(0o755)
        shutil.copytree(self._packages, copy / "site", symlinks=True, copy_function=_link)
        command = [str(self._interpreter.executable), "-m", "compileall", "-q", "-j", "0", str(copy / "site")]
        subprocess.run(
            command, stdout=subprocess.DEVNULL, check=False
        )  # a package may have test data that is no Python
        return {**self._recipe.env, "PYTHONPATH": str(copy / "site")}

    @functools.cached_property
    def _executable(self) -> str:
        """The interpreter that is in the image, where the tests' user can reach it."""
        original = self._interpreter
        if os.geteuid() or all(parent.stat().st_mode & 1 for parent in original.executable.parents):
            return str(original.executable)
        copy = Path(self._owned.enter_context(tempfile.TemporaryDirectory(prefix="python")))
        copy.chmod(0o755)
        _copy(original, copy)
        return str(copy / "bin" / original.executable.name)


def _copy(interpreter: Interpreter, target: Path) -> None:
    """The interpreter with its library but without installed packages, as links where that can be."""
    program = target / "bin" / interpreter.executable.name
    program.parent.mkdir(parents=True)
    shutil.copy2(interpreter.executable, program)
    program.write_bytes(_relocated(program.read_bytes(), interpreter))
    for shared in interpreter.stdlib.parent.glob("lib*.so*"):
        (target / interpreter.libdir).mkdir(exist_ok=True)
        _link(str(shared), str(target / interpreter.libdir / shared.name))
    library = target / interpreter.libdir / interpreter.stdlib.name
    shutil.copytree(
        interpreter.stdlib, library, symlinks=True, copy_function=_link, ignore=shutil.ignore_patterns("site-packages")
    )


def _link(source: str, place: str) -> None:
    try:
        os.link(source, place)
    except OSError:
        shutil.copy2(source, place)


def _relocated(program: bytes, interpreter: Interpreter) -> bytes:
    """The program, looking for its shared library beside itself: the run path it was built with is out of reach."""
    for prefix in interpreter.prefixes:
        run_path = f"{prefix}/{interpreter.libdir}\0".encode()
        program = program.replace(run_path, f"$ORIGIN/../{interpreter.libdir}".encode().ljust(len(run_path), b"\0"))
    return program


def run_inside(
    suite: Suite, template: Template, module: str, excluded: list[str], native: Record
) -> tuple[Record, bytes]:
    """How the module ends in a fork, and all that it wrote."""
    limit = _TIME_LIMIT * TIME_FACTOR * max(native.seconds, _LEAST_SECONDS)
    with template.fork(output_limit=_OUTPUT_BYTES) as sandbox:
        result = sandbox.run(
            _PROGRAM,
            argv=suite.arguments(module, excluded),
            files={suite.runner.name: suite.runner.read_bytes()},
            timeout=limit,
        )
        missing = sandbox.kernel.missing
    how = f"{result.status}, exit code {result.exit_code}, after {result.exec_seconds:.1f} of {limit:.0f} s"
    if missing:
        how += f"; not there: {', '.join(sorted(missing))}"
    return parse(result.stdout, result.exec_seconds, how), result.stdout + b"\n" + result.stderr
