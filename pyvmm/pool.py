"""Running code for many clients in this process: which templates there are, and how many sandboxes may be alive at
once.

Every run is a fork of its own, destroyed at its end; a few are kept ready, so that a request need not wait for one.
Slots are counted so that even if every sandbox uses all the memory it may have, the host has enough; who finds none
waits, and when too many wait already is told so at once.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import psutil

from pyvmm.errors import PoolClosed, PoolSaturated, TemplateNotReady
from pyvmm.result import Result
from pyvmm.sandbox import AnySandbox, Template

logger = logging.getLogger(__name__)

#: Of the memory that is available when the pool is made, sandboxes may use this part.
_MEMORY_SHARE = 0.8
#: Seconds before another try when no fork could be made ready.
_RETRY_SECONDS = 1.0
#: Seconds between looks at whether clients have left.
_WATCH_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class TemplateStatus:
    """What a pool says of a template."""

    ready: bool
    memory_mb: int


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A run that somebody asks for. ``cancelled``, if given, is asked from time to time whether nobody waits for it
    any more.
    """

    language: str
    code: str
    timeout_seconds: float
    cancelled: Callable[[], bool] | None = None


class ReadyForks:
    """Sandboxes of one template that are forked before anybody asks for them, and destroyed after they were given back.

    A thread of its own does both, so that a request waits for neither. Who asks when none is ready forks one itself.
    """

    def __init__(self, template: Template, count: int) -> None:
        self.template = template
        self._count = count
        self._changed = threading.Condition()
        self._ready: deque[AnySandbox] = deque()
        self._used: deque[AnySandbox] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._keep, name=f"pyvmm-forks-{template.name}", daemon=True)
        self._thread.start()

    def take(self) -> AnySandbox:
        """A sandbox, its fork time being what this call took.

        :raises ForkFailed: none was ready, and none could be made.
        """
        asked_ns = time.monotonic_ns()
        with self._changed:
            sandbox = self._ready.popleft() if self._ready else None
            self._changed.notify()
        if sandbox is None:
            return self.template.fork()
        sandbox.asked_for(asked_ns)
        return sandbox

    def give_back(self, sandbox: AnySandbox) -> None:
        """Have a used sandbox destroyed: soon, or at once when more wait for it already than are kept ready.

        What a used sandbox holds is still the host's memory, so they must not pile up.
        """
        with self._changed:
            pile_up = self._closing or len(self._used) >= self._count
            if not pile_up:
                self._used.append(sandbox)
                self._changed.notify()
        if pile_up:
            sandbox.close()

    def _keep(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._used or len(self._ready) < self._count)
                used = self._used.popleft() if self._used else None
                if used is None and self._closing:
                    return
                wanted = len(self._ready) < self._count and not self._closing
            try:
                # Destroying comes first: it gives back what the next fork needs.
                if used is not None:
                    used.close()
                elif wanted:
                    self._make_one()
            except Exception as error:
                # Whoever asks gets the same error for his own fork; all there is to do here is wait for better times.
                logger.warning("a fork could not be made ready or destroyed: %r", error)
                time.sleep(_RETRY_SECONDS)

    def _make_one(self) -> None:
        sandbox = self.template.fork()
        with self._changed:
            self._ready.append(sandbox)

    def close(self) -> None:
        """Destroy all, and the template; twice is fine."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        while self._ready:
            self._ready.popleft().close()
        self.template.close()


class LocalPool:
    """A pool whose sandboxes live in this process.

    :param templates: loaded templates by language; the pool closes them.
    :param max_running: sandboxes running at once; by default as many as memory allows, at most 64.
    :param max_waiting: runs that may wait for a slot; more are refused with :class:`PoolSaturated`.
    :param ready: forks of each template that are kept ready for the next requests.
    """

    def __init__(
        self,
        templates: Mapping[str, Template],
        *,
        max_running: int | None = None,
        max_waiting: int = 64,
        ready: int = 4,
    ) -> None:
        largest = max((template.memory_mb for template in templates.values()), default=1) << 20
        fitting = int(psutil.virtual_memory().available * _MEMORY_SHARE) // largest
        self.max_running = max(1, min(max_running or 64, fitting))
        self.max_waiting = max_waiting
        self._forks = {name: ReadyForks(template, ready) for name, template in templates.items()}
        self._lock = threading.Condition()
        self._running: dict[AnySandbox, Callable[[], bool] | None] = {}
        self._taken = self._waiting = 0
        self._closed = False
        self._watcher = threading.Thread(target=self._watch, name="pyvmm-pool-watch", daemon=True)
        self._watcher.start()

    def templates(self) -> Mapping[str, TemplateStatus]:
        """Every configured template by language."""
        return {name: TemplateStatus(True, forks.template.memory_mb) for name, forks in self._forks.items()}

    def live_forks(self) -> int:
        """How many sandboxes run."""
        return len(self._running)

    def execute(self, request: ExecRequest) -> Result:
        """Run ``request`` in a fork of its own.

        :raises TemplateNotReady: there is no template for its language.
        :raises PoolSaturated: too many runs wait already.
        :raises PoolClosed: the pool was closed.
        :raises ForkFailed: the fork could not be made, or not made fresh.
        """
        forks = self._forks.get(request.language)
        if forks is None:
            raise TemplateNotReady(f"no template is ready for {request.language!r}")
        asked = time.monotonic()
        self._take_slot(request.cancelled)
        try:
            sandbox = forks.take()
            try:
                with self._lock:
                    if self._closed:
                        raise PoolClosed("the pool is shutting down")
                    self._running[sandbox] = request.cancelled
                result = sandbox.run(request.code, timeout=request.timeout_seconds)
            finally:
                with self._lock:
                    self._running.pop(sandbox, None)
                forks.give_back(sandbox)
        finally:
            self._give_slot()
        return replace(result, total_seconds=time.monotonic() - asked)

    def _take_slot(self, cancelled: Callable[[], bool] | None) -> None:
        with self._lock:
            if self._closed:
                raise PoolClosed("the pool is shutting down")
            if self._taken >= self.max_running:
                if self._waiting >= self.max_waiting:
                    raise PoolSaturated(f"{self._taken} executions are running and {self._waiting} are waiting")
                self._waiting += 1
                try:
                    while not self._lock.wait_for(self._may_go_on, _WATCH_SECONDS):
                        if cancelled is not None and cancelled():
                            raise PoolSaturated("the client left while its execution was waiting")
                finally:
                    self._waiting -= 1
                if self._closed:
                    raise PoolClosed("the pool is shutting down")
            self._taken += 1

    def _may_go_on(self) -> bool:
        return self._closed or self._taken < self.max_running

    def _give_slot(self) -> None:
        with self._lock:
            self._taken -= 1
            self._lock.notify()

    def _watch(self) -> None:
        """Stop what nobody waits for any more."""
        while not self._closed:
            time.sleep(_WATCH_SECONDS)
            with self._lock:
                watched = [(sandbox, cancelled) for sandbox, cancelled in self._running.items() if cancelled]
            for sandbox, cancelled in watched:
                if cancelled():
                    sandbox.stop()

    def close(self) -> None:
        """Refuse new runs, end those under way, and let go of the templates; twice is fine."""
        with self._lock:
            self._closed = True
            running = list(self._running)
            self._lock.notify_all()
        for sandbox in running:
            sandbox.stop()
        with self._lock:
            self._lock.wait_for(lambda: not self._taken, timeout=10)
        self._watcher.join()
        for forks in self._forks.values():
            forks.close()

    def __enter__(self) -> "LocalPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
