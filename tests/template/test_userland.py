"""The image of a Python template: it works moved to another place, and nothing of this host is in it."""

import marshal
import os
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pyvmm.errors import TemplateError
from pyvmm.image import BLOB_NAME, INDEX_NAME, Image
from pyvmm.template.cache import TemplateCache
from pyvmm.template.interpreter import find_interpreter
from pyvmm.template.libraries import Loader, loader_cache
from pyvmm.template.packages import Package
from pyvmm.template.recipe import Recipe, load_recipe
from pyvmm.template.userland import ImageInfo, Scrubber, build_image, files_below

PYTHON = load_recipe("python").runtime
TOOLS = ("sh", "ls", "awk")
SITE = find_interpreter().guest_site
STDLIB = find_interpreter().guest_stdlib
TAG = find_interpreter().cache_tag


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel that brings a script, a ``.pth`` file, tests, and a module that is not valid."""
    folder = tmp_path_factory.mktemp("wheels")
    info = "little_pkg-1.5.dist-info"
    files = {
        "little_pkg/__init__.py": "def where():\n    return __file__\n",
        "little_pkg/broken.py": "def\n",
        "little_pkg/tests/test_it.py": "raise SystemExit\n",
        "little_pkg-evil.pth": "import os; os.abort()\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: Little.Pkg\nVersion: 1.5\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nlittle = little_pkg:where\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / "little_pkg-1.5-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> TemplateCache:
    return TemplateCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def little(wheels: Path, cache: TemplateCache, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImageInfo]:
    """The image of a recipe with that package, and what is said of it."""
    folder = tmp_path_factory.mktemp("little")
    recipe = Recipe(name="little", runtime=PYTHON, packages=("little-pkg",), exclude=("**/tests",), tools=TOOLS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(wheels))
        return folder, build_image(recipe, folder, lambda text: None, cache, extra_files={"/opt/agent": b"text"})


def extract(folder: Path, target: Path) -> None:
    with Image.open(folder) as image:
        for path, inode in image.walk():
            place = Path(f"{target}{path}")
            if inode.children is not None:
                place.mkdir(parents=True, exist_ok=True)
            elif inode.target is not None:
                place.symlink_to(os.fsdecode(inode.target))
            else:
                place.write_bytes(image.read(inode, 0, inode.size))
                place.chmod(stat.S_IMODE(inode.mode))


def host_paths() -> list[bytes]:
    """Paths of this host that must not be in any image; a prefix that is the guest's own is none."""
    home = os.path.expanduser("~")
    cache = os.environ.get("PYVMM_HOME", f"{home}/.cache")
    paths = {sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix), cache, f"{home}/.", os.getcwd()}
    return sorted(os.fsencode(path) for path in paths - {"/", "/usr", "/usr/local"})


def occurrences(folder: Path, needle: bytes) -> list[bytes]:
    found = []
    for name in (BLOB_NAME, INDEX_NAME):
        data = (folder / name).read_bytes()
        found += [
            data[max(0, match.start() - 40) : match.end() + 40]
            for match in re.finditer(re.escape(needle) + (b"" if needle.endswith(b".") else rb"(?![\w-])"), data)
        ]
    return found


def test_no_host_path_is_in_a_small_image(little: tuple[Path, ImageInfo], wheels: Path) -> None:
    for needle in [*host_paths(), os.fsencode(wheels)]:
        assert occurrences(little[0], needle) == [], needle


@pytest.mark.slow
def test_no_host_path_is_in_the_builtin_image(tmp_path: Path) -> None:
    build_image(load_recipe("python"), tmp_path, lambda text: None)
    for needle in host_paths():
        assert occurrences(tmp_path, needle) == [], needle


