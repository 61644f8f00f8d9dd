"""Fixtures for all tests: a usable /dev/kvm or a clear failure, the template, a pool, and the eight invariants."""

import ctypes
import gc
import hashlib
import logging
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import settings

from pyvmm import Host, HostError, LocalPool, Result, Template

#: In bytes: what a test may leave behind in resident memory, what a run may take beyond the guest's own (V4), and how
#: much of the log a run may fill (V7).
_RSS_SLACK = 5 << 20
_PEAK_SLACK = 20 << 20
_LOG_MAX = 8 << 10
_ROOT = Path(__file__).parents[1]
_libc = ctypes.CDLL(None)
STATUSES = {"ok", "error", "timeout", "oom", "output_limit", "crashed", "protocol_error"}

# Wall-clock limits are pytest-timeout's business: a busy machine would make Hypothesis's own deadline flaky.
# Continuous integration tries the same examples every time: what is new is for whoever runs the tests at home to find.
settings.register_profile("pyvmm", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("pyvmm")


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    try:
        opened = Host()
    except HostError as error:
        pytest.fail(f"these tests need a usable KVM: {error}", pytrace=False)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def template(host: Host) -> Iterator[Template]:
    """The python template, built if this machine has none yet (that takes a minute and needs pip's index)."""
    with Template.build("python", progress=lambda step: print(f"template: {step}", flush=True), host=host) as built:
        before = _digest(built)
        yield built
        # V8: whatever the forks of all tests did, the memory that they started from is what it was.
        assert _digest(built) == before


def _digest(template: Template) -> str:
    size = template.snapshot.manifest.memory_size
    return hashlib.sha256(os.pread(template.snapshot.memory_fd, size, 0)).hexdigest()


@pytest.fixture
def pool(host: Host, template: Template) -> Iterator[LocalPool]:
    # The pool closes its templates, so it gets one of its own.
    with LocalPool({"python": Template.open(template.snapshot.path, host=host)}, max_running=8) as made:
        yield made


@dataclass
class Footprint:
    """What this process holds of the host."""

    descriptors: int
    vms: int
    mappings: int
    threads: int
    timers: int
    children: int
    rss: int

    @classmethod
    def now(cls) -> "Footprint":
        gc.collect()
        _libc.malloc_trim(0)  # what glibc has free but keeps is nothing that was left behind
        fds = [_target(fd) for fd in os.listdir("/proc/self/fd")]
        process = psutil.Process()
        return cls(
            len(fds),
            sum("kvm-v" in fd for fd in fds),
            len(Path("/proc/self/maps").read_text().splitlines()),
            threading.active_count(),
            Path("/proc/self/timers").read_text().count("ID:"),
            len(process.children(recursive=True)),
            process.memory_info().rss,
        )

    def check_against(self, before: "Footprint", *, mappings: int = 8, rss: int | None = _RSS_SLACK) -> None:
        """Nothing is left behind (V2, V4), but for so many mappings and bytes that the C library's allocator keeps."""
        assert self.descriptors <= before.descriptors
        assert self.vms <= before.vms
        assert self.mappings <= before.mappings + mappings, "mappings were left behind"
        assert self.threads <= before.threads
        assert self.timers <= before.timers
        assert self.children <= before.children
        if rss is not None:
            assert self.rss <= before.rss + rss, f"resident memory grew by {(self.rss - before.rss) >> 10} KiB"


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


class _LogCounter(logging.Handler):
    """Counts what is logged, tracebacks included."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self.size += len(text)
        self.lines.append(text)


class Runner:
    """Runs code in forks and checks of every result what must hold whatever the code does (V1, V4, V6, V7)."""

    def __init__(self, template: Template, planted: str, log: _LogCounter) -> None:
        self.template = template
        #: A secret of the host: in a file, in the environment and in this process's memory.
        self.planted = planted
        self._log = log
        self._repeat: list[Callable[[], object]] = []
        self._forbidden = [planted.encode(), str(_ROOT).encode(), str(Path.home() / ".cache").encode()]

    def __call__(
        self, code: str | bytes, *, timeout: float = 10.0, output_limit: int | None = None, **options
    ) -> Result:
        self._repeat.append(partial(self._run, code, timeout, output_limit, options))
        return self._run(code, timeout, output_limit, options)

    def _run(self, code: str | bytes, timeout: float, output_limit: int | None, options: dict[str, Any]) -> Result:
        logged = self._log.size
        with self.template.fork(output_limit=output_limit) as sandbox:
            return self.check(lambda: sandbox.run(code, timeout=timeout, **options), timeout, logged)

    def check_memory(self, before: Footprint) -> None:
        """Resident memory is back (V4).

        Python's allocator gives an arena back only when nothing in it lives any more, so a run that had many objects
        may leave some behind that are nearly empty, once. A leak is what the very same runs leave behind again.
        """
        first = Footprint.now().rss
        if first > before.rss + _RSS_SLACK:
            for again in self._repeat:
                again()
            grown = Footprint.now().rss - first
            assert grown <= _RSS_SLACK / 2, f"resident memory grew by {grown >> 10} KiB when the runs were repeated"

    def check(self, run: Callable[[], Result], timeout: float, logged: int | None = None) -> Result:
        """Do ``run``, which is limited to ``timeout``, and check its result."""
        logged = self._log.size if logged is None else logged
        Path("/proc/self/clear_refs").write_text("5")  # a new peak of resident memory begins here
        resident = psutil.Process().memory_info().rss
        started = time.monotonic()
        result = run()
        took = time.monotonic() - started
        assert took <= timeout + 1, f"a run limited to {timeout} s took {took:.1f} s"
        assert result.status in STATUSES
        assert (result.exit_code == -1) == (result.status == "timeout")
        assert (result.exit_code == 0) == (result.status == "ok")
        peak = _peak_rss() - resident
        assert peak <= (self.template.memory_mb << 20) + _PEAK_SLACK, f"resident memory grew by {peak >> 20} MiB"
        said = result.stdout + result.stderr
        for secret in self._forbidden:
            assert secret not in said, "something of the host was seen"
        assert self._log.size - logged < _LOG_MAX, f"a run filled the log with {self._log.size - logged} bytes"
        return result

    def canary(self) -> None:
        """Another run, which must be right whatever went on before or goes on now (V3)."""
        nonce = secrets.token_hex(8)
        result = self(f"print({nonce!r}[::-1])")
        assert (result.stdout, result.status) == (f"{nonce[::-1]}\n".encode(), "ok"), result

    def with_canary(self, code: str | bytes, **options) -> Result:
        """Run ``code``, and canaries beside it for as long as it lasts (V3)."""
        results: list[Result | BaseException] = []

        def attack() -> None:
            try:
                results.append(self(code, **options))
            except BaseException as error:
                results.append(error)

        attacker = threading.Thread(target=attack)
        attacker.start()
        try:
            self.canary()
            while attacker.is_alive():
                self.canary()
                attacker.join(0.1)
        finally:
            attacker.join()
        (result,) = results
        if isinstance(result, BaseException):
            raise result
        return result

    @property
    def log(self) -> list[str]:
        """What has been logged since the test began."""
        return self._log.lines


def _peak_rss() -> int:
    """VmHWM in bytes."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


def _host_files(*folders: Path) -> set[str]:
    return {entry.path for folder in folders for entry in os.scandir(folder)}


@pytest.fixture
def run(template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """Run code in a fork. Around the test the invariants V1 to V8 of a hostile run are checked."""
    planted = secrets.token_hex(16)
    (tmp_path / "secret").write_text(planted)
    monkeypatch.setenv("PYVMM_TEST_SECRET", planted)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the monitor's own temporary files would be seen
    log = _LogCounter()
    logging.getLogger().addHandler(log)
    try:
        runner = Runner(template, planted, log)
        runner.canary()
        files = _host_files(tmp_path, Path.cwd())
        before = Footprint.now()
        yield runner
        runner.canary()
        runner.check_memory(before)
        Footprint.now().check_against(before, rss=None)
        assert _host_files(tmp_path, Path.cwd()) == files, "files of the host appeared or went"
        assert (tmp_path / "secret").read_text() == planted
    finally:
        logging.getLogger().removeHandler(log)
