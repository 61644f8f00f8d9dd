"""Who has the processor next."""

from types import SimpleNamespace
from typing import Any

from pyvmm.linux.scheduler import TIME_SLICE, WAKEUP_GRANULARITY, Scheduler
from pyvmm.linux.wait import State
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
