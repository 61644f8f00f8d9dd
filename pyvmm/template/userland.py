"""The userland of a template: everything that goes into its image.

Every image has the tools that its recipe names, under ``/usr/bin``; the programs that its runtime takes out of
packages; the shared libraries that all of it needs; and the few files under ``/etc`` and empty directories that
programs expect. That of a Python template has the interpreter that runs pyvmm (its base, never a virtual environment),
moved to ``/usr/local``; its standard library without tests, GUIs and installers; and the recipe's packages. Nothing
else of the host gets in: paths of the host inside files are replaced, in ELF files by a path of the same length, whose
surplus is slashes.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from pyvmm.errors import TemplateError
from pyvmm.image import Image, ImageWriter
from pyvmm.template.bytecode import compile_modules, pyc_path
from pyvmm.template.cache import TemplateCache
from pyvmm.template.interpreter import GUEST_PREFIX, Interpreter, elf_interpreter, find_interpreter
from pyvmm.template.libraries import Loader, is_elf, loader_cache
from pyvmm.template.packages import Package, install_packages
from pyvmm.template.recipe import Recipe
from pyvmm.template.tools import find_tools

IMAGE_FORMAT = 4
"""Raised when the same recipe and interpreter begin to give another image; part of a template's key."""

# Folders and files of the standard library that stay out: GUIs (no display), installers (no network), what only builds
# need; and its tests, unless a recipe asks for them.
_STDLIB_EXCLUDED = (
    "idlelib", "tkinter", "turtle.py", "turtledemo", "ensurepip", "lib2to3", "config-*/*.a", "config-*/*.o",
    "site-packages", "dist-packages", "**/__pycache__", "sitecustomize.py", "usercustomize.py", "*.exe", "*.pth",
    "EXTERNALLY-MANAGED", "lib-dynload/_tkinter*", "lib-dynload/nis.*", "lib-dynload/ossaudiodev.*",
)  # fmt: skip
_STDLIB_TESTS = (
    "**/test", "**/tests",
    "lib-dynload/_test*", "lib-dynload/_ctypes_test*", "lib-dynload/_xxtest*", "lib-dynload/xxlimited*",
)  # fmt: skip
_PACKAGES_EXCLUDED = ("**/__pycache__",)

# Loaded by name while a program runs, so nothing lists them as needed: pthread_cancel() and pthread_exit() open
# libgcc_s.
_OPENED_BY_NAME = ("libgcc_s.so.1",)
_TOOLS = "/usr/bin"
# What ctypes.util.find_library() asks for the list of libraries.
_LDCONFIG = Path("/sbin/ldconfig")
_LOCALES = Path("/usr/lib/locale/C.utf8")

_DIRECTORIES = {
    "/dev": 0o755, "/proc": 0o555, "/sys": 0o555, "/run": 0o755, "/root": 0o700, "/home": 0o755, "/etc": 0o755,
    "/usr/bin": 0o755, "/tmp": 0o1777, "/var/tmp": 0o1777,
}  # fmt: skip
_PROTOCOLS = """\
ip\t0\tIP
icmp\t1\tICMP
igmp\t2\tIGMP
tcp\t6\tTCP
udp\t17\tUDP
ipv6\t41\tIPv6
ipv6-icmp\t58\tIPv6-ICMP
sctp\t132\tSCTP
udplite\t136\tUDPLite
"""
#: Names of ports that programs ask for.
_SERVICES = "".join(
    f"{name}\t{port}/{protocol}{alias}\n"
    for name, port, protocols, alias in (
        ("echo", 7, "tcp udp", ""), ("discard", 9, "tcp udp", "\tsink null"), ("daytime", 13, "tcp udp", ""),
        ("ftp-data", 20, "tcp", ""), ("ftp", 21, "tcp", ""), ("ssh", 22, "tcp", ""), ("telnet", 23, "tcp", ""),
        ("smtp", 25, "tcp", "\tmail"), ("time", 37, "tcp udp", "\ttimserver"), ("domain", 53, "tcp udp", ""),
        ("http", 80, "tcp", "\twww"), ("kerberos", 88, "tcp udp", "\tkerberos5 krb5"), ("pop3", 110, "tcp", "\tpop-3"),
        ("nntp", 119, "tcp", "\treadnews untp"), ("ntp", 123, "udp", ""), ("imap2", 143, "tcp", "\timap"),
        ("snmp", 161, "tcp udp", ""), ("ldap", 389, "tcp udp", ""), ("https", 443, "tcp udp", ""),
        ("submissions", 465, "tcp", "\tssmtp smtps urd"), ("syslog", 514, "udp", ""), ("submission", 587, "tcp", ""),
        ("ldaps", 636, "tcp udp", ""), ("imaps", 993, "tcp", ""), ("pop3s", 995, "tcp", ""),
        ("mysql", 3306, "tcp", ""), ("postgresql", 5432, "tcp", "\tpostgres"),
        ("http-alt", 8080, "tcp udp", "\twebcache"),
    )
    for protocol in protocols.split()
)  # fmt: skip
_LINKS = {"/bin": "usr/bin", "/usr/lib/locale/C.UTF-8": "C.utf8"}
_FILES = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "/etc/group": "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1\tlocalhost\n127.0.1.1\tsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    "/etc/hostname": "sandbox\n",
    "/etc/host.conf": "multi on\n",
    # Names are those of /etc/hosts; there is nobody to ask for others.
    "/etc/resolv.conf": "# There is no name server.\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nnetworks: files\nprotocols: files\n"
    "services: files\n",
    "/etc/protocols": _PROTOCOLS,
    "/etc/services": _SERVICES,
    "/etc/os-release": 'ID=pyvmm\nNAME="pyvmm"\nPRETTY_NAME="pyvmm sandbox"\n',
}
_USER_ID = 1000

