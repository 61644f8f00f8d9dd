"""Which thread has the processor: one vCPU, taken in turns.

A thread keeps the processor until it waits, ends, or has had it for a time slice while others could run. Threads that
become able to run queue up behind those that are already; one that has slept shortens the slice of the thread that it
finds running. When nobody can run, the host thread sleeps until the next event; nothing outside the sandbox ever wakes
it but the end of its time.
"""

from collections import deque
from typing import TYPE_CHECKING

from pyvmm.linux.timerqueue import TimerQueue
from pyvmm.linux.wait import Blocked, State, waiting_cost

if TYPE_CHECKING:
    from pyvmm.linux.clock import Clock
    from pyvmm.linux.table import SystemCall
    from pyvmm.linux.task import Task

#: Nanoseconds that a thread keeps the processor while others wait for it. A switch costs some 100 µs.
TIME_SLICE = 10_000_000
#: What is left of a time slice when a thread wakes up that has slept: sched(7)'s wakeup preemption. It has not had its
#: share of the processor, and must not wait for one that only computes; the granularity bounds what switching costs.
WAKEUP_GRANULARITY = 4_000_000


class Scheduler:
    """The run queue and the timers of a sandbox."""

    def __init__(self, clock: "Clock") -> None:
        self._clock = clock
        self.timers = TimerQueue()
        self._ready: deque[Task] = deque()
        #: End of the running thread's time slice; None: nobody else wants to run.
        self._slice_end: int | None = None
        #: The dispatcher must ask :meth:`choose` before the program goes on.
        self.attention = False

    def __repr__(self) -> str:
        return f"<Scheduler {len(self._ready)} ready, next event {self.timers.next_time()}>"

    # -------------------------------------------------------------------------------------------- sleeping, waking

    def block(self, task: "Task", call: "SystemCall", arguments: tuple[int, ...], wait: Blocked) -> None:
        """The system call that ``task`` has made cannot go on: let it sleep."""
        task.state = State.BLOCKED
        task.call = (call, arguments)
        task.is_first_try = False
        task.progress += wait.progress
        task.queues = wait.queues
        for queue in wait.queues:
            queue.add(task)
        if len(wait.queues) > 1:
            self._charge(task, waiting_cost(len(wait.queues)))
        if wait.until is not None:
            task.timer = self.timers.add(wait.until, task.notify)
        self.attention = True

    def wake(self, task: "Task") -> None:
        """Let ``task`` make its system call again; nothing happens unless it sleeps."""
        if task.state is State.BLOCKED:
            self._leave_queues(task)
            self.make_ready(task)
            preemption = self._clock.monotonic_ns() + WAKEUP_GRANULARITY
            self._slice_end = preemption if self._slice_end is None else min(self._slice_end, preemption)

    def make_ready(self, task: "Task") -> None:
        """``task`` can run."""
        task.state = State.RUNNABLE
        self._ready.append(task)
        self.attention = True

    def _leave_queues(self, task: "Task") -> None:
        for queue in task.queues:
            queue.remove(task)
        if len(task.queues) > 1:
            self._charge(task, -waiting_cost(len(task.queues)))
        task.queues = ()
        if task.timer is not None:
            task.timer.cancel()
            task.timer = None

    def _charge(self, task: "Task", cost: int) -> None:
        """Count what its many places in queues take. (That there is room for them has been asked before.)"""
        if cost:
            task.kernel.vfs.store.quota.take(cost)

    def remove(self, task: "Task") -> None:
        """``task`` has ended."""
        self._leave_queues(task)
        task.state = State.DEAD
        task.call = None
        self.attention = True

    # --------------------------------------------------------------------------------------------------- choosing

    def give_up(self) -> None:
        """The running thread lets the others go first (sched_yield(2))."""
        if self._ready:
            self._slice_end = 0
            self.attention = True

    def choose(self, current: "Task | None") -> "Task | None":
        """Who has the processor next: ``current`` if it can run and its time slice has not ended, or who has waited
        longest; None if nobody can run.
        """
        now = self._clock.monotonic_ns()
        self.timers.run(now)
        runs = current is not None and current.state is State.RUNNABLE and not current.process.stopped
        if runs and (not self._ready or self._slice_end is None or now < self._slice_end):
            if not self._ready:
                self._slice_end = None
            elif self._slice_end is None:
                self._slice_end = now + TIME_SLICE
            return current
        if current is not None and current.state is State.RUNNABLE:
            self._ready.append(current)  # a stopped one is parked when its turn comes
        while self._ready:
            task = self._ready.popleft()
            if task.state is not State.RUNNABLE:
                continue
            if task.process.stopped:
                task.state = State.STOPPED
                task.process.parked.append(task)
                continue
            self._slice_end = now + TIME_SLICE if self._ready else None
            return task
        self._slice_end = None
        return None

    def others_run(self, task: "Task") -> bool:
        """Whether any thread but ``task`` can run."""
        return any(other is not task and other.state is State.RUNNABLE for other in self._ready)

    def next_event(self) -> int | None:
        """When the running program is to be interrupted at the latest (the guest's CLOCK_MONOTONIC, ns)."""
        event = self.timers.next_time()
        if self._slice_end is None:
            return event
        return self._slice_end if event is None else min(event, self._slice_end)
