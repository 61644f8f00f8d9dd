"""Who has the processor next."""

from types import SimpleNamespace
from typing import Any

import pyvmm.linux.syscalls  # noqa: F401 - fills the table
from pyvmm.linux.abi.unistd import NUMBERS
from pyvmm.linux.scheduler import TIME_SLICE, WAKEUP_GRANULARITY, Scheduler
from pyvmm.linux.table import TABLE
from pyvmm.linux.vfs.quota import Quota
from pyvmm.linux.wait import Blocked, State, WaitQueue, waiting_cost
from tests.linux.vfs_guest import FakeClock


def thread(state: State = State.RUNNABLE) -> Any:
    return SimpleNamespace(state=state, queues=(), timer=None, process=SimpleNamespace(stopped=False))


def test_a_thread_that_has_slept_does_not_wait_for_the_end_of_a_time_slice() -> None:
    clock, running, sleeper = FakeClock(), thread(), thread(State.BLOCKED)
    scheduler = Scheduler(clock)  # type: ignore[arg-type]
    assert scheduler.choose(running) is running
    scheduler.wake(sleeper)
    assert scheduler.choose(running) is running
    clock.now += WAKEUP_GRANULARITY
    assert scheduler.choose(running) is sleeper


def test_a_new_thread_waits_for_the_end_of_a_time_slice() -> None:
    clock, running, new = FakeClock(), thread(), thread()
    scheduler = Scheduler(clock)  # type: ignore[arg-type]
    scheduler.make_ready(new)
    assert scheduler.choose(running) is running
    clock.now += WAKEUP_GRANULARITY
    assert scheduler.choose(running) is running
    clock.now += TIME_SLICE
    assert scheduler.choose(running) is new


def test_those_that_wake_up_queue_behind_those_that_have_waited() -> None:
    clock, running, waiting, sleeper = FakeClock(), thread(), thread(), thread(State.BLOCKED)
    scheduler = Scheduler(clock)  # type: ignore[arg-type]
    scheduler.make_ready(waiting)
    scheduler.wake(sleeper)
    clock.now += WAKEUP_GRANULARITY
    assert scheduler.choose(running) is waiting


class _Waiting(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]


def test_a_thread_that_waits_in_many_queues_is_charged_for_as_long() -> None:
    quota = Quota(1 << 20, 10)
    scheduler = Scheduler(FakeClock())  # type: ignore[arg-type]
    kernel = SimpleNamespace(vfs=SimpleNamespace(store=SimpleNamespace(quota=quota)))
    task: Any = _Waiting(**vars(thread()), kernel=kernel, progress=0)
    for count in (1, 32, 33, 1000):
        scheduler.block(task, TABLE[NUMBERS["poll"]], (), Blocked(tuple(WaitQueue() for _ in range(count)), None))
        assert quota.bytes_used == waiting_cost(count)
        scheduler.wake(task)
        assert quota.bytes_used == 0
    assert waiting_cost(32) == 0 < waiting_cost(33)
