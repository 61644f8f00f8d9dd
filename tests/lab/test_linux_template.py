"""Templates whose guest is stock Linux: a run gives what a run in a process guest gives."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvmm import Host, Template
from pyvmm.kernel_sandbox import KernelSandbox

RECIPE = Path(__file__).with_name("slim.toml")
#: Seconds for a run on an emulated host.
TIMEOUT = 60.0
#: Exits of a fork that runs print(1 + 1): eight notifications, and two for each of the six interrupts; ticks of the
#: host's own timer come on top.
PROTOCOL_EXITS = 20


@pytest.fixture(scope="module")
def linux(host: Host) -> Iterator[Template]:
    if host.is_software:
        pytest.skip("stock Linux needs hardware KVM (kvm_intel or kvm_amd): pyvmm lab test linux")
    with Template.build(RECIPE, host=host, progress=lambda step: print(f"template: {step}", flush=True)) as built:
        yield built


def test_twenty_forks_in_a_row_print_the_same(linux: Template) -> None:
    for _ in range(20):
        result = linux.run("print(1 + 1)", timeout=TIMEOUT)

        assert (result.stdout, result.stderr, result.exit_code, result.status) == (b"2\n", b"", 0, "ok")


def test_a_fork_takes_no_more_exits_than_the_protocol_needs(linux: Template) -> None:
    with linux.fork() as sandbox:
        assert isinstance(sandbox, KernelSandbox)
        sandbox.run("print(1 + 1)", timeout=TIMEOUT)

        assert sandbox.exits - sandbox.interruptions <= PROTOCOL_EXITS


def test_streams_are_apart_and_the_exit_code_is_exact(linux: Template) -> None:
    code = """
import sys
print('out')
print('err', file=sys.stderr)
sys.stdout.buffer.write(bytes(range(256)))
sys.exit(7)
"""

    result = linux.run(code, timeout=TIMEOUT)

    assert result.stdout == b"out\n" + bytes(range(256))
    assert (result.stderr, result.exit_code, result.status) == (b"err\n", 7, "error")


def test_an_exception_has_its_traceback(linux: Template) -> None:
    result = linux.run("1 / 0", timeout=TIMEOUT)

    assert (result.exit_code, result.status) == (1, "error")
    assert b'File "/home/user/main.py", line 1' in result.stderr


def test_arguments_input_and_files_arrive(linux: Template) -> None:
    code = "import sys; print(sys.argv[1:], sys.stdin.read(), open('a/b.txt').read())"

    with linux.fork() as sandbox:
        result = sandbox.run(code, argv=["x", "y z"], stdin=b"typed", files={"a/b.txt": b"text"}, timeout=TIMEOUT)

    assert result.stdout == b"['x', 'y z'] typed text\n", result


def test_input_larger_than_any_buffer_arrives_whole(linux: Template) -> None:
    with linux.fork() as sandbox:
        result = sandbox.run("import sys; print(len(sys.stdin.read()))", stdin=b"x" * 300_000, timeout=TIMEOUT)

    assert result.stdout == b"300000\n", result


def test_forks_have_entropy_of_their_own_and_the_right_time(linux: Template) -> None:
    code = "import os, random, time; print(os.urandom(8).hex(), random.random(), time.time())"

    answers = [linux.run(code, timeout=TIMEOUT).stdout.split() for _ in range(3)]

    assert len({answer[0] for answer in answers}) == len({answer[1] for answer in answers}) == 3
    assert abs(float(answers[-1][2]) - time.time()) < 30


def test_death_by_a_signal_is_a_crash(linux: Template) -> None:
    result = linux.run("import os; os.kill(os.getpid(), 11)", timeout=TIMEOUT)

    assert (result.exit_code, result.status) == (139, "crashed")


def test_a_program_out_of_time_is_stopped(linux: Template) -> None:
    result = linux.run("while True: pass", timeout=3)

    assert (result.exit_code, result.status) == (-1, "timeout")


def test_a_program_out_of_memory_is_killed_and_the_next_run_works(linux: Template) -> None:
    result = linux.run("x = []\nwhile True: x.append(bytes(1 << 20))", timeout=4 * TIMEOUT)

    assert (result.exit_code, result.status) == (137, "oom"), result
    assert linux.run("print(3)", timeout=TIMEOUT).stdout == b"3\n"


def test_a_program_that_writes_too_much_is_stopped(linux: Template) -> None:
    with linux.fork(output_limit=10_000) as sandbox:
        result = sandbox.run("while True: print('x' * 1000)", timeout=TIMEOUT)

    assert (result.status, len(result.stdout), result.stdout_truncated) == ("output_limit", 10_000, True)


def test_a_process_left_behind_does_not_hold_the_run_up(linux: Template) -> None:
    code = "import subprocess; subprocess.Popen(['sleep', '1000']); print('done')"

    result = linux.run(code, timeout=TIMEOUT)

    assert (result.stdout, result.status) == (b"done\n", "ok")


def test_a_program_is_no_superuser_and_finds_no_host(linux: Template) -> None:
    code = """
import os, socket
print(os.getuid(), os.path.exists('/lib/modules'), sorted(os.listdir('/sys/class/net')))
for path in ('/run/pyvmm/stdout.x', '/dev/hvc0', '/dev/vport0p1', '/dev/mem'):
    try:
        open(path, 'w')
        print('opened', path)
    except OSError as error:
        print(type(error).__name__)
try:
    socket.create_connection(('1.1.1.1', 80), timeout=5)
except OSError as error:
    print(error.errno)
"""

    lines = linux.run(code, timeout=TIMEOUT).stdout.decode().splitlines()

    assert lines[0] == "1000 False ['lo']"
    assert not any(line.startswith("opened") for line in lines)
    assert lines[-1] == "101"  # ENETUNREACH


def test_shells_and_their_streams_work(linux: Template) -> None:
    code = """
import subprocess
print(subprocess.run('echo a > /dev/stderr; ls / | wc -l', shell=True, capture_output=True))
"""

    result = linux.run(code, timeout=TIMEOUT)

    assert b"stderr=b'a\\n'" in result.stdout, result


def test_a_tracer_is_refused(linux: Template) -> None:
    with pytest.raises(ValueError, match="served by Linux in the guest"):
        linux.fork(tracer=object())  # type: ignore[arg-type]