Progress = Callable[[str], None]


class ImageInfo(msgspec.Struct, frozen=True):
    """What an image holds: paths are the guest's, sizes in bytes, the digest is the blob's SHA-256 in hexadecimal."""

    packages: tuple[Package, ...]
    inodes: int
    size: int
    digest: str


def build_image(
    recipe: Recipe,
    folder: Path,
    progress: Progress,
    cache: TemplateCache | None = None,
    upgrade: bool = False,
    extra_files: Mapping[str, bytes] | None = None,
) -> ImageInfo:
    """Makes the image of a recipe in ``folder``; ``progress`` is told each step in a few words.

    ``extra_files`` go in as well, contents by path. ``upgrade`` asks the package index anew. Raises
    :class:`TemplateError`, for example when pip fails.
    """
    cache = cache or TemplateCache()
    interpreter = find_interpreter()
    tools = find_tools(recipe.all_tools)
    packages = install_packages(recipe.all_packages, interpreter, cache, progress, upgrade)
    with ImageWriter(folder) as writer:
        builder = _Builder(writer, interpreter, cache)
        builder.skeleton()
        for path, contents in (extra_files or {}).items():
            writer.file(path, contents)
        progress(f"collecting {len(tools)} tools")
        builder.tools(tools)
        for place, name in recipe.runtime.files.items():
            builder.program(packages.folder / name, place)
        if recipe.runtime.python:
            progress(f"collecting Python {interpreter.version} and its standard library")
            builder.interpreter_files(with_tests=recipe.stdlib_tests)
            progress(f"collecting {len(packages.packages)} packages")
            builder.package_files(packages.folder, recipe.exclude)
        progress("collecting shared libraries")
        builder.shared_libraries(packages.folder)
        progress("writing the image")
        writer.finish()
    with Image.open(folder, verify=False) as image:
        return ImageInfo(
            packages=packages.packages,
            inodes=len(image.inodes),
            size=image.blob_size,
            digest=image.digest.hex(),
        )


