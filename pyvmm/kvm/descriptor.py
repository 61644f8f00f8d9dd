"""What /dev/kvm, a VM and a vCPU have in common: each is a file descriptor with an owner."""

import os
import warnings
from types import TracebackType
from typing import Self

__all__ = ["Descriptor"]


class Descriptor:
    """Owner of a descriptor: a context manager that may be closed twice, in any order, from any thread."""

    _fd: int

    def __init__(self, fd: int) -> None:
        self._fd = fd
        # The owned descriptor is taken out by list.pop(), which is atomic: two threads that close the same object
        # cannot close the number twice, by when it may be someone else's.
        self._owned = [fd]

    def close(self) -> None:
        """Close the descriptor; does nothing if that was done already."""
        # From now on an ioctl fails with EBADF instead of reaching a descriptor that took over the number.
        self._fd = -1
        try:
            fd = self._owned.pop()
        except IndexError:
            return
        os.close(fd)

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._fd < 0

    def fileno(self) -> int:
        """The descriptor; -1 after ``close()``."""
        return self._fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_owned", None):
            text = f"{self!r} was not closed"
            self.close()
            # After the closing: where warnings are errors, nothing comes after this line.
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    def _state(self) -> str:
        return "closed" if self._fd < 0 else f"fd={self._fd}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state()}>"
