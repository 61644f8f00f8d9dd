"""The interpreter that runs pyvmm, as the source of a userland: where its parts are, and what tells it from another."""

import functools
import os
import struct
import subprocess
import sys
from pathlib import Path

import msgspec

from pyvmm.errors import TemplateError

GUEST_PREFIX = "/usr/local"

# Asked of the base interpreter itself, since inside a virtual environment some of these answers are those of the
# environment.
_QUESTIONS = f"""
import importlib.util, json, os, site, sys, sysconfig
print(json.dumps(dict(
    executable=os.path.realpath(sys.executable), prefixes=sorted({{sys.prefix, sys.exec_prefix}}),
    stdlib=sysconfig.get_path("stdlib"), libdir=sys.platlibdir, cache_tag=sys.implementation.cache_tag,
    version="%d.%d.%d" % sys.version_info[:3], build=sys.version, sites=site.getsitepackages(["{GUEST_PREFIX}"]),
)))
"""


class Interpreter(msgspec.Struct, frozen=True):
    """Facts about an interpreter: paths of this host, but for ``guest_*``, which are paths inside an image."""

    executable: Path
    prefixes: tuple[Path, ...]
    stdlib: Path
    libdir: str
    cache_tag: str
    version: str
    build: str
    sites: tuple[str, ...]

    @property
    def short_version(self) -> str:
        """Major and minor version: ``3.11``."""
        return self.version.rpartition(".")[0]

    @property
    def guest_executable(self) -> str:
        return f"{GUEST_PREFIX}/bin/python{self.short_version}"

    @property
    def guest_stdlib(self) -> str:
        return f"{GUEST_PREFIX}/{self.libdir}/python{self.short_version}"

    @property
    def guest_site(self) -> str:
        """The folder of packages that this interpreter searches when its prefix is ``/usr/local`` (Debian differs)."""
        below = [site for site in self.sites if site.startswith(f"{GUEST_PREFIX}/lib")]
        return (below or [f"{self.guest_stdlib}/site-packages"])[0]


def base_executable() -> Path:
    """The program behind the running interpreter, with all virtual environments taken off."""
    return Path(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))


def interpreter_identity() -> str:
    """What tells this interpreter from another, found without running anything (for keys of caches)."""
    executable = base_executable()
    facts = executable.stat()
    return f"{sys.version}|{executable}|{facts.st_size}|{facts.st_mtime_ns}|{sys.base_prefix}"


@functools.cache
def find_interpreter() -> Interpreter:
    """The base interpreter of the running one; asks it, which takes some 30 ms. Raises :class:`TemplateError`."""
    command = [str(base_executable()), "-I", "-S", "-c", _QUESTIONS]
    try:
        answer = subprocess.run(command, capture_output=True, check=True, timeout=60, env=clean_environment())
        return msgspec.json.decode(answer.stdout, type=Interpreter, dec_hook=lambda kind, value: kind(value))
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        raise TemplateError(f"the interpreter {command[0]} does not answer: {error}") from error


def clean_environment() -> dict[str, str]:
    """The environment for the tools that a build runs: nothing of the host but how to find shared libraries."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", **kept}


def elf_interpreter(path: Path) -> str | None:
    """The loader that an ELF file names (``PT_INTERP``); ``None`` for static programs and other kinds of files."""
    with path.open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:5] != b"\x7fELF\x02":
            return None
        (table,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(table)
        entries = file.read(size * count)
        for position in range(0, len(entries) - size + 1, size):
            kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", entries, position)
            if kind == 3:  # PT_INTERP
                file.seek(offset)
                return os.fsdecode(file.read(length).rstrip(b"\0"))
    return None
