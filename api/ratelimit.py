"""At most so many requests in any second, for each client.

The exact log of a moving window: the times of the last N accepted requests. Written here instead of taken from the
library ``limits`` because its memory storage goes by the wall clock (a step back locks everybody out), never forgets
a client, and starts a timer thread every 10 ms under load.
"""

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable


class MovingWindow:
    """Admits ``limit`` requests in any ``seconds`` for each name; remembers at most ``names`` of them.

    A name that newer ones push out of the table starts afresh: that cannot happen to keys (give the table room for
    all of them); with addresses it takes ``names`` other addresses within one window.
    """

    def __init__(
        self, limit: int, seconds: float = 1.0, names: int = 4096, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._seconds = seconds
        self._names = names
        self._clock = clock
        self._accepted: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._accepted)

    def hit(self, name: str) -> int | None:
        """Count a request. None: it is admitted; otherwise the whole seconds after which to try again."""
        with self._lock:
            now = self._clock()
            accepted = self._accepted.get(name)
            if accepted is None:
                accepted = self._accepted[name] = deque(maxlen=self._limit)
                if len(self._accepted) > self._names:
                    self._accepted.popitem(last=False)
            else:
                self._accepted.move_to_end(name)
            if len(accepted) == self._limit and now - accepted[0] <= self._seconds:
                return max(1, math.ceil(accepted[0] + self._seconds - now))
            accepted.append(now)
            return None