class _Builder:
    """Fills an image; remembers which ELF files it took, for their libraries come last."""

    def __init__(self, writer: ImageWriter, interpreter: Interpreter, cache: TemplateCache) -> None:
        self._writer = writer
        self._interpreter = interpreter
        self._cache = cache
        self._elves: list[Path] = []
        self._programs: list[Path] = []
        self._scrub = Scrubber(_host_prefixes(interpreter))

    def skeleton(self) -> None:
        """What every image has, whatever runs in it."""
        for path, mode in _DIRECTORIES.items():
            self._writer.directory(path, mode)
        for path, target in _LINKS.items():
            self._writer.symlink(path, target)
        for path, text in _FILES.items():
            self._writer.file(path, text.encode())
        self._writer.directory("/home/user", 0o755, uid=_USER_ID, gid=_USER_ID)
        self._tree(_LOCALES, str(_LOCALES), ())

    def tools(self, tools: Mapping[str, Path]) -> None:
        """Programs of this host by name. A name that is only a link here is one there: some programs do by their name
        what they do.
        """
        places: dict[Path, str] = {}
        own = {path for name, path in tools.items() if name == path.name}
        for name, path in tools.items():
            if path not in places:
                taken = path not in own and (path.name in tools or f"{_TOOLS}/{path.name}" in self._writer)
                places[path] = name if taken else path.name
                self.program(path, f"{_TOOLS}/{places[path]}")
            if places[path] != name:
                self._writer.symlink(f"{_TOOLS}/{name}", places[path])

    def program(self, source: Path, guest: str) -> None:
        """A program and, in the end, the libraries without which it does not start."""
        if not source.is_file():
            raise TemplateError(f"there is no {source}, which was to be {guest}")
        self._file(source, guest, 0o755)
        if is_elf(source):
            self._programs.append(source)

    def interpreter_files(self, with_tests: bool) -> None:
        """The program, its usual names, and the standard library."""
        guest = self._interpreter.guest_executable
        self.program(self._interpreter.executable, guest)
        for name in ("python3", "python"):
            self._writer.symlink(f"{GUEST_PREFIX}/bin/{name}", guest.rpartition("/")[2])
        excluded = _STDLIB_EXCLUDED if with_tests else _STDLIB_EXCLUDED + _STDLIB_TESTS
        self._modules(self._interpreter.stdlib, self._interpreter.guest_stdlib, excluded)

    def package_files(self, folder: Path, excluded: tuple[str, ...]) -> None:
        """What pip installed."""
        self._writer.directory(self._interpreter.guest_site)
        self._modules(folder, self._interpreter.guest_site, _PACKAGES_EXCLUDED + excluded)
        if (folder / "tzdata/zoneinfo").is_dir():
            # Where the C library looks for what the variable TZ names.
            self._writer.symlink("/usr/share/zoneinfo", f"{self._interpreter.guest_site}/tzdata/zoneinfo")

    def shared_libraries(self, packages: Path) -> None:
        """The loader, and the libraries that it will look for, where it looks for them without configuration."""
        loaders = {Loader(program).path: Loader(program) for program in self._programs if elf_interpreter(program)}
        if not loaders:
            return  # all are static
        if len(loaders) > 1:
            raise TemplateError(f"the programs need different dynamic loaders: {', '.join(sorted(loaders))}")
        (loader,) = loaders.values()
        folder = loader.search_folder()
        self._file(Path(os.path.realpath(loader.path)), loader.path, 0o755)
        libraries = loader.resolve(self._elves)
        for soname in _OPENED_BY_NAME:
            system = Path(folder) / soname
            if system.exists():
                libraries.found.setdefault(soname, system)
        for program in self._programs:
            if missing := libraries.missing.get(program):
                raise TemplateError(f"{program} needs libraries that are not there: {', '.join(missing)}")
        inside = os.path.realpath(packages) + "/"
        places = {}
        for soname, path in sorted(libraries.found.items()):
            real = os.path.realpath(path)
            if real.startswith(inside) or soname == os.path.basename(loader.path):
                continue  # part of a package, found by the package's own run path
            self._library(soname, path, Path(real), folder)
            places[soname] = f"{folder}/{soname}"
        self._writer.file("/etc/ld.so.cache", loader_cache(places))
        if _LDCONFIG.exists():
            self._file(_LDCONFIG, str(_LDCONFIG), 0o755)

    def _library(self, soname: str, path: Path, real: Path, folder: str) -> None:
        place = f"{folder}/{soname}"
        if own := self._below_prefix(path):
            # A library of the interpreter's own installation: where its run path points, and where the loader looks
            # anyway.
            if own not in self._writer:
                self._file(real, own, 0o755)
            if own != place:
                self._writer.symlink(place, own)
        else:
            self._file(real, place, 0o755)

    def _below_prefix(self, path: Path) -> str | None:
        for prefix in self._interpreter.prefixes:
            if prefix not in (Path("/"), Path("/usr")) and path.is_relative_to(prefix):
                return f"{GUEST_PREFIX}/{path.relative_to(prefix)}"
        return None

    def _modules(self, folder: Path, guest: str, excluded: tuple[str, ...]) -> None:
        """A tree of modules, each with its byte code."""
        sources: dict[str, bytes] = {}
        for name in self._tree(folder, guest, excluded):
            if name.endswith(".py"):
                path = folder / name
                sources[f"{guest}/{name}"] = self._scrub(path.read_bytes(), elf=False)
        for module, code in compile_modules(self._interpreter, sources, self._cache).items():
            self._writer.file(pyc_path(self._interpreter, module), code)

    def _tree(self, folder: Path, guest: str, excluded: tuple[str, ...]) -> list[str]:
        """Adds the files below a folder; returns their names relative to it."""
        names = list(files_below(folder, excluded))
        for name in names:
            self._file(folder / name, f"{guest}/{name}", 0o755 if os.access(folder / name, os.X_OK) else 0o644)
        return names

    def _file(self, source: Path, guest: str, mode: int) -> None:
        elf = is_elf(source)
        if elf:
            self._elves.append(source)
        data = source.read_bytes()
        clean = self._scrub(data, elf)
        # What needs no change is read again when the image is written: holding it all would take as much memory as
        # the image.
        self._writer.file(guest, source if clean is data else clean, mode)


