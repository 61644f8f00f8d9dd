"""The host's Linux behind the same face as :class:`tests.linux.vfs_guest.Guest`: raw system calls of an unprivileged
child.
"""

import ctypes
import mmap
import os
import pickle
import shutil
import signal
import tempfile
from collections.abc import Callable
from typing import Any

from pyvmm.linux.abi.unistd import NUMBERS

SIZE = 1 << 20
_REPORT_FD = 200
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long


class Native:
    """Memory and system calls of this very process."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, SIZE)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        #: The last page cannot be touched.
        self.nowhere = self.base + SIZE - 4096
        if _LIBC.mprotect(ctypes.c_void_p(self.nowhere), 4096, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
        self._next = 0

    def place(self, data: bytes) -> int:
        if self._next + len(data) > SIZE // 4:
            self._next = 0
        at = self._next
        self._map[at : at + len(data)] = data
        self._next += (len(data) + 7) & ~7
        return self.base + at

    def peek(self, address: int, count: int) -> bytes:
        return ctypes.string_at(address, count)

    @property
    def buffer(self) -> int:
        return self.base + SIZE // 2

    def call(self, name: str, *arguments: int | bytes) -> int:
        words = [self.place(word + b"\0") if isinstance(word, bytes) else word for word in arguments]
        ctypes.set_errno(0)
        result = _LIBC.syscall(ctypes.c_long(NUMBERS[name]), *(ctypes.c_long(word) for word in words))
        return -ctypes.get_errno() if result == -1 else int(result)


def run_natively(program: Callable[[Any], Any]) -> Any:
    """What ``program`` gives when it is called with a :class:`Native` as user 1000 in an empty directory of its own."""
    folder = tempfile.mkdtemp(prefix="pyvmm-native-", dir="/tmp")
    os.chown(folder, 1000, 1000)
    os.chmod(folder, 0o755)
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        _child(program, folder, sender)
    os.close(sender)
    with os.fdopen(receiver, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    outcome = pickle.loads(data)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _child(program: Callable[[Any], Any], folder: str, sender: int) -> None:
    outcome: Any
    try:
        signal.alarm(20)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.dup2(sender, _REPORT_FD)
        os.closerange(3, _REPORT_FD)
        os.closerange(_REPORT_FD + 1, 4096)
        os.chdir(folder)
        os.umask(0o022)
        os.setgroups([1000])
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        outcome = program(Native())
    except BaseException as error:
        outcome = RuntimeError(f"{type(error).__name__}: {error}")
    with os.fdopen(_REPORT_FD, "wb") as stream:
        stream.write(pickle.dumps(outcome))
    os._exit(0)
