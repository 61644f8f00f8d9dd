"""Python packages for an image, installed by pip into a folder of their own, once for each set of requirements."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from pyvmm.errors import TemplateError
from pyvmm.template.cache import TemplateCache, content_key
from pyvmm.template.interpreter import Interpreter
from pyvmm.template.recipe import canonical_name

_FORMAT = 1
_TARGET = "site"

# pip's configuration (index, certificates, find-links) is the user's business; where and how it installs is ours.
_PIP_OVERRIDES = (
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_USER",
    "PIP_PYTHON",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_QUIET",
)


class Package(msgspec.Struct, frozen=True, order=True):
    """A package as it was installed."""

    name: str
    version: str


class PackageSet(msgspec.Struct, frozen=True):
    """Installed packages: ``folder`` is what belongs into ``site-packages``."""

    folder: Path
    packages: tuple[Package, ...]


def install_packages(
    requirements: tuple[str, ...],
    interpreter: Interpreter,
    cache: TemplateCache,
    progress: Callable[[str], None],
    upgrade: bool = False,
) -> PackageSet:
    """Installs requirements, or finds them installed by an earlier build; ``upgrade`` asks the index again.

    Raises :class:`TemplateError` with the last lines of pip when it fails.
    """
    key = content_key({"format": _FORMAT, "build": interpreter.build, "requirements": sorted(requirements)})
    if upgrade:
        shutil.rmtree(cache.home / "layers" / "packages" / key, ignore_errors=True)
    with cache.layer_folder("packages", key, progress) as (folder, finished):
        target = folder / _TARGET
        if not finished:
            target.mkdir()
            if requirements:
                _run_pip(requirements, target, progress)
                _clean(target)
    target = cache.home / "layers" / "packages" / key / _TARGET
    return PackageSet(target, installed_packages(target))


def find_pip() -> bool:
    """Whether the environment that pyvmm runs in has pip."""
    return importlib.util.find_spec("pip") is not None


def installed_packages(folder: Path) -> tuple[Package, ...]:
    """Names (normalised) and versions of what is installed in a folder of packages, sorted."""
    found = importlib.metadata.distributions(path=[str(folder)])
    return tuple(sorted(Package(canonical_name(each.metadata["Name"]), each.version) for each in found))


def _run_pip(requirements: tuple[str, ...], target: Path, progress: Callable[[str], None]) -> None:
    if not find_pip():
        raise TemplateError(f"packages need pip: install it with `{sys.executable} -m ensurepip`")
    environment = {name: value for name, value in os.environ.items() if name not in _PIP_OVERRIDES}
    command = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    command += ["--target", str(target), "--no-user", "--no-compile", "--prefer-binary", "--progress-bar", "off"]
    # Byte code is compiled later with the guest's paths; this keeps pip from telling about scripts that are dropped
    # anyway.
    command += ["--no-warn-script-location", "--", *requirements]
    lines: list[str] = []
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            if text := line.strip():
                lines.append(text)
                progress(text)
    if pip.returncode != 0:
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise TemplateError("pip could not install the packages: " + "\n".join(errors[-5:]))


def _clean(target: Path) -> None:
    """Takes out what would carry this host into an image, or run code at every start of the guest's interpreter."""
    shutil.rmtree(target / "bin", ignore_errors=True)  # scripts name the interpreter of this host
    for path in target.glob("*.pth"):
        path.unlink()
    for path in target.glob("*.dist-info/direct_url.json"):
        path.unlink()