def test_what_an_image_is_said_to_hold(little: tuple[Path, ImageInfo]) -> None:
    folder, info = little
    with Image.open(folder) as image:
        assert info.packages == (Package("little-pkg", "1.5"),)
        assert (info.inodes, info.size, info.digest) == (len(image.inodes), image.blob_size, image.digest.hex())
        program = image.lookup("/usr/local/bin/python")
        assert program is not None
        assert program is image.lookup(f"/usr/local/bin/python{sys.version_info[0]}.{sys.version_info[1]}")
        assert stat.S_IMODE(program.mode) == 0o755
        agent = image.lookup("/opt/agent")
        assert agent is not None
        assert image.read(agent, 0, 99) == b"text"


def test_the_skeleton(little: tuple[Path, ImageInfo]) -> None:
    with Image.open(little[0]) as image:
        inodes = dict(image.walk())
        assert stat.S_IMODE(inodes["/tmp"].mode) == 0o1777
        assert (inodes["/home/user"].uid, inodes["/home/user"].children) == (1000, {})
        for path in ("/dev", "/proc", "/sys", "/run"):
            assert inodes[path].children == {}
        for path in ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf"):
            assert inodes[path].size > 0
        assert b"nameserver" not in image.read(inodes["/etc/resolv.conf"], 0, 1000)
        assert "/etc/localtime" not in inodes


def test_what_stays_out(little: tuple[Path, ImageInfo]) -> None:
    with Image.open(little[0]) as image:
        paths = [path for path, _ in image.walk()]
    assert f"{SITE}/little_pkg/__init__.py" in paths
    assert not [path for path in paths if path.endswith((".pth", ".exe", "direct_url.json"))]
    for name in (f"{SITE}/bin", f"{SITE}/little_pkg/tests", f"{SITE}/pip", f"{SITE}/pytest"):
        assert name not in paths
    for name in ("test", "idlelib", "ensurepip", "sitecustomize.py", "unittest/test"):
        assert f"{STDLIB}/{name}" not in paths


def test_every_module_has_its_byte_code(little: tuple[Path, ImageInfo]) -> None:
    with Image.open(little[0]) as image:
        inodes = dict(image.walk())
        modules = [path for path in inodes if path.endswith(".py")]
        missing = []
        for module in modules:
            folder, _, name = module.rpartition("/")
            code = inodes.get(f"{folder}/__pycache__/{name[:-3]}.{TAG}.pyc")
            if code is None:
                missing.append(module)
            else:
                assert image.read(code, 4, 4) == b"\x01\0\0\0", module  # PEP 552: hash-based, unchecked
    assert missing == [f"{SITE}/little_pkg/broken.py"]


def test_byte_code_names_the_files_of_the_guest(little: tuple[Path, ImageInfo]) -> None:
    with Image.open(little[0]) as image:
        inode = image.lookup(f"{SITE}/little_pkg/__pycache__/__init__.{TAG}.pyc")
        assert inode is not None
        code = marshal.loads(image.read(inode, 16, inode.size))
    assert code.co_filename == f"{SITE}/little_pkg/__init__.py"


def test_the_image_runs_moved_elsewhere(little: tuple[Path, ImageInfo], tmp_path: Path) -> None:
    """Run on this host by its own loader and libraries: what a guest will do, but for the system calls."""
    folder, _ = little
    extract(folder, tmp_path)
    loader = Loader(find_interpreter().executable)
    code = (
        "import sys, platform, ssl, sqlite3, ctypes, lzma, bz2, zlib, decimal, hashlib, little_pkg\n"
        "print(sys.version == sys.argv[1], platform.python_version(), little_pkg.where())\n"
        "print(sys.prefix, *sorted(path for path in sys.path if path), sep='\\n')"
    )
    libraries = f"{tmp_path}{loader.search_folder()}:{tmp_path}/usr/local/lib"
    command = [
        f"{tmp_path}{loader.path}",
        "--library-path",
        libraries,
        f"{tmp_path}{find_interpreter().guest_executable}",
    ]
    environment = {"PYTHONHOME": f"{tmp_path}/usr/local", "LC_ALL": "C.UTF-8"}
    ran = subprocess.run([*command, "-s", "-c", code, sys.version], env=environment, capture_output=True, text=True)
    assert ran.stderr == ""
    first, prefix, *paths = ran.stdout.splitlines()
    assert first == f"True {'.'.join(map(str, sys.version_info[:3]))} {tmp_path}{SITE}/little_pkg/__init__.py"
    assert prefix == f"{tmp_path}/usr/local"
    assert all(path.startswith(f"{tmp_path}/usr/local/") for path in paths)


