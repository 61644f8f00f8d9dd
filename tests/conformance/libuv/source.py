"""libuv's source out of the source distribution of ``uvloop``, which pip fetches, and its tests built with CMake."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from pyvmm.template.cache import cache_home

#: The release of uvloop and the digest of its archive; it brings libuv as its authors released it.
RELEASE = "0.22.1"
#: The release of libuv in it.
VERSION = "1.48.0"
_DIGEST = "6c84bae345b9147082b17371e3dd5d42775bddce91f885499017f4607fdaf39f"
_INSIDE = f"uvloop-{RELEASE}/vendor/libuv"
_SECONDS = 1800
#: Paths of the test program and of the files that it reads, below the folder of :func:`build`.
PROGRAM = "uv_run_tests"
_FIXTURES = "test/fixtures"


def missing_tools() -> list[str]:
    """The programs that a build needs and that are not on this machine."""
    return [name for name in ("cmake", "make", "cc") if shutil.which(name) is None]


def build() -> Path:
    """The folder with the test program and its files, built once and kept.

    Raises :class:`RuntimeError` with what pip or CMake said last.
    """
    folder = cache_home() / "conformance" / "libuv" / RELEASE
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as name:
        place = Path(name)
        source = _unpacked(place)
        _run("cmake", "-S", source, "-B", place / "build", "-DCMAKE_BUILD_TYPE=Release")
        _run("cmake", "--build", place / "build", "--target", "uv_run_tests_a", "--parallel", str(os.cpu_count() or 1))
        made = place / "made"
        shutil.copytree(source / _FIXTURES, made / _FIXTURES)
        shutil.copy2(place / "build" / "uv_run_tests_a", made / PROGRAM)
        os.rename(made, folder)
    return folder


def _unpacked(place: Path) -> Path:
    """libuv's source below ``place``."""
    # pip has no way to fetch a source distribution without asking it for its metadata.
    _run(
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-binary=uvloop",
        f"--dest={place}",
        f"uvloop=={RELEASE}",
    )
    archive = place / f"uvloop-{RELEASE}.tar.gz"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != _DIGEST:
        raise RuntimeError(f"{archive.name} is not the archive that is expected: its SHA-256 is {digest}")
    with tarfile.open(archive) as packed:
        packed.extractall(place, [each for each in packed if each.name.startswith(f"{_INSIDE}/")], filter="data")
    return place / _INSIDE


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} failed: {done.stdout[-2000:]}")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, by its path from there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
