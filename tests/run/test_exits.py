"""How programs end: exit codes, tracebacks, signals, limits."""

# Programs for the guest are strings; a broken line would not make them clearer.
# ruff: noqa: E501

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.kvm

_HOST_ENVIRONMENT = {"LANG": "C.UTF-8", "HOME": "/", "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def host_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("on-the-host")


def on_the_host(folder: Path, code: str) -> subprocess.CompletedProcess:
    """``python main.py`` with the interpreter that the template's is a copy of, paths shown as the sandbox has them."""
    script = folder / "main.py"
    script.write_bytes(code.encode())
    done = subprocess.run(
        [sys._base_executable, "-s", "main.py"], cwd=folder, env=_HOST_ENVIRONMENT, capture_output=True, timeout=30
    )
    library = str(Path(subprocess.__file__).parent).encode()
    for name in ("stdout", "stderr"):
        text = getattr(done, name).replace(str(script).encode(), b"main.py").replace(library + b"/", b"LIB/")
        setattr(done, name, text)
    return done


def comparable(text: bytes) -> bytes:
    """``text`` without what no two processes have in common: addresses, and how deep the recursion limit lies."""
    text = re.sub(rb"at 0x[0-9a-f]+", b"at 0x", text)
    return re.sub(rb"repeated \d+ more times", b"repeated", text)


def as_on_the_host(text: bytes) -> bytes:
    library = f"/usr/local/lib/python{sys.version_info.major}.{sys.version_info.minor}/".encode()
    return text.replace(b"/home/user/main.py", b"main.py").replace(library, b"LIB/")


_FAILURES = {
    "raise": "def f(x):\n    return g(x)\ndef g(x):\n    raise ValueError(f'bad {x}')\nf(3)",
    "division": "x = 0\ny = (1 +\n     2 / x)\n",
    "syntax": "print(1)\nif True\n    pass\n",
    "indentation": "def f():\nreturn 1\n",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise RuntimeError('outer') from e",
    "during": "try:\n    {}['k']\nexcept KeyError:\n    int('x')",
    "suppressed": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise RuntimeError('only me') from None",
    "group": "raise ExceptionGroup('many', [ValueError(1), ExceptionGroup('inner', [TypeError('t')])])",
    "notes": "e = ValueError('with')\ne.add_note('a note')\nraise e",
    "recursion": "def f(n):\n    return f(n + 1)\nf(0)",
    "library": "import json\njson.loads('{')",
    "unprintable": "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
    "base": "class E(BaseException): pass\nraise E('base')",
    "keyboard": "raise KeyboardInterrupt",
    "import": "import nothing_of_this_name",
    "name": "value = 1\nprint(valeu)",
    "eval": "eval('1 +')",
    "exec": 'exec(\'raise OSError(2, "gone", "file")\')',
    "unicode": "raise ValueError('ä€\U0001f40d\\udcff')",
    "assert": "assert 1 == 2, 'no'",
    "excepthook": "import sys\nsys.excepthook = lambda t, v, tb: print('hook', t.__name__, v, tb.tb_lineno)\n1 / 0",
    "excepthook raises": "import sys\ndef hook(*a):\n    raise KeyError('hook')\nsys.excepthook = hook\n1 / 0",
    "excepthook exits": "import sys\nsys.excepthook = lambda *a: sys.exit(9)\n1 / 0",
    "unraisable": "class A:\n    def __del__(self): raise ValueError('del')\nA()\nprint('on')",
    "deep": "def f(n):\n    if n: f(n - 1)\n    else: 1 / 0\nf(10)",
    "in class": "class A:\n    x = 1 / 0",
    "lambda": "(lambda: [1 for _ in [0] if 1 / 0])()",
    "closed stdout": "import sys\nprint('said')\nsys.stdout.close()",
    "no stdout": "import sys\nsys.stdout = None\nsys.stderr.write('still')\nsys.exit(2)",
    "atexit exits": "import atexit, sys\natexit.register(lambda: sys.exit(5))\nprint('x')",
    "warning": "import warnings\nwarnings.warn('careful')\nprint('on')",
}


@pytest.mark.parametrize("code", _FAILURES.values(), ids=_FAILURES)
def test_a_failure_looks_as_it_does_on_the_host(run, host_folder, code):
    there, here = on_the_host(host_folder, code), run(code)
    assert comparable(as_on_the_host(here.stderr)) == comparable(there.stderr)
    assert as_on_the_host(here.stdout) == there.stdout
    expected = there.returncode if there.returncode >= 0 else 128 - there.returncode
    assert here.exit_code == expected


@pytest.mark.parametrize(
    "code",
    [
        b"print(1)\0",
        b"# coding: nonsense\nprint(1)",
        b"x = '\xff'",
        b"# coding: utf-7\n+AGEAYg",
        b"(" * 100_000,
        b"1" * 100_000,
    ],
    ids=["NUL", "unknown encoding", "not UTF-8", "utf-7", "too deep", "long number"],
)
def test_source_that_is_no_python_is_an_error_of_the_program(run, code):
    result = run(code)
    assert (result.status, result.exit_code) == ("error", 1)
    assert result.stderr.splitlines()[-1].split(b":")[0] in (b"SyntaxError", b"NameError", b"MemoryError")


def test_a_large_source_runs(run):
    code = (
        "x = 0\n" + "x += 1  # and a comment to make the line longer than it would otherwise be\n" * 20_000 + "print(x)"
    )
    assert run(code, timeout=30).stdout == b"20000\n"


_EXITS = [
    "sys.exit()", "sys.exit(0)", "sys.exit(1)", "sys.exit(255)", "sys.exit(256)", "sys.exit(-1)", "sys.exit(2**31)",
    "sys.exit(2**63)", "sys.exit(-2**70)", "sys.exit('a message')", "sys.exit(None)", "sys.exit(True)", "sys.exit(3.7)",
    "sys.exit([1, 2])", "sys.exit('')", "raise SystemExit('m')", "raise SystemExit(4, 5)", "raise SystemExit",
    "exit(6)", "quit()", "os._exit(3)", "os._exit(256)", "os._exit(-1)",
    "try:\n    sys.exit(7)\nfinally:\n    print('finally')",
    "class E(SystemExit): pass\nraise E(8)",
    "print('lost', end='')\nos._exit(0)",
]  # fmt: skip


@pytest.mark.parametrize("code", _EXITS)
def test_an_exit_means_what_it_does_on_the_host(run, host_folder, code):
    code = "import sys, os\n" + code
    there, here = on_the_host(host_folder, code), run(code)
    assert (here.exit_code, here.stdout, here.stderr) == (there.returncode, there.stdout, there.stderr)
    assert here.status == ("ok" if there.returncode == 0 else "error")


_IGNORED = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
#: They would stop the only process for ever; a sandbox does not let them.
_STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


@pytest.mark.parametrize("signo", range(1, 65))
def test_a_signal_to_oneself_does_what_signal_7_says(run, signo):
    result = run(f"import os\nprint('before', flush=True)\nos.kill(os.getpid(), {signo})\nprint('after')")
    if signo in _IGNORED | _STOPPING | {signal.SIGPIPE, signal.SIGXFSZ}:  # Python itself ignores the last two
        assert (result.stdout, result.status) == (b"before\nafter\n", "ok")
    elif signo == signal.SIGINT:
        assert result.stderr.endswith(b"KeyboardInterrupt\n") and result.exit_code == 130
    else:
        assert (result.stdout, result.status, result.exit_code) == (b"before\n", "crashed", 128 + signo)


def test_abort_is_a_signal(run):
    result = run("import os; os.abort()")
    assert (result.status, result.exit_code) == ("crashed", 134)


def test_a_wild_pointer_is_a_segmentation_fault_and_faulthandler_says_where(run):
    result = run("import ctypes, faulthandler\nfaulthandler.enable()\nctypes.string_at(1)")
    assert (result.status, result.exit_code) == ("crashed", 139)
    assert b"Fatal Python error: Segmentation fault" in result.stderr
    assert b'File "/home/user/main.py", line 3 in <module>' in result.stderr


def test_a_handler_in_python_is_called_and_the_program_goes_on(run):
    result = run(
        "import signal, os\n"
        "signal.signal(signal.SIGUSR1, lambda n, frame: print('got', n, frame.f_lineno))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "print('on')"
    )
    assert result.stdout == b"got 10 3\non\n"


def test_a_handler_that_raises_interrupts_the_program(run):
    result = run(
        "import signal\n"
        "def stop(n, frame): raise TimeoutError\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "try:\n    signal.raise_signal(signal.SIGTERM)\nexcept TimeoutError:\n    print('caught')"
    )
    assert result.stdout == b"caught\n"


def test_blocked_signals_wait(run):
    result = run(
        "import signal, os\n"
        "signal.signal(signal.SIGUSR1, lambda *a: print('handled'))\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "print(signal.sigpending())\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})\n"
        "print('end')"
    )
    assert result.stdout == b"{<Signals.SIGUSR1: 10>}\nhandled\nend\n"


