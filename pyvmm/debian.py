"""Packages of Debian, fetched and unpacked, never installed: the kernel of the lab and of Linux templates.

apt does the fetching, with folders of its own inside the cache: the host's own sources and lists are neither used nor
changed, no privileges are needed, and every host gets the same packages, Ubuntu too. apt checks the signature of the
index with Debian's keyring, and here the package is checked once more against the SHA-256 in the index.

What has been fetched is used until somebody asks for an upgrade, so that nothing is asked of the network twice.
"""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from pyvmm.errors import HostError
from pyvmm.template.cache import TemplateCache

SUITE = "bookworm"
_ARCHIVE = "http://deb.debian.org/debian"  # plain HTTP, as Debian itself has it: the signature is what is trusted
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
KERNEL = "linux-image-cloud-amd64"
_SECONDS = 600

Progress = Callable[[str], None]


class Package(msgspec.Struct, frozen=True):
    """A package of the index; ``depends`` is the field as it stands there, ``sha256`` in hexadecimal."""

    name: str
    version: str
    sha256: str
    depends: str = ""


class Kernel(msgspec.Struct, frozen=True):
    """Debian's stock kernel for clouds: the bzImage, and ``/lib/modules/<release>``."""

    version: str
    release: str
    bzimage: Path
    modules: Path


def fetch_kernel(cache: TemplateCache, progress: Progress, *, upgrade: bool = False) -> Kernel:
    """The newest cloud kernel of the suite, or the one that was fetched before.

    Raises :class:`HostError` when apt is not there or fails.
    """
    package, folder = fetch_package(KERNEL, cache, progress, upgrade=upgrade, find=_find_kernel)
    release = package.name.removeprefix("linux-image-")
    return Kernel(package.version, release, folder / f"boot/vmlinuz-{release}", folder / f"lib/modules/{release}")


def fetch_package(
    name: str,
    cache: TemplateCache,
    progress: Progress,
    *,
    upgrade: bool = False,
    find: Callable[[str, TemplateCache], Package] | None = None,
) -> tuple[Package, Path]:
    """The newest package of that name in the suite, or the one that was fetched before, and the folder with its files.

    ``find`` is how it is found in the index, if not just by its name. Raises :class:`HostError` when apt is not there
    or fails.
    """
    kept = kept_path(name, cache)
    if not upgrade:
        try:
            package = msgspec.json.decode(kept.read_bytes(), type=Package)
            return package, unpacked(package, cache, progress)
        except (OSError, msgspec.DecodeError):
            pass
    update_index(cache, progress)
    package = (find or find_package)(name, cache)
    folder = unpacked(package, cache, progress)
    cache.write_file(kept, msgspec.json.encode(package))
    return package, folder


def update_index(cache: TemplateCache, progress: Progress) -> None:
    """Ask Debian's archive for its list of packages (9 MB). Raises :class:`HostError`."""
    progress(f"asking {_ARCHIVE} for the packages of {SUITE}")
    _apt("apt-get", cache, "update")


def find_package(name: str, cache: TemplateCache) -> Package:
    """A package of the index. Raises :class:`HostError` when it has none of that name."""
    text = _apt("apt-cache", cache, "show", "--no-all-versions", name)
    fields = dict(re.findall(r"^([\w-]+): *(.*)$", text, re.MULTILINE))
    try:
        return Package(name, fields["Version"], fields["SHA256"], fields.get("Depends", ""))
    except KeyError:
        raise HostError(f"Debian {SUITE} has no package {name}") from None


