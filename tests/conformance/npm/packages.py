"""The packages whose tests are run, fetched by npm into the cache, each in a folder with what its tests need."""

import hashlib
import os
import shutil
import subprocess
import tempfile
import tomllib
from datetime import date
from pathlib import Path

import msgspec

from pyvmm.template.cache import cache_home

_LIST = Path(__file__).with_name("packages.toml")
_NPM_SECONDS = 300


class LeftOut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files of tests that are run on neither side."""

    reason: str
    files: tuple[str, ...]


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A package and how its tests are run.

    ``needs`` are what its tests ask for, ``files`` patterns below the package; with ``options`` another node runs them.
    ``differs`` is why what they write inside differs from the host, where that is known.
    """

    name: str
    version: str
    files: tuple[str, ...]
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    without: LeftOut | None = None
    differs: str = ""


class PackageList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``before`` is the day of the registry that npm sees, so that what is needed in turn stays the same as well."""

    before: date
    package: tuple[Package, ...]


def package_list(path: Path = _LIST) -> PackageList:
    """The packages that are listed."""
    return msgspec.convert(tomllib.loads(path.read_text()), PackageList)


def is_installed() -> bool:
    """Whether npm is on this machine."""
    return shutil.which("npm") is not None


def fetch(package: Package, before: date) -> Path:
    """The folder that has the package and what it needs under ``node_modules``."""
    wanted = [f"{package.name}@{package.version}", *package.needs]
    key = hashlib.sha256(repr((before, sorted(wanted))).encode()).hexdigest()[:16]
    folder = cache_home() / "conformance" / "npm" / f"{package.name}-{package.version}-{key}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as name:
        made = Path(name) / "made"
        made.mkdir()
        (made / "package.json").write_text('{"private": true}\n')
        # No script of a package is run on the host, and none of what is fetched has one that its tests need.
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-bin-links"]
        command += [f"--before={before}", "--", *wanted]
        npm = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=_NPM_SECONDS)
        if npm.returncode != 0:
            raise RuntimeError(f"npm could not install {package.name}: {npm.stderr[-2000:]}")
        os.rename(made, folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, by its path from there."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def test_files(package: Package, folder: Path) -> list[str]:
    """The files of tests that the patterns name, in the order of their names, from the package's folder."""
    own = folder / "node_modules" / package.name
    left_out = package.without.files if package.without else ()
    found = {
        str(path.relative_to(own)): None
        for pattern in package.files
        for path in sorted(own.glob(pattern))
        if "node_modules" not in path.relative_to(own).parts
    }
    return [each for each in found if each not in left_out]
