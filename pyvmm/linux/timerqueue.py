"""What is to happen at a certain time, in order: the ends of waits, interval timers, timer descriptors."""

import heapq
from collections.abc import Callable
from itertools import count


class Event:
    """One entry; :meth:`cancel` takes it back."""

    __slots__ = ("action", "when")

    def __init__(self, when: int, action: Callable[[], None]) -> None:
        #: The guest's CLOCK_MONOTONIC, in nanoseconds.
        self.when = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """It is not to happen; twice is fine."""
        self.action = None


class TimerQueue:
    """A heap of events. Those that were cancelled stay in it until their time, or until most of it is such."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Event]] = []
        self._numbers = count()
        self._sweep_at = 64

    def add(self, when: int, action: Callable[[], None]) -> Event:
        """Do ``action`` at ``when``."""
        event = Event(when, action)
        heapq.heappush(self._heap, (when, next(self._numbers), event))
        if len(self._heap) > self._sweep_at:
            self._heap = [entry for entry in self._heap if entry[2].action is not None]
            heapq.heapify(self._heap)
            self._sweep_at = max(2 * len(self._heap), 64)
        return event

    def next_time(self) -> int | None:
        """When the next event is due; None if there is none."""
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run(self, now: int) -> None:
        """Do all that is due at ``now``."""
        while (when := self.next_time()) is not None and when <= now:
            event = heapq.heappop(self._heap)[2]
            action, event.action = event.action, None
            if action is not None:
                action()
