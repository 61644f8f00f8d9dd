"""What is inside the emulated host.

Two archives make its first file system. The base has what changes rarely and is kept in the cache under a key of all
that it depends on: the interpreter that runs pyvmm, at ``/usr/local``; the packages that pyvmm and its tests need, in
the versions installed here; the tools of this host that images are made of; and packages and byte code of the python
recipe, so that its template can be built without a network and without compiling. The other is made anew for every
start: pyvmm itself, its tests, kernel modules, and what is to be run.
"""

import importlib.metadata
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyvmm
import pyvmm.api
import pyvmm.guest
from pyvmm.debian import Kernel, fetch_kernel, module_files
from pyvmm.errors import HostError
from pyvmm.image import Image
from pyvmm.initramfs import Archive
from pyvmm.template.bytecode import compile_now, pyc_path
from pyvmm.template.cache import TemplateCache, content_key
from pyvmm.template.interpreter import find_interpreter, interpreter_identity
from pyvmm.template.linux import package_files
from pyvmm.template.recipe import Recipe, Runtime, load_recipe
from pyvmm.template.tools import tools_identity
from pyvmm.template.userland import IMAGE_FORMAT, build_image

_FORMAT = 2
#: Where things are inside.
CHECKOUT = "/srv/pyvmm"
HOME = "/root/.cache/pyvmm"
_MODULES = "/lib/modules"
_JOB = "/lab/job.json"

_PYTHON = "/usr/local/bin/python3"
_INIT = f"#!{_PYTHON} -IB\nfrom runpy import run_path\nrun_path('{CHECKOUT}/pyvmm/lab/init.py', run_name='__main__')\n"
_SCRIPT = f"#!{_PYTHON}\nfrom pyvmm.cli import main\nmain()\n"
#: Tools for those who work on the code: nothing that runs inside needs them.
_LEFT_OUT = {"mypy", "ruff", "pip", "setuptools"}
#: Of a checkout, what the tests read beside the code.
_CHECKOUT_TREES = ("tests", "bench", "docs")
_CHECKOUT_FILES = ("pyproject.toml", "setup.py", "Makefile", "README.md", "LICENSE")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Contents:
    """The kernel of the emulated host, the archive that changes rarely, and files of the cache (by their paths below
    it) that a Linux template is built from.
    """

    kernel: Kernel
    base: Path
    packages: dict[str, Path]


def prepare(progress: Progress, cache: TemplateCache | None = None, *, upgrade: bool = False) -> Contents:
    """Kernel and base archive, fetched and built unless the cache has them; ``upgrade`` asks for newer packages.

    Raises :class:`HostError` or :class:`TemplateError` when a package cannot be had.
    """
    cache = cache or TemplateCache()
    kernel = fetch_kernel(cache, progress, upgrade=upgrade)
    recipe, python = _recipe(), load_recipe("python")
    key = content_key(
        {
            "format": _FORMAT,
            "image": IMAGE_FORMAT,
            "interpreter": interpreter_identity(),
            "recipe": recipe.encode(),
            "tools": tools_identity(recipe.all_tools),
            "python": python.encode(),
        }
    )
    with cache.layer_folder("lab", key, progress) as (folder, finished):
        if not finished:
            _build_base(folder, recipe, python, cache, progress)
    packages = {str(path.relative_to(cache.home)): path for path in package_files(cache, progress)}
    return Contents(kernel, cache.home / "layers" / "lab" / key / "base.cpio", packages)


def checkout() -> Path:
    """The folder that pyvmm runs from. Raises :class:`HostError` when its tests are not there."""
    folder = Path(pyvmm.__file__).parents[1]
    if not (folder / "tests").is_dir() or not (folder / "pyproject.toml").is_file():
        raise HostError("the lab runs the tests of a checkout of pyvmm, but this is an installed pyvmm without tests")
    return folder


def top_archive(contents: Contents, modules: Iterable[str], job: bytes, *, tests: bool) -> Archive:
    """What is not in the base: pyvmm, with its tests if they are wanted, kernel modules, and the job."""
    archive = Archive()
    archive.add_file("/init", _INIT.encode(), 0o755)
    archive.add_device("/dev/console", 5, 1)
    archive.add_file(_JOB, job)
    for path, file in module_paths(contents.kernel, modules):
        archive.add_file(path, file)
    sources: dict[str, bytes] = {}
    for name, package in (("pyvmm", pyvmm), ("pyvmm/api", pyvmm.api), ("pyvmm/guest", pyvmm.guest)):
        folder = Path(str(package.__file__)).parent
        archive.add_tree(f"{CHECKOUT}/{name}", folder)
        sources |= {f"{CHECKOUT}/{name}/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*.py")}
    interpreter = find_interpreter()
    for module, code in compile_now(interpreter, sources).items():
        archive.add_file(pyc_path(interpreter, module), code)
    archive.add_file("/usr/local/bin/pyvmm", _SCRIPT.encode(), 0o755)
    if tests:
        for inside, file in contents.packages.items():
            archive.add_file(f"{HOME}/{inside}", file)
        for name in ("api", "guest"):
            archive.add_symlink(f"{CHECKOUT}/{name}", f"pyvmm/{name}")
        for name in _CHECKOUT_TREES:
            archive.add_tree(f"{CHECKOUT}/{name}", checkout() / name)
        for name in _CHECKOUT_FILES:
            archive.add_file(f"{CHECKOUT}/{name}", checkout() / name)
    return archive


def module_paths(kernel: Kernel, names: Iterable[str]) -> list[tuple[str, Path]]:
    """Kernel modules in the order of loading, by their paths inside."""
    return [(f"{_MODULES}/{file.name}", file) for file in module_files(kernel, names)]


def _build_base(folder: Path, recipe: Recipe, python: Recipe, cache: TemplateCache, progress: Progress) -> None:
    archive = Archive()
    progress("the lab's own python template: packages and byte code")
    build_image(python, folder / "image", progress, TemplateCache(folder / "home"))
    archive.add_tree(f"{HOME}/layers", folder / "home" / "layers")
    with Image.open(folder / "image", verify=False) as image:
        archive.add_image(image, "/lib")  # what its packages need is to be found inside
    progress("the lab's userland")
    build_image(recipe, folder / "userland", progress, cache)
    with Image.open(folder / "userland", verify=False) as image:
        archive.add_image(image)
    progress("writing the lab's archive")
    with (folder / "base.cpio").open("wb") as stream:
        archive.write(stream)


def _recipe() -> Recipe:
    """The userland of the emulated host, as the recipe of an image."""
    runtime = Runtime(
        language="lab", agent="agent.py", command=(_PYTHON,), suffixes=(".py",), rehearsal="", python=True
    )
    return Recipe(name="lab", runtime=runtime, packages=tuple(_requirements()), tools=("@usual",))


def _requirements() -> list[str]:
    """What pyvmm and its tests need, as it is installed here, for pip."""
    needed = []
    for line in importlib.metadata.requires("pyvmm") or []:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0].lower()
        if name not in _LEFT_OUT:
            try:
                needed.append(f"{name}=={importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                continue  # a tool for tests, in an installation without them
    return sorted(needed)
