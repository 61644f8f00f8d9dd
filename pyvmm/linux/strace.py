"""Showing system calls as strace(1) does: what was called with what, and what came of it.

Apart from behaviour: the dispatcher asks this module only when somebody wants to see. Everything that a guest chose
(paths, names) is escaped.
"""

import errno
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyvmm.linux.errors import GuestError
from pyvmm.linux.table import ArgumentKind, SystemCall, name_of

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_STRING_MAX = 64
_MASK = (1 << 64) - 1
#: Calls whose second argument is a buffer that is worth seeing: written before the call, or filled by it.
_WRITERS = frozenset({"write", "pwrite64"})
_READERS = frozenset({"read", "pread64", "readlink", "getcwd", "getrandom"})
_ADDRESSES = frozenset({"mmap", "brk", "mremap"})


class Tracer:
    """Prints every system call of a sandbox, one to a line.

    :param write: is given each line, without its end.
    :param times: begin each line with the seconds since the tracer was made.
    """

    def __init__(self, write: Callable[[str], object], *, times: bool = False) -> None:
        self._write = write
        self._times = times
        self._started = time.monotonic()

    def describe(self, task: "Task", number: int, call: SystemCall | None, arguments: tuple[int, ...]) -> str:
        """The call as text, up to its closing parenthesis: made before it runs, since it may change what it points
        to.
        """
        if call is None:
            return f"{name_of(number)}(...)"
        shown = []
        for (name, kind), value in zip(call.arguments, arguments, strict=True):
            if name in ("buf", "buffer", "data") and call.name in _WRITERS:
                shown.append(_bytes_at(task, value, arguments[2]))
            else:
                shown.append(_argument(task, kind, value))
        return f"{call.name}({', '.join(shown)})"

    def returned(
        self, task: "Task", text: str, call: SystemCall | None, arguments: tuple[int, ...], result: int
    ) -> None:
        """Report the call ``text`` with the ``result`` that is in RAX."""
        signed = result - (1 << 64) if result >> 63 else result
        if -4096 < signed < 0:
            name = errno.errorcode.get(-signed, str(-signed))
            self.report(text, f"-1 {name} ({os.strerror(-signed)})")
        elif call is not None and call.name in _ADDRESSES:
            self.report(text, hex(result))
        else:
            if call is not None and call.name in _READERS and len(arguments) > 1 and signed > 0:
                buffer = arguments[0] if call.name in ("getcwd", "getrandom") else arguments[1]
                text = text.replace(hex(buffer), _bytes_at(task, buffer, signed), 1)
            self.report(text, str(signed))

    def report(self, text: str, result: str) -> None:
        """Print a line for the call ``text``."""
        stamp = f"{time.monotonic() - self._started:10.6f} " if self._times else ""
        self._write(f"{stamp}{text} = {result}")


def _argument(task: "Task", kind: ArgumentKind, value: int) -> str:
    match kind.shown:
        case "path":
            return _string_at(task, value)
        case "pointer":
            return hex(value) if value else "NULL"
        case "hex":
            return hex(value)
        case "oct":
            return f"0{value:o}"
        case "fd" if value == -100:
            return "AT_FDCWD"
        case _:
            return str(value)


def _string_at(task: "Task", address: int) -> str:
    if not address:
        return "NULL"
    try:
        text = task.mem.read_cstring(address, 4096)
    except GuestError:
        return hex(address)
    return _quoted(text)


def _bytes_at(task: "Task", address: int, count: int) -> str:
    try:
        data = task.mem.read(address, min(max(count, 0), _STRING_MAX + 1))
    except GuestError:
        return hex(address)
    return _quoted(data)


def _quoted(data: bytes) -> str:
    """``data`` in double quotes, escaped as in C, cut if it is long."""
    shown = "".join(
        _ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:o}") for byte in data[:_STRING_MAX]
    )
    return f'"{shown}"{"..." if len(data) > _STRING_MAX else ""}'


_ESCAPES = {ord("\n"): "\\n", ord("\t"): "\\t", ord("\r"): "\\r", ord('"'): '\\"', ord("\\"): "\\\\"}