def test_a_signal_is_waited_for(run):
    result = run(
        "import signal, os\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {34, 40})\n"
        "os.kill(os.getpid(), 40)\n"
        "print(signal.sigwaitinfo({34, 40}).si_signo, signal.sigtimedwait({34}, 0.01))"
    )
    assert result.stdout == b"40 None\n"


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import os\nwhile True: os.getppid()",
        "import time\ntime.sleep(1e9)",
        "import time\nwhile True: time.sleep(0.001)",
        "import signal\nsignal.pause()",
        "import signal\nsignal.sigwait({10})",
        "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
        "import select\nselect.select([], [], [])",
        "import select\np = select.poll(); p.poll()",
        "import os\nr, w = os.pipe(); os.read(r, 1)",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except Exception: pass\nwhile 1: pass",
        "import threading\nthreading.Lock().acquire(); l = threading.Lock(); l.acquire(); l.acquire()",
        "sum(range(10**12))",
        "import time\nwhile True: time.time()",
        "import numpy\na = numpy.ones((300, 300))\nwhile True: a = a @ a * 0",
        "def f():\n    yield from f2()\ndef f2():\n    while True: yield\nfor _ in f(): pass",
    ],
)
def test_a_program_without_an_end_is_stopped_at_its_limit(run, code):
    result = run("print('started', flush=True)\n" + code, timeout=0.3)
    assert (result.status, result.exit_code, result.stdout) == ("timeout", -1, b"started\n")
    assert 0.25 <= result.exec_seconds < 0.8


