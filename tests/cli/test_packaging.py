"""What an installed pyvmm brings: one name at the top, all data files, and a command that starts quickly."""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "pyvmm", "api", "guest", "bench", "tests")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy: setuptools writes into the folder that it builds from."""
    copy, target = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        target,
    ]
    subprocess.run([*command, copy], check=True, capture_output=True)
    (file,) = target.glob("*.whl")
    return zipfile.ZipFile(file)


def test_only_pyvmm_is_at_the_top(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pyvmm"}


def test_every_module_and_data_file_is_there(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    expected = {"pyvmm/py.typed", "pyvmm/guest/python.toml", "pyvmm/guest/agent.sh"}
    for folder, place in (("pyvmm", "pyvmm"), ("api", "pyvmm/api"), ("guest", "pyvmm/guest")):
        for suffix in ("*.py", "*.so", "*.S", "*.toml", "*.s", "*.inc", "*.elf", "*.bin", "*.lst"):
            expected |= {f"{place}/{path.relative_to(ROOT / folder)}" for path in (ROOT / folder).rglob(suffix)}
    assert expected - names == set()


def test_the_wheel_works_unpacked(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    code = (
        "import importlib.util, pyvmm, pyvmm.api, pyvmm.guest, pyvmm.cli\n"
        "from pyvmm.template.recipe import load_recipe\n"
        "print(load_recipe('python').name, *map(importlib.util.find_spec, ('api', 'guest', 'bench', 'tests')))\n"
        "print(pyvmm.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == ["python None None None None", str(tmp_path / "site" / "pyvmm" / "__init__.py")]


def test_the_command_starts_quickly(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("pyvmm")), "--help"]
    times = []
    for _ in range(5):
        start = time.perf_counter()
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - start)
    assert ran.stdout.startswith("Usage: pyvmm")
    assert min(times) < 0.5


def test_the_help_imports_little(tmp_path: Path) -> None:
    heavy = {"falcon", "rich", "numpy", "ctypes", "psutil"}
    code = f"import sys, pyvmm.cli; print(*{{name.split('.')[0] for name in sys.modules}} & {heavy})"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
