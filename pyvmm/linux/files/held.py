"""Files that a call keeps open though their descriptors are closed (``fdget()``).

On Linux a call that sleeps has a reference to its file, so that another thread's close(2) neither ends it nor closes
the file. Here a call is abandoned and made again, and would not find its descriptor, or find another file behind it.
So whoever closes a descriptor gives the file to the threads that are in a call on it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.files.table import FdTable
    from pyvmm.linux.task import Task


class HeldFiles:
    """A thread's table of descriptors while a call is made again that had begun with files since closed."""

    def __init__(self, table: "FdTable", held: "dict[int, OpenFile]") -> None:
        self._table = table
        self._held = held

    def get(self, fd: int) -> "OpenFile":
        """See :meth:`FdTable.get`."""
        return self._held.get(fd) or self._table.get(fd)

    def get_raw(self, fd: int) -> "OpenFile":
        """See :meth:`FdTable.get_raw`."""
        return self._held.get(fd) or self._table.get_raw(fd)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)


def hold_for_others(task: "Task", first: int, last: int) -> None:
    """``task`` is about to close the descriptors from ``first`` to ``last``."""
    files = task.files
    if files.users == 1:
        return
    for other in task.kernel.tasks.values():
        if other.files is not files or other.call is None:
            continue
        call, arguments = other.call
        if call.name == "fcntl":
            continue  # ``fcntl_setlk()`` looks whether the descriptor is still there when it has the lock.
        for (_, kind), fd in zip(call.arguments, arguments, strict=True):
            if kind.shown == "fd" and first <= fd <= last and fd in files and fd not in other.held:
                other.held[fd] = files.get_raw(fd).acquire()


def let_go(task: "Task") -> None:
    """The call of ``task`` is over."""
    while task.held:
        _, file = task.held.popitem()
        file.release(task)