class Scrubber:
    """Replaces prefixes of the host by the guest's in the contents of files.

    In ELF files lengths must stay, and so must the last component of a prefix that is a string of its own: linkers
    let a string that is the end of another share its bytes, so the version in ``sys.version`` may be the end of
    ``/home/me/versions/3.11.7``.
    """

    def __init__(self, prefixes: list[str]) -> None:
        # Longest first, lest a prefix of a prefix spoils it; only whole path components.
        names = sorted((os.fsencode(prefix) for prefix in prefixes), key=lambda name: (-len(name), name))
        self._pattern = re.compile(b"(" + b"|".join(map(re.escape, names)) + rb")(\0|(?![\w.-]))") if names else None

    def __call__(self, data: bytes, elf: bool) -> bytes:
        """The very same object when there was nothing to replace."""
        if self._pattern is None or not self._pattern.search(data):
            return data
        return self._pattern.sub(_same_length if elf else rb"%s\2" % GUEST_PREFIX.encode(), data)


def _same_length(match: re.Match[bytes]) -> bytes:
    prefix, end = match.groups()
    last = b"/" + prefix.rpartition(b"/")[2] if end else b""
    room = len(prefix) - len(last)
    for new in (GUEST_PREFIX.encode(), b"/usr", b"/", b""):
        if len(new) <= room:
            return new.ljust(room, b"/") + last + end
    raise AssertionError("the empty prefix always fits")


def files_below(folder: Path, excluded: tuple[str, ...]) -> Iterator[str]:
    """Names of the files below a folder, relative to it and sorted; links count as what they point to, dangling ones
    not at all.

    ``excluded`` are patterns over these names: ``*`` stays within a component, ``**`` is any number of them, and what
    matches is left out with everything below it.
    """
    patterns = [re.compile(_pattern(each)) for each in excluded]

    def visit(relative: str) -> Iterator[str]:
        try:
            entries = sorted(os.scandir(folder / relative), key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        for entry in entries:
            name = f"{relative}/{entry.name}" if relative else entry.name
            if any(pattern.fullmatch(name) for pattern in patterns):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from visit(name)
            elif entry.is_file():
                yield name

    return visit("")


def _pattern(glob: str) -> str:
    parts = glob.split("/")
    pieces = [r"(?:[^/]+/)*" if part == "**" else _component(part) + "/" for part in parts[:-1]]
    return "".join(pieces) + (r".+" if parts[-1] == "**" else _component(parts[-1]))


def _component(glob: str) -> str:
    return "".join({"*": "[^/]*", "?": "[^/]"}.get(letter) or re.escape(letter) for letter in glob)


def _host_prefixes(interpreter: Interpreter) -> list[str]:
    """Paths of this host that may be inside files: the interpreter's, in both spellings where there is a link in it."""
    given = [*interpreter.prefixes, Path(sys.prefix), Path(sys.base_prefix)]
    spelled = {str(path) for prefix in given for path in (prefix, Path(os.path.realpath(prefix)))}
    return sorted(spelled - {"/", "/usr", GUEST_PREFIX})
