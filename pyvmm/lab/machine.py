"""QEMU as the emulated host: its command, its console, and the results that come back."""

import os
import select
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from pyvmm.errors import HostError
from pyvmm.lab.contents import CHECKOUT, HOME, Contents, checkout, module_paths, top_archive

QEMU = "qemu-system-x86_64"
_MEMORY_MB = 4096
#: Its clock is the processor's counter: to read HPET the emulation has to stop.
_APPEND = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable nowatchdog"
#: Everything that the tests need; the machine with a network needs more.
_MODULES = ("kvm_amd",)
_NETWORK_MODULES = ("virtio_pci", "virtio_net")
#: Of the console, for an error.
_KEPT_BYTES = 2000
_REPORT = "report.xml"

#: Seconds without a word after which an emulated host that runs tests is taken for stuck: longer than any test may
#: take. It can happen when Linux patches its own code, see ``_keep_a_vm`` in ``init.py``.
_SILENCE = 240.0
#: How often one that was stuck is started anew.
_ATTEMPTS = 3

Write = Callable[[bytes], object]


class Stuck(HostError):
    """The emulated host does not go on."""


class Job(msgspec.Struct, frozen=True):
    """What the emulated host is to do: load modules (paths), and run a command."""

    modules: list[str]
    command: list[str]
    environment: dict[str, str]
    network: bool = False


@dataclass(frozen=True)
class Results:
    """What came back: the command's exit code, and its files by name."""

    status: int
    files: dict[str, bytes]

    @property
    def report(self) -> bytes:
        """pytest's report, in the XML of JUnit; empty if there is none."""
        return self.files.get(_REPORT, b"")


def test(contents: Contents, arguments: Sequence[str], write: Write, *, seconds: float, colour: bool) -> Results:
    """Run pytest with these arguments inside; ``write`` gets what it prints, as it prints it. It begins anew if the
    emulated host gets stuck.

    :raises HostError: QEMU is not there, or the emulated host ended, or was stopped after ``seconds``, without results.
    """
    checkout()
    command = ["/usr/local/bin/python3", "-m", "pytest", f"--junit-xml=/lab/results/{_REPORT}"]
    command += [f"--color={'yes' if colour else 'no'}", "-p", "no:cacheprovider", *arguments]
    deadline = time.monotonic() + seconds
    for attempt in range(1, _ATTEMPTS):
        try:
            left = deadline - time.monotonic()
            return _run(contents, command, write, tests=True, seconds=left, silence=_SILENCE, network=None)
        except Stuck:
            write(b"\n*** the emulated host is stuck; starting another one (%d of %d)\n" % (attempt + 1, _ATTEMPTS))
    left = deadline - time.monotonic()
    return _run(contents, command, write, tests=True, seconds=left, silence=_SILENCE, network=None)


def serve(contents: Contents, write: Write, *, host: str, port: int) -> Results:
    """Run ``pyvmm serve`` inside until it ends, answering at this host's address and port."""
    command = ["/usr/local/bin/python3", "/usr/local/bin/pyvmm", "serve", "--host", "0.0.0.0", "--port", "8080"]
    network = f"user,model=virtio-net-pci,hostfwd=tcp:{host}:{port}-:8080"
    return _run(contents, command, write, tests=False, seconds=None, silence=None, network=network)


def find_qemu() -> str:
    """The emulator. Raises :class:`HostError` when it is not installed."""
    if found := shutil.which(QEMU):
        return found
    raise HostError(f"the lab needs {QEMU}: apt install qemu-system-x86")


def qemu_command(qemu: str, kernel: Path, initrd: Path, results: Path, network: str | None) -> list[str]:
    """An AMD machine with SVM and nested paging; the first serial port is its console, the second brings results."""
    command = [qemu, "-M", "q35", "-cpu", "EPYC,+svm,+npt", "-accel", "tcg,thread=multi", "-smp", "2"]
    command += ["-m", str(_MEMORY_MB), "-display", "none", "-no-reboot", "-nodefaults"]
    command += ["-serial", "stdio", "-serial", f"file:{results}"]
    # For whoever wants to see where a machine that has stopped stands: `info registers -a`.
    command += ["-monitor", f"unix:{results.with_name('monitor')},server=on,wait=off"]
    command += ["-nic", network or "none"]
    return [*command, "-kernel", str(kernel), "-initrd", str(initrd), "-append", _APPEND]


def _run(
    contents: Contents,
    command: list[str],
    write: Write,
    *,
    tests: bool,
    seconds: float | None,
    silence: float | None,
    network: str | None,
) -> Results:
    qemu = find_qemu()
    modules = [*_MODULES, *(_NETWORK_MODULES if network else ())]
    environment = {
        "HOME": "/root",
        "PATH": "/usr/local/bin:/usr/bin:/bin:/sbin",
        "LANG": "C.UTF-8",
        "PWD": CHECKOUT,
        "PYTHONPATH": CHECKOUT,
        "PYVMM_HOME": HOME,
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "120",
        # OpenSSL without SSSE3, AVX, BMI and AVX2: emulated, they are seven times slower than plain instructions.
        "OPENSSL_ia32cap": "~0x1000020000000000:~0x28",
    }
    loaded = [path for path, _ in module_paths(contents.kernel, modules)]
    job = msgspec.json.encode(Job(loaded, command, environment, network is not None))
    with tempfile.TemporaryDirectory(prefix="pyvmm-lab.") as folder:
        initrd, results = Path(folder) / "initrd", Path(folder) / "results"
        shutil.copyfile(contents.base, initrd)
        with initrd.open("ab") as stream:
            top_archive(contents, modules, job, tests=tests).write(stream)
        started = qemu_command(qemu, contents.kernel.bzimage, initrd, results, network)
        complaints = Path(folder) / "complaints"
        with complaints.open("wb") as stream:
            said = watch(started, write, stream, seconds, silence)
        return read_results(results, said + complaints.read_bytes()[-_KEPT_BYTES:])


def watch(
    command: list[str], write: Write, complaints: BinaryIO, seconds: float | None, silence: float | None = None
) -> bytes:
    """Run QEMU to its end, for at most ``seconds``, and show its console; the end of what that said.

    :raises Stuck: it said nothing for ``silence`` seconds.
    """
    said = b""
    deadline = None if seconds is None else time.monotonic() + seconds
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints) as process:
        assert process.stdout is not None
        console = process.stdout.fileno()
        try:
            while True:
                left = None if deadline is None else max(deadline - time.monotonic(), 0)
                waits = [each for each in (left, silence) if each is not None]
                if not select.select([console], [], [], min(waits) if waits else None)[0]:
                    if left == min(waits):
                        break
                    raise Stuck(f"the emulated host said nothing for {silence:g} s")
                data = os.read(console, 1 << 16)
                if not data:
                    break
                write(data)
                said = (said + data)[-_KEPT_BYTES:]
        finally:
            process.kill()
    return said


def read_results(path: Path, said: bytes) -> Results:
    """What came through the second serial port; :class:`HostError` with what was ``said`` if that is not whole."""
    files: dict[str, bytes] = {}
    with suppress(tarfile.TarError, OSError), tarfile.open(path, "r:") as archive:
        for member in archive:
            if member.isfile():
                content = archive.extractfile(member)
                assert content is not None
                files[member.name.removeprefix("results/")] = content.read()
    if "status" not in files:
        last = said.decode("utf-8", "replace").strip()
        raise HostError(f"the emulated host ended without results; its console last said:\n{last}")
    return Results(int(files.pop("status")), files)