def test_equal_input_gives_equal_images(
    little: tuple[Path, ImageInfo], wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    recipe = Recipe(name="again", runtime=PYTHON, packages=("little-pkg",), exclude=("**/tests",), tools=TOOLS)
    again = build_image(
        recipe,
        tmp_path / "image",
        lambda text: None,
        TemplateCache(tmp_path / "other cache"),
        extra_files={"/opt/agent": b"text"},
    )
    assert again == little[1]
    assert (tmp_path / "image" / INDEX_NAME).read_bytes() == (little[0] / INDEX_NAME).read_bytes()


def test_a_package_that_does_not_exist(cache: TemplateCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    recipe = Recipe(name="none", runtime=PYTHON, packages=("no-such-package",))
    with pytest.raises(TemplateError, match=r"pip could not install the packages: .*no-such-package"):
        build_image(recipe, tmp_path / "image", lambda text: None, cache)
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize(
    ("prefix", "elf", "before", "after"),
    [
        ("/opt/my/python", True, b"/opt/my/python/lib\0", b"/usr/local/////lib\0"),
        ("/opt/my/python", True, b"/opt/my/python\0", b"/usr////python\0"),
        ("/opt/my/python", True, b"/opt/my/python3\0", b"/opt/my/python3\0"),
        ("/opt/py", True, b"/opt/py/lib\0", b"/usr////lib\0"),
        ("/p", True, b"/p/lib\0/p\0", b"///lib\0/p\0"),
        ("/opt/my/python", False, b"prefix=/opt/my/python\n", b"prefix=/usr/local\n"),
        ("/opt/my/python", False, b"/opt/my/python-old", b"/opt/my/python-old"),
    ],
)
def test_prefixes_are_replaced(prefix: str, elf: bool, before: bytes, after: bytes) -> None:
    assert Scrubber([prefix])(before, elf) == after


def test_files_below_a_folder(tmp_path: Path) -> None:
    for name in ("a/x.py", "a/tests/t.py", "a/b/tests/deep/t.py", "tests.py", "c/d.txt", "c/d.bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "c" / "link.py").symlink_to("../tests.py")
    assert list(files_below(tmp_path, ("**/tests", "c/*.bin"))) == ["a/x.py", "c/d.txt", "c/link.py", "tests.py"]
    assert list(files_below(tmp_path, ("*",))) == []
    assert list(files_below(tmp_path / "not there", ())) == []


def test_ldconfig_reads_the_cache_of_libraries(tmp_path: Path) -> None:
    if not Path("/sbin/ldconfig").exists():
        pytest.skip("no ldconfig on this machine")
    places = {"libc.so.6": "/lib/libc.so.6", "libx.so.10": "/x/10", "libx.so.9": "/x/9"}
    (tmp_path / "cache").write_bytes(loader_cache(places))
    listed = subprocess.run(
        ["/sbin/ldconfig", "-p", "-C", tmp_path / "cache"], capture_output=True, text=True, check=True
    ).stdout
    lines = [line.split() for line in listed.splitlines() if "=>" in line]
    assert [(line[0], line[1], line[-1]) for line in lines] == [
        ("libx.so.10", "(libc6,x86-64)", "/x/10"),
        ("libx.so.9", "(libc6,x86-64)", "/x/9"),
        ("libc.so.6", "(libc6,x86-64)", "/lib/libc.so.6"),
    ]
