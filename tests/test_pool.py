"""The pool: how many run at once, who waits, who is refused, and what ends when nobody waits any more."""

import errno
import threading
import time

import pytest

from pyvmm import ExecRequest, ForkFailed, LocalPool, PoolClosed, PoolSaturated, Template, TemplateNotReady
from pyvmm.kvm import Kvm, KvmError

pytestmark = pytest.mark.kvm


@pytest.fixture
def make_pool(template, host):
    """Makes pools; ``make_pool(max_running=2)``."""
    pools = []

    def make(**options):
        pools.append(LocalPool({"python": Template.open(template.snapshot.path, host=host)}, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def request(code: str, timeout: float = 10, **options) -> ExecRequest:
    return ExecRequest("python", code, timeout, **options)


def in_threads(calls) -> list:
    """Do all calls at once; what each gave, or the exception that it raised."""
    results: list = [None] * len(calls)

    def work(index: int) -> None:
        try:
            results[index] = calls[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def until(condition, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_pool_runs_code(make_pool):
    result = make_pool().execute(request("print(1 + 1)"))
    assert (result.stdout, result.status) == (b"2\n", "ok")
    assert result.total_seconds >= result.exec_seconds


def test_a_pool_knows_its_templates(make_pool):
    (status,) = make_pool().templates().values()
    assert status.ready and status.memory_mb == 512


def test_a_language_without_a_template_is_not_ready(make_pool):
    with pytest.raises(TemplateNotReady, match="cobol"):
        make_pool().execute(ExecRequest("cobol", "x", 1))


def test_each_of_many_gets_its_own_answer(make_pool):
    pool = make_pool(max_running=4)
    results = in_threads([lambda n=n: pool.execute(request(f"print({n} * 7)")) for n in range(40)])
    assert [result.stdout for result in results] == [f"{n * 7}\n".encode() for n in range(40)]
    assert pool.live_forks() == 0


def test_never_more_run_than_allowed(make_pool):
    pool = make_pool(max_running=2)
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, pool.live_forks())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    results = in_threads([lambda: pool.execute(request("import time; time.sleep(0.05)")) for _ in range(8)])
    done.set()
    watcher.join()
    assert all(result.status == "ok" for result in results)
    assert 1 <= most <= 2


def test_who_comes_when_too_many_wait_is_refused_at_once(make_pool):
    pool = make_pool(max_running=1, max_waiting=1)
    results = in_threads([lambda: pool.execute(request("import time; time.sleep(0.4)")) for _ in range(5)])
    refused = [result for result in results if isinstance(result, PoolSaturated)]
    assert len(refused) == 3 and all(error.retry_after >= 1 for error in refused)
    assert sum(getattr(result, "status", None) == "ok" for result in results) == 2
    assert pool.execute(request("print(1)")).status == "ok"


def test_a_run_that_nobody_waits_for_is_stopped(make_pool):
    pool = make_pool()
    began = time.monotonic()
    result = pool.execute(request("while True: pass", 30, cancelled=lambda: time.monotonic() - began > 0.2))
    assert result.status == "timeout" and time.monotonic() - began < 2


def test_waiting_ends_when_the_client_has_left(make_pool):
    pool = make_pool(max_running=1)
    gone = threading.Event()
    outcomes: list = []

    def wait_for_slot() -> None:
        try:
            outcomes.append(pool.execute(request("print(1)", cancelled=gone.is_set)))
        except Exception as error:
            outcomes.append(error)

    busy = threading.Thread(target=lambda: pool.execute(request("import time; time.sleep(2)", 3)))
    busy.start()
    until(lambda: pool.live_forks() == 1)
    waiting = threading.Thread(target=wait_for_slot)
    waiting.start()
    gone.set()
    waiting.join(1.5)
    assert not waiting.is_alive()
    busy.join()
    assert not hasattr(outcomes[0], "stdout")


def test_a_failed_fork_gives_its_slot_back(make_pool, monkeypatch):
    pool = make_pool(max_running=1)

    def refuse(kvm):
        raise KvmError("KVM_CREATE_VM", errno.ENOMEM)

    with monkeypatch.context() as patch:
        patch.setattr(Kvm, "create_vm", refuse)
        # Those that were ready run; then there are no more.
        with pytest.raises(ForkFailed, match="KVM_CREATE_VM"):
            for _ in range(20):
                pool.execute(request("print(1)"))
    until(lambda: pool.live_forks() == 0)
    assert pool.execute(request("print(1)")).stdout == b"1\n"


def test_every_way_to_end_gives_the_slot_back(make_pool):
    pool = make_pool(max_running=1)
    for code in (
        "1 / 0",
        "import os; os.abort()",
        "while True: pass",
        "print('x' * (2 << 20))",
        "import ctypes; ctypes.string_at(1)",
    ):
        pool.execute(request(code, 0.3))
        assert pool.live_forks() == 0
    assert pool.execute(request("print(1)")).stdout == b"1\n"


def test_closing_ends_what_runs_and_refuses_what_comes(make_pool):
    pool = make_pool(max_running=2)
    outcomes: list = []

    def work() -> None:
        try:
            outcomes.append(pool.execute(request("while True: pass", 30)).status)
        except (PoolClosed, ForkFailed) as error:
            # Who had only just begun is told that nothing of it ran.
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: pool.live_forks() == 2)
    began = time.monotonic()
    pool.close()
    for thread in threads:
        thread.join(5)
    assert time.monotonic() - began < 3
    assert len(outcomes) == 4 and outcomes.count("PoolClosed") == 2
    assert set(outcomes) <= {"PoolClosed", "timeout", "ForkFailed"}
    with pytest.raises(PoolClosed):
        pool.execute(request("print(1)"))
    pool.close()


def test_a_closed_pool_leaves_nothing_behind(template, host):
    from tests.conftest import Footprint

    def use() -> None:
        with LocalPool({"python": Template.open(template.snapshot.path, host=host)}, max_running=4) as pool:
            in_threads([lambda: pool.execute(request("print(1)")) for _ in range(12)])

    use()
    before = Footprint.now()
    use()
    until(lambda: threading.active_count() <= before.threads)
    Footprint.now().check_against(before)
