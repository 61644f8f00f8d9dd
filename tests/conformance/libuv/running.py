"""Runs one of libuv's tests on the host and in a fork: the same program, files, environment and privileges."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec

from pyvmm import Template
from pyvmm.template.recipe import load_recipe
from tests.conformance.libuv.source import PROGRAM, contents

#: libuv's own time-outs, 5 s for most tests, are multiplied by this on both sides: the machine may be busy.
TIMEOUT_FACTOR = 4
_NATIVE_SECONDS = 300.0
_INSIDE_SECONDS = 300.0
#: The template whose forks run the tests: that of Python, which has the C library and can start a program.
RECIPE = "python"
#: The user that programs are in a sandbox.
_USER_ID = 1000
_LINE = re.compile(rb"^(not )?ok 1 - \S+(?: # SKIP ?(.*))?$", re.MULTILINE)

# What a run has as files cannot be executed before somebody says so.
_START = f"""\
import os, sys
os.chmod("{PROGRAM}", 0o755)
os.environ["UV_TEST_TIMEOUT_MULTIPLIER"] = "{TIMEOUT_FACTOR}"
os.execv("./{PROGRAM}", ["./{PROGRAM}", *sys.argv[1:]])
"""


class Outcome(msgspec.Struct, frozen=True):
    """How a test ended: ``passed``, ``failed`` or ``skipped``, and the reason or the output; seconds of wall time."""

    status: str
    detail: str
    seconds: float


def parse(output: bytes, how: str, seconds: float) -> Outcome:
    """The outcome in what the test program wrote, a line of the Test Anything Protocol; ``how`` it ended otherwise."""
    line = _LINE.search(output)
    text = output.decode(errors="replace")
    if line is None:
        return Outcome("failed", f"{how}\n{text}", seconds)
    if line[1]:
        return Outcome("failed", text, seconds)
    if line[2] is not None:
        return Outcome("skipped", line[2].decode(errors="replace"), seconds)
    return Outcome("passed", "", seconds)


class Host:
    """The test program in a folder of its own, which belongs to an unprivileged user."""

    def __init__(self, built: Path) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="libuv", ignore_cleanup_errors=True)
        self._folder = Path(self._temporary.name).resolve() / "user"
        shutil.copytree(built, self._folder)
        self._env = {
            **load_recipe(RECIPE).env,
            "HOME": str(self._folder),
            "UV_TEST_TIMEOUT_MULTIPLIER": str(TIMEOUT_FACTOR),
        }
        self._identity = {}
        if os.geteuid() == 0:
            self._identity = {"user": _USER_ID, "group": _USER_ID, "extra_groups": [_USER_ID]}
            self._folder.parent.chmod(0o755)
            for path in (self._folder, *self._folder.rglob("*")):
                os.chown(path, _USER_ID, _USER_ID)

    def __enter__(self) -> "Host":
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def tests(self) -> list[str]:
        """The names of all tests."""
        listed = subprocess.run(
            [f"./{PROGRAM}", "--list"], cwd=self._folder, stdout=subprocess.PIPE, check=True, **self._identity
        )
        return [line.split()[0] for line in listed.stdout.decode().splitlines() if line.strip()]

    def run(self, test: str) -> Outcome:
        """How the test ends here."""
        began = time.monotonic()
        process = subprocess.Popen(
            [f"./{PROGRAM}", test],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **self._identity,
        )
        try:
            output, _ = process.communicate(timeout=_NATIVE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        return parse(output, f"exit code {process.returncode}", time.monotonic() - began)


def run_inside(template: Template, built: Path, test: str) -> Outcome:
    """How the test ends in a fork of ``template``."""
    with template.fork() as sandbox:
        result = sandbox.run(_START, argv=[test], files=contents(built), timeout=_INSIDE_SECONDS)
        missing = sandbox.kernel.missing
    how = f"{result.status}, exit code {result.exit_code}"
    if missing:
        how += f"; not there: {', '.join(sorted(missing))}"
    return parse(result.stdout + result.stderr, how, result.exec_seconds)