@pytest.mark.parametrize("timeout", [0, 1e-9, -1, -1e9])
def test_no_time_at_all_is_a_clear_answer(run, timeout):
    from pyvmm import ForkFailed

    # Either the program has had no time to begin, or it is stopped: it never runs without a limit.
    try:
        result = run("while True: pass", timeout=max(timeout, 0) if timeout > -2 else timeout)
    except (ForkFailed, ValueError):
        return
    assert result.status == "timeout"


def test_a_run_can_be_stopped_from_another_thread(template):
    import threading

    with template.fork(sinks=(lambda data: threading.Thread(target=sandbox.stop).start(), None)) as sandbox:
        result = sandbox.run("print('now', flush=True)\nwhile True: pass", timeout=30)
    assert result.status == "timeout" and result.total_seconds < 5


@pytest.mark.parametrize("fd", [1, 2])
def test_a_flood_is_stopped_at_the_limit_of_its_stream(run, fd):
    result = run(
        f"import os\nos.write({3 - fd}, b'other')\nwhile True: os.write({fd}, b'x' * 1000)", output_limit=100_000
    )
    flooded, other = (result.stdout, result.stderr) if fd == 1 else (result.stderr, result.stdout)
    assert result.status == "output_limit"
    assert flooded == b"x" * 100_000 and other == b"other"
    assert (result.stdout_truncated, result.stderr_truncated) == (fd == 1, fd == 2)


def test_output_of_exactly_the_limit_is_not_cut(run):
    result = run("import os\nos.write(1, b'x' * 1000)", output_limit=1000)
    assert (result.status, len(result.stdout), result.stdout_truncated) == ("ok", 1000, False)


def test_one_huge_write_is_cut_too(run):
    result = run("import os\nos.write(1, b'x' * (200 << 20))")
    assert result.status == "output_limit" and len(result.stdout) == 1 << 20


def test_more_memory_than_there_is_is_a_memory_error(run):
    result = run("try:\n    x = bytearray(600 << 20)\nexcept MemoryError:\n    print('caught')")
    assert (result.stdout, result.status) == (b"caught\n", "ok")


@pytest.mark.slow
def test_memory_that_is_touched_without_end_ends_the_program_clearly(run):
    code = (
        "import mmap\nblocks = []\nwhile True:\n"
        "    block = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)\n"
        "    blocks.append(block)\n    block[::4096] = b'x' * (len(block) // 4096)"
    )
    result = run(code, timeout=30)
    assert (result.status, result.exit_code) == ("oom", 137)
    assert result.stderr == b"Killed: the memory limit of 512 MiB is reached\n"


def test_a_small_template_limit_is_what_the_program_sees(run):
    result = run("import os\nprint(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 20, os.cpu_count())")
    assert result.stdout == b"512 1\n"
