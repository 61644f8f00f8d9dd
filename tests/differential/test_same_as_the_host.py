"""Small programs give the same output, exit code and errno on the host's Linux and in a sandbox.

Both sides run the same interpreter, in a folder of their own that holds the program as ``main.py`` and ``common.py``.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kvm

_FOLDER = Path(__file__).parent / "programs"
_COMMON = _FOLDER / "common.py"
_PROGRAMS = sorted(path for path in _FOLDER.glob("*.py") if path != _COMMON)
_ENVIRONMENT = {"LANG": "C.UTF-8", "HOME": "/home/user", "PYTHONDONTWRITEBYTECODE": "1"}


def _default_signals() -> None:
    """As a program finds them; whoever runs the tests in the background may have SIGINT, SIGQUIT and SIGHUP ignored."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for signo in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGTSTP):
        signal.signal(signo, signal.SIG_DFL)


def on_the_host(folder: Path, program: str) -> tuple[str, int]:
    """What ``python main.py`` prints, and how it ends (128 + n: by signal n)."""
    (folder / "main.py").write_text(program)
    (folder / "common.py").write_text(_COMMON.read_text())
    done = subprocess.run(
        [sys._base_executable, "main.py"],
        cwd=folder,
        env=_ENVIRONMENT,
        input=b"",
        capture_output=True,
        timeout=30,
        preexec_fn=_default_signals,
    )
    return done.stdout.decode(), done.returncode if done.returncode >= 0 else 128 - done.returncode


@pytest.mark.parametrize("path", _PROGRAMS, ids=lambda path: path.stem)
def test_a_program_does_the_same_as_on_the_host(run, tmp_path_factory, path):
    program = path.read_text()
    output, code = on_the_host(tmp_path_factory.mktemp("host"), program)
    result = run(program, timeout=60, files={"common.py": _COMMON.read_bytes()})
    assert (result.stdout.decode(), result.exit_code) == (output, code), result.stderr.decode()
