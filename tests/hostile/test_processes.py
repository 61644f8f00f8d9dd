"""Group C: programs that want too many processes and threads, or other people's."""

# Programs for the guest are strings; a broken line would not make them clearer.
# ruff: noqa: E501

import pytest

from tests.hostile.prelude import RAW

pytestmark = pytest.mark.kvm


@pytest.mark.slow
def test_a_fork_bomb_meets_the_limit_and_then_its_time(run):
    code = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    assert run(code, timeout=5).status in ("timeout", "oom")


@pytest.mark.parametrize("life", ["b8220000000f05ebf7", "b83c0000000f05"], ids=["that pause", "that end"])
def test_processes_without_end_are_refused_at_the_limit(run, life):
    """Machine code: pause() for ever, or exit() and stay as a zombie. CLONE_VM, so that they cost no memory."""
    code = RAW + (
        "import errno\n"
        "stack = pages(4) + 4 * 4096 - 64\n"
        "text = pages(1, 7)\n"
        f"ctypes.memmove(text, bytes.fromhex('{life}'), {len(life) // 2})\n"
        "ctypes.memmove(stack, struct.pack('<Q', text), 8)\n"
        # mov eax, 56; syscall; ret: clone(CLONE_VM | SIGCHLD, stack), after which the child returns to what its stack says
        "code = bytes.fromhex('b8380000000f05c3')\n"
        "ctypes.memmove(text + 64, code, len(code))\n"
        "start = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_ulong, ctypes.c_ulong)(text + 64)\n"
        "count = 0\n"
        "while (pid := start(0x100 | 17, stack)) > 0: count += 1\n"
        "print(errno.errorcode[-pid], 900 < count < 1024)"
    )
    result = run(code, timeout=60)
    assert result.stdout == b"EAGAIN True\n", result


def test_threads_without_end_are_refused_at_the_limit(run):
    code = (
        "import os, threading\n"
        "threading.stack_size(64 << 10)\n"
        "wait, count = threading.Event().wait, 0\n"
        "try:\n"
        "    while True:\n"
        "        threading.Thread(target=wait, daemon=True).start()\n"
        "        count += 1\n"
        "except RuntimeError as error:\n"
        "    print(error, 500 < count < 1024, flush=True)\n"
        "os._exit(0)"
    )
    result = run(code, timeout=60)
    assert result.stdout == b"can't start new thread True\n", result


@pytest.mark.parametrize("target", ["-1", "1", "os.getppid()", "1 << 30", "-(1 << 30)"])
def test_a_signal_reaches_nobody_outside(run, target):
    result = run.with_canary(
        f"import os\ntry: os.kill({target}, 9)\nexcept OSError as error: print(type(error).__name__)"
    )
    assert result.stdout in (b"ProcessLookupError\n", b"PermissionError\n")


def test_signals_without_end_to_oneself_do_not_hold_up_the_others(run):
    code = "import os, signal\nsignal.signal(10, lambda *_: os.kill(os.getpid(), 10))\nos.kill(os.getpid(), 10)\nwhile True: pass"
    assert run.with_canary(code, timeout=1).status in ("timeout", "error", "crashed")


def test_a_timer_that_never_stops_ringing_does_not_hold_up_the_others(run):
    code = "import signal\nsignal.signal(14, lambda *_: None)\nsignal.setitimer(0, 1e-6, 1e-6)\nwhile True: pass"
    assert run.with_canary(code, timeout=1).status == "timeout"


def test_a_robust_list_that_is_a_loop_ends_with_its_thread(run):
    code = RAW + (
        "import threading\n"
        "def loop():\n"
        "    page = pages(1)\n"
        "    ctypes.memmove(page, struct.pack('<QqQ', page + 64, 8, page + 64), 24)\n"
        "    ctypes.memmove(page + 64, struct.pack('<Q', page + 64), 8)\n"
        "    assert call(273, page, 24) == 0\n"
        "thread = threading.Thread(target=loop)\n"
        "thread.start()\n"
        "thread.join()\n"
        "print('joined')"
    )
    assert run(code, timeout=20).stdout == b"joined\n"


def test_scripts_that_name_each_other_as_interpreter_end_in_an_errno(run):
    code = (
        "import errno, os, subprocess\n"
        "for name, other in (('a', 'b'), ('b', 'a')):\n"
        "    with open(name, 'w') as file: file.write(f'#!/home/user/{other}\\n')\n"
        "    os.chmod(name, 0o755)\n"
        "try: subprocess.run(['./a'])\n"
        "except OSError as error: print(errno.errorcode[error.errno])"
    )
    assert run(code).stdout == b"ELOOP\n"


@pytest.mark.parametrize("argv", ["['x' * 200_000]", "['x'] * 10**6", "['x' * 100_000] * 1400"])
def test_arguments_without_end_are_refused(run, argv):
    code = f"import os\ntry: os.execv('/bin/sh' if os.path.exists('/bin/sh') else '/usr/local/bin/python3.11', {argv})\nexcept OSError as error: print(error.strerror)"
    assert run(code, timeout=30).stdout == b"Argument list too long\n"