def unpacked(package: Package, cache: TemplateCache, progress: Progress) -> Path:
    """The folder with a package's files, fetched if it is not there. Raises :class:`HostError`."""
    with cache.layer_folder("debian", f"{package.name}_{package.sha256[:32]}", progress) as (folder, finished):
        if not finished:
            progress(f"fetching {package.name} {package.version}")
            _apt("apt-get", cache, "download", f"{package.name}={package.version}", cwd=folder)
            (archive,) = folder.glob("*.deb")
            digest = hashlib.sha256(archive.read_bytes()).hexdigest()
            if digest != package.sha256:
                raise HostError(f"{archive.name} has the SHA-256 {digest}, the index of Debian says {package.sha256}")
            _run(["dpkg-deb", "--extract", str(archive), str(folder)])
            archive.unlink()
    return cache.home / "layers" / "debian" / f"{package.name}_{package.sha256[:32]}"


def module_files(kernel: Kernel, names: Iterable[str]) -> list[Path]:
    """The files of modules (``kvm_amd``) and of all that they depend on, in an order in which they can be loaded.

    Raises :class:`HostError` when the kernel has no such module.
    """
    files = {_module_name(path): path for path in kernel.modules.glob("kernel/**/*.ko")}
    order: dict[str, Path] = {}

    def visit(name: str) -> None:
        if name in order:
            return
        if name not in files:
            raise HostError(f"Linux {kernel.release} has no module {name}")
        for other in _dependencies(files[name]):
            visit(other)
        order[name] = files[name]

    for name in names:
        visit(name)
    return [*order.values()]


def _dependencies(module: Path) -> Iterator[str]:
    """``depends=`` of the section .modinfo (scripts/mod/modpost.c writes it)."""
    found = re.search(rb"\0depends=([\w,-]*)\0", module.read_bytes())
    return (name.replace("-", "_") for name in found[1].decode().split(",") if name) if found else iter(())


def _module_name(path: Path) -> str:
    return path.stem.replace("-", "_")


def _find_kernel(name: str, cache: TemplateCache) -> Package:
    # The package of this name is empty: it depends on the one with the release in its name.
    found = re.search(r"\blinux-image-\S+-cloud-amd64\b", find_package(name, cache).depends)
    if found is None:
        raise HostError(f"Debian's {name} names no kernel that it depends on")
    return find_package(found[0], cache)


def kept_path(name: str, cache: TemplateCache) -> Path:
    """The file that says which version of a package was fetched."""
    return cache.home / "debian" / f"{SUITE}-{name}.json"


def _apt(tool: str, cache: TemplateCache, *arguments: str, cwd: Path | None = None) -> str:
    if not _KEYRING.exists():
        raise HostError(f"{_KEYRING} is missing, which Debian's packages are checked with: apt install {_KEYRING.stem}")
    home = cache.home.absolute() / "debian"
    (home / "lists/partial").mkdir(parents=True, exist_ok=True)
    (home / "archives/partial").mkdir(parents=True, exist_ok=True)
    sources, status = home / "sources.list", home / "status"
    sources.write_text(f"deb [signed-by={_KEYRING}] {_ARCHIVE} {SUITE} main\n")
    status.touch()
    options = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "-",
        "Dir::State": home,
        "Dir::State::Lists": home / "lists",
        "Dir::State::Status": status,
        "Dir::Cache": home,
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": 3,
    }
    settings = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    return _run([tool, *settings, *arguments], cwd)


def _run(command: list[str], cwd: Path | None = None) -> str:
    if shutil.which(command[0]) is None:
        raise HostError(f"{command[0]} is not there: packages of Debian are fetched on Debian and Ubuntu only")
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, cwd=cwd
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"{command[0]} did not end within {_SECONDS} s") from None
    complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg-deb: error"))]
    # `apt-get update` ends well when the archive could not be reached, and keeps what it had.
    failed_to_fetch = "Failed to fetch" in done.stderr
    if failed_to_fetch or (done.returncode != 0 and (complaints or command[0] != "apt-cache")):
        lines = complaints or [line for line in done.stderr.splitlines() if line.strip()]
        raise HostError(f"{command[0]} {command[-1]} failed: " + "; ".join(lines[-3:]))
    return done.stdout
