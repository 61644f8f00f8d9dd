"""What a kernel guest says on its consoles: passed on, counted, and its end kept for those who ask what went wrong."""

from collections.abc import Callable

Sink = Callable[[bytes], object]

_TAIL = 16 << 10
#: A guest can offer all of its memory as one buffer; it is copied in pieces of this size.
_PIECE = 64 << 10


class ConsoleRecord:
    """Takes all that a guest writes, and bounds what it costs the host.

    :param limit: bytes that are passed on; ``full`` is called whenever there is more.
    :param sink: is given each piece as it comes.
    """

    def __init__(self, limit: int, sink: Sink | None, full: Callable[[], None]) -> None:
        self._limit, self._sink, self._full = limit, sink, full
        self._tail = bytearray()
        #: Bytes passed on.
        self.count = 0

    def write(self, data: bytes | memoryview) -> int:
        """The guest writes; all of it is taken."""
        size = min(len(data), self._limit - self.count)
        if size == len(data) <= _PIECE:
            self._pass_on(bytes(data))
            return size
        for start in range(0, size, _PIECE):
            self._pass_on(bytes(data[start : min(start + _PIECE, size)]))
        if size < len(data):
            self._full()
        return len(data)

    def _pass_on(self, piece: bytes) -> None:
        self.count += len(piece)
        self._tail += piece
        if len(self._tail) > 2 * _TAIL:
            del self._tail[:-_TAIL]
        if self._sink is not None:
            self._sink(piece)

    def last_words(self, size: int = 2000) -> str:
        """The last ``size`` bytes as text."""
        return bytes(self._tail[-size:]).decode("utf-8", "replace")
