"""What a program writes to descriptors 1 and 2, kept up to a limit."""

from collections.abc import Callable

from pyvmm.linux.errors import OutputLimitReached


class OutputStream:
    """One captured stream.

    :param limit: bytes kept; a program that writes more is stopped.
    :param sink: is also given every piece that is kept, as it comes (a terminal that wants to see it at once).
    """

    def __init__(self, limit: int, sink: Callable[[bytes], object] | None = None) -> None:
        self._limit = limit
        self._sink = sink
        self._data = bytearray()
        self.truncated = False

    def write(self, data: bytes | memoryview) -> None:
        """Keep ``data``.

        :raises OutputLimitReached: the limit is exceeded; what fits was kept.
        """
        room = self._limit - len(self._data)
        if len(data) > room:
            data = data[:room]
            self.truncated = True
        self._data += data
        if self._sink is not None and data:
            self._sink(bytes(data))
        if self.truncated:
            raise OutputLimitReached

    def value(self) -> bytes:
        """All that was kept."""
        return bytes(self._data)
