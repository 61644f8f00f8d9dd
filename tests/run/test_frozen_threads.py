"""A template with several threads: all come to rest before it is frozen, and go on in every fork."""

from collections.abc import Iterator

import pytest

from pyvmm import Host, Template
from pyvmm.template.cache import TemplateCache, cache_home

pytestmark = pytest.mark.kvm

_RECIPE = """
memory_mb = 128
tools = []

[runtime]
python = true
suffixes = [".py"]
agent = "agent.py"
command = ["/usr/local/bin/python3", "{agent}"]
rehearsal = "print(1 + 1)"
"""
#: What waits in each thread, in as many ways as there are to sleep; ``answers`` has what they found.
_AGENT = """
import ctypes, os, queue, select, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
SET_MEMPOLICY, GET_MEMPOLICY, MPOL_PREFERRED = 238, 239, 1
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER = 38, 39, 36, 37

answers = queue.Queue()
tasks = queue.Queue()
begin = threading.Event()
lock = threading.Lock()
lock.acquire()
reader, writer = os.pipe()
polled, poll_end = os.pipe()

def in_a_queue():
    answers.put(("queue", tasks.get()))

def with_a_lock():
    with lock:
        answers.put(("lock", threading.get_native_id() > 0))

def in_a_pipe():
    answers.put(("pipe", os.read(reader, 100)))

def in_epoll():
    poll = select.epoll()
    poll.register(polled, select.EPOLLIN)
    answers.put(("epoll", poll.poll() == [(polled, select.EPOLLIN)]))

def with_a_time_limit():
    answers.put(("time-out", begin.wait(60)))

def asleep():
    time.sleep(2)
    answers.put(("sleep", None))

def less_important():
    os.setpriority(os.PRIO_PROCESS, 0, 5)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    node = ctypes.c_ulong(1)
    assert not libc.syscall(SET_MEMPOLICY, MPOL_PREFERRED, ctypes.byref(node), 64)
    assert not libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    begin.wait()
    mode = ctypes.c_int()
    libc.syscall(GET_MEMPOLICY, ctypes.byref(mode), None, 0, None, 0)
    answers.put(("traits", (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0) == os.SCHED_BATCH,
                            mode.value == MPOL_PREFERRED, libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))))

def at_work():
    x = 0.5
    for _ in range(300_000):
        x = x * 3.7 * (1 - x)
    begin.wait()
    # The registers of the floating-point unit are its own, too.
    answers.put(("work", 0 < x < 1))

threads = [threading.Thread(target=each, daemon=True) for each in (
    in_a_queue, with_a_lock, in_a_pipe, in_epoll, with_a_time_limit, asleep, less_important, at_work)]
libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
for thread in threads:
    thread.start()

program = os.read(3, 1 << 16)
head, _, rest = program.partition(b"\\n")
source = rest[int(head.split()[0]):]
os.write(3, b"ready")
os.close(3)
exec(compile(source, "main.py", "exec"))
sys.stdout.flush()
os._exit(0)
"""


@pytest.fixture(scope="module")
def threads(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    folder = tmp_path_factory.mktemp("threads")
    (folder / "agent.py").write_text(_AGENT)
    (folder / "threads.toml").write_text(_RECIPE)
    layers = cache_home() / "layers"
    layers.mkdir(parents=True, exist_ok=True)
    (folder / "home").mkdir()
    (folder / "home" / "layers").symlink_to(layers)  # the byte code of the standard library is there already
    with Template.build(folder / "threads.toml", host=host, cache=TemplateCache(folder / "home")) as template:
        yield template


def output(template: Template, code: str) -> str:
    result = template.run(code, timeout=30.0)
    assert (result.stderr, result.status) == (b"", "ok"), result
    return result.stdout.decode()


def test_all_threads_wake_in_a_fork(threads: Template) -> None:
    code = """
tasks.put(7); lock.release(); begin.set()
os.write(writer, b"p"); os.write(poll_end, b"e")
found = dict(answers.get(timeout=20) for _ in threads)
print(found["queue"], found["lock"], found["pipe"], found["epoll"], found["time-out"], found["work"])
for thread in threads: thread.join()
print(threading.active_count())
"""
    for _ in range(3):
        assert output(threads, code) == "7 True b'p' True True True\n1\n"


def test_nobody_wakes_who_was_not_called(threads: Template) -> None:
    code = "time.sleep(0.05); print([t.name for t in threads if not t.is_alive()], answers.qsize())"
    assert output(threads, code) == "[] 0\n"


def test_threads_and_the_process_keep_their_traits(threads: Template) -> None:
    code = """
begin.set()
print(next(found for name, found in iter(lambda: answers.get(timeout=20), None) if name == "traits"))
print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0))
value = ctypes.c_int()
libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0)
print(value.value)
"""
    assert output(threads, code) == "(5, True, True, 1)\n0 0 0\n1\n"


def test_a_sleeper_sleeps_as_long_as_was_left(threads: Template) -> None:
    assert output(threads, "print(answers.get(timeout=20))") == "('sleep', None)\n"


def test_every_thread_has_a_number_of_its_own(threads: Template) -> None:
    code = """
numbers = sorted(int(name) for name in os.listdir("/proc/self/task"))
print(len(numbers) == len(threads) + 1, numbers[0] == os.getpid())
"""
    assert output(threads, code) == "True True\n"


def test_the_end_of_the_program_ends_all(threads: Template) -> None:
    result = threads.run("print('x', flush=True); os.kill(os.getpid(), 9)")
    assert (result.stdout, result.exit_code) == (b"x\n", 137)
