"""A port of a virtio console: what the host does with it, and the two queues that carry its bytes (virtio 1.2 §5.3.6).

Nothing is kept without bound. Output is offered to the sink where it lies in the guest's memory, and stays there while
the sink does not take it: the guest runs out of buffers and waits. Input waits in a buffer of limited size until the
guest has the port open and makes buffers available: the host is told how much of it was accepted.
"""

from collections.abc import Callable
from typing import TypedDict

from pyvmm.devices.virtio.mmio import VirtioMmio

__all__ = ["INPUT_LIMIT", "ROUNDS", "Port", "PortState", "Sink"]

#: Takes some of the guest's output and tells how many bytes, counted from the start. The memory is the guest's: it can
#: change at any moment and may not be kept after the call.
Sink = Callable[[memoryview], int]

INPUT_LIMIT = 64 << 10
#: How often one notification looks for more buffers after it used all that it saw.
ROUNDS = 4
#: The most that is copied in one go; the length of a used buffer has 32 bits.
_SEND_MAX = 1 << 30


class PortState(TypedDict):
    """A port as plain data."""

    guest_ready: bool
    guest_open: bool
    host_open: bool
    blocked: bool
    taken: int
    input: bytes
    refused: bool
    dropped: int
    violations: int


class Port:
    """One port. Output is dropped and counted if there is no ``sink``, and while the host has the port closed.

    ``name`` is the guest's ``/dev/virtio-ports/NAME``. ``on_open`` and ``on_close`` tell that the guest opened or
    closed the port (or was reset), ``on_room`` that ``send`` accepts again after it accepted less than it was given.
    A sink that took less than it was offered is not called again before ``resume``. Callbacks may use the port.
    """

    def __init__(
        self,
        name: str = "",
        sink: Sink | None = None,
        *,
        is_console: bool = False,
        host_open: bool = True,
        input_limit: int = INPUT_LIMIT,
        on_open: Callable[[], None] | None = None,
        on_close: Callable[[], None] | None = None,
        on_room: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.is_console = is_console
        self.sink = sink
        self.on_open, self.on_close, self.on_room = on_open, on_close, on_room
        #: Whether each side has the port open, and whether the driver has made a device of it.
        self.host_open = host_open
        self.guest_open = self.guest_ready = False
        #: Whether output waits for ``resume``.
        self.blocked = False
        #: Bytes of output that nobody took.
        self.dropped = 0
        #: Buffers that made no sense on their queue.
        self.violations = 0
        self._input_limit = input_limit
        self._input = bytearray()
        self._refused = False
        # How much of the first available output buffer the sink already has.
        self._taken = 0
        self._sending = self._draining = False
        self._transport: VirtioMmio | None = None
        self._in = self._out = 0
        self._host_changed: Callable[[], None] = lambda: None

    @property
    def waiting_input(self) -> int:
        """Bytes of input that the guest has not got yet."""
        return len(self._input)

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Give the guest input; how many bytes, from the start of ``data``, were accepted.

        What the guest has no buffers for waits, up to the limit. It waits through a reset of the device too.
        """
        view = memoryview(data)[:_SEND_MAX]
        accepted = 0
        if not self._input and not self._sending:
            accepted = self._fill(view)
        kept = view[accepted : accepted + max(self._input_limit - len(self._input), 0)]
        self._input += kept
        accepted += len(kept)
        if accepted < len(data):
            self._refused = True
        return accepted

    def discard_input(self) -> int:
        """Forget the input that the guest has not got yet; how many bytes it was."""
        count = len(self._input)
        self._input.clear()
        return count

    def resume(self) -> None:
        """The sink can take output again."""
        self.blocked = False
        self.drain()

    def open(self) -> None:
        """The host opens the port; until then Linux lets no program write to it."""
        if not self.host_open:
            self.host_open = True
            self._host_changed()

    def close(self) -> None:
        """The host closes the port: a reader in the guest gets what was sent, then end of file."""
        if self.host_open:
            self.host_open = False
            self.resume()
            self._host_changed()

    def attach(self, transport: VirtioMmio, receiveq: int, transmitq: int, host_changed: Callable[[], None]) -> None:
        """The device's part: which queues are the port's, and whom to tell that the host opened or closed it."""
        self._transport, self._in, self._out, self._host_changed = transport, receiveq, transmitq, host_changed

    def guest_opens(self) -> None:
        """The driver told that a program opened the port."""
        if not self.guest_open:
            self.guest_open = True
            if self.on_open:
                self.on_open()
            self.flush()

    def guest_closes(self) -> None:
        """The driver told that the port was closed, or is gone."""
        if self.guest_open:
            self.guest_open = False
            if self.on_close:
                self.on_close()

    def reset(self) -> None:
        """The driver starts anew; input that it has not got yet is for whoever comes."""
        self.guest_ready = self.blocked = False
        self._taken = 0
        self.guest_closes()

    def drain(self) -> None:
        """Offer the sink all output that is available."""
        transport = self._transport
        if transport is None or self.blocked or self._draining or not transport.running:
            return
        queue = transport.queues[self._out]
        before = queue.next
        self._draining = True
        try:
            queue.suppress_notifications()
            for _ in range(ROUNDS):
                for _ in range(queue.pending()):
                    chain = queue.peek()
                    if chain is None or chain.writable:
                        self.violations += 1
                    elif not self._offer(chain.readable):
                        self.blocked = True
                        return
                    queue.complete(0)
                queue.request_notification()
                if not queue.pending():
                    return
            transport.come_back(self._out)
        finally:
            self._draining = False
            transport.interrupt(queue, before)

    def _offer(self, pieces: list[memoryview]) -> bool:
        """Whether all of a buffer is dealt with."""
        skip = self._taken
        for piece in pieces:
            if skip:
                rest = piece[skip:]
                skip -= len(piece) - len(rest)
                piece = rest
            length = len(piece)
            if self.sink is None or not self.host_open:
                self.dropped += length
            elif length:
                took = self.sink(piece)
                if took < length:
                    self._taken += took
                    return False
            self._taken += length
        self._taken = 0
        return True

    def emergency(self, character: bytes) -> None:
        """The driver wrote one character without a queue."""
        if self.sink is None or self.blocked or not self.host_open or not self.sink(memoryview(character)):
            self.dropped += 1

    def flush(self) -> None:
        """Give the guest what waits, or let its driver add buffers without telling if nothing does."""
        if self._sending:
            return
        self._sending = True
        try:
            while self._input:
                with memoryview(self._input) as waiting:
                    count = self._fill(waiting)
                del self._input[:count]
                if not count:
                    return
                if self._refused:
                    self._refused = False
                    if self.on_room:
                        self.on_room()
            if self._transport is not None and self._transport.running:
                self._transport.queues[self._in].suppress_notifications()
        finally:
            self._sending = False

    def _fill(self, source: memoryview) -> int:
        """Copy into the guest's buffers as much as they hold; how many bytes. Ask for a notification if it was less."""
        transport, total, sent = self._transport, len(source), 0
        if transport is None or not total or not self.guest_open or not transport.running:
            return 0
        queue = transport.queues[self._in]
        before = queue.next
        for _ in range(ROUNDS):
            for _ in range(queue.pending()):
                if sent == total:
                    break
                chain = queue.peek()
                if chain is None or chain.readable:
                    self.violations += 1
                    queue.complete(0)
                    continue
                count = chain.fill(source[sent:])
                queue.complete(count)
                sent += count
            if sent == total:
                queue.suppress_notifications()
                break
            queue.request_notification()
            if not queue.pending():
                break
        else:
            transport.come_back(self._in)
        transport.interrupt(queue, before)
        return sent

    def save(self) -> PortState:
        """The port as plain data."""
        return {
            "guest_ready": self.guest_ready,
            "guest_open": self.guest_open,
            "host_open": self.host_open,
            "blocked": self.blocked,
            "taken": self._taken,
            "input": bytes(self._input),
            "refused": self._refused,
            "dropped": self.dropped,
            "violations": self.violations,
        }

    def restore(self, state: PortState) -> None:
        """Go on from ``state``."""
        self.guest_ready, self.guest_open = state["guest_ready"], state["guest_open"]
        self.host_open, self.blocked = state["host_open"], state["blocked"]
        self._taken, self._refused = state["taken"], state["refused"]
        self._input = bytearray(state["input"])
        self.dropped, self.violations = state["dropped"], state["violations"]

    def __repr__(self) -> str:
        sides = [side for side, is_open in (("host", self.host_open), ("guest", self.guest_open)) if is_open]
        return f"<Port {self.name!r}, open: {' and '.join(sides) or 'nowhere'}>"
