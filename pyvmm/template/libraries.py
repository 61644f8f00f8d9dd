"""Which shared libraries a set of ELF files needs, as the dynamic loader of this host finds them."""

import os
import re
import struct
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from pyvmm.errors import TemplateError
from pyvmm.template.interpreter import clean_environment, elf_interpreter

DEFAULT_FOLDER = "/lib/x86_64-linux-gnu"

#: ``struct cache_file_new`` and ``struct file_entry_new`` of sysdeps/generic/dl-cache.h.
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER, _CACHE_ENTRY = struct.Struct("<20sIIB3xI12x"), struct.Struct("<iIIIQ")
_CACHE_X86_64_LIBC6, _CACHE_LITTLE_ENDIAN = 0x0303, 2

_LINE = re.compile(r"\t(\S+) => (\S.*?)(?: \(0x[0-9a-f]+\))?")


class Libraries(msgspec.Struct):
    """``found`` maps sonames to files of this host, ``missing`` maps files to the sonames that they lack."""

    found: dict[str, Path]
    missing: dict[Path, list[str]]


class Loader:
    """The dynamic loader that an executable asks for."""

    def __init__(self, executable: Path) -> None:
        """Raises :class:`TemplateError` when the executable is static or made for another libc than glibc."""
        self.path = elf_interpreter(executable) or ""
        if not os.path.basename(self.path).startswith("ld-linux"):
            raise TemplateError(f"{executable} does not use glibc's dynamic loader, which templates need")

    def __repr__(self) -> str:
        return f"<Loader {self.path}>"

    def search_folder(self) -> str:
        """A folder that the loader searches without configuration or cache: where an image's libraries belong."""
        answer = self._run("--help").stdout
        folders = re.findall(r"^ +(/\S+) \(system search path\)", answer, re.MULTILINE)
        return DEFAULT_FOLDER if DEFAULT_FOLDER in folders or not folders else folders[0]

    def resolve(self, files: Iterable[Path]) -> Libraries:
        """All libraries that the ELF files among ``files`` need, directly or not, without the loader itself."""
        elves = [file for file in files if is_elf(file)]
        libraries = Libraries({}, {})
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for file, listing in zip(elves, pool.map(self._list, elves), strict=True):
                for soname, target in listing:
                    if target == "not found":
                        libraries.missing.setdefault(file, []).append(soname)
                    elif "/" not in soname:
                        libraries.found.setdefault(soname, Path(target))
        return libraries

    def _list(self, file: Path) -> list[tuple[str, str]]:
        """Sonames with the paths, or ``not found``, that ``ld.so --list`` gives."""
        lines = self._run("--list", str(file)).stdout.splitlines()
        return [(match[1], match[2]) for match in map(_LINE.fullmatch, lines) if match]

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        # No check: --list exits with an error when the file has unresolved symbols, as plugins of other programs do.
        return subprocess.run(
            [self.path, *arguments], capture_output=True, text=True, timeout=60, env=clean_environment()
        )


def loader_cache(places: Mapping[str, str]) -> bytes:
    """``/etc/ld.so.cache``, as ldconfig(8) writes it, of libraries' places by soname.

    The loader would find them anyway; it is for those who look for a library by a part of its name, as
    ``ctypes.util.find_library`` does.
    """
    names = sorted(places, key=_numerically, reverse=True)
    offset = _CACHE_HEADER.size + _CACHE_ENTRY.size * len(names)
    strings, entries = bytearray(), bytearray()
    for name in names:
        key = offset + len(strings)
        strings += name.encode() + b"\0"
        entries += _CACHE_ENTRY.pack(_CACHE_X86_64_LIBC6, key, offset + len(strings), 0, 0)
        strings += places[name].encode() + b"\0"
    header = _CACHE_HEADER.pack(_CACHE_MAGIC, len(names), len(strings), _CACHE_LITTLE_ENDIAN, 0)
    return header + bytes(entries + strings)


def _numerically(name: str) -> list[tuple[bool, int]]:
    """The order of names in the cache (``_dl_cache_libcmp()``): numbers by value, and after everything else."""
    return [(part.isdigit(), int(part) if part.isdigit() else ord(part)) for part in re.findall(r"[0-9]+|[^0-9]", name)]


def is_elf(path: Path) -> bool:
    """Whether a file starts as ELF files do."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
