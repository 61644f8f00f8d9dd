"""Randomness: getrandom(2)."""

from errno import EFAULT, EINVAL
from typing import TYPE_CHECKING

from pyvmm.linux.errors import GuestError
from pyvmm.linux.table import Flags, Pointer, Size, syscall

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

GRND_NONBLOCK, GRND_RANDOM, GRND_INSECURE = 1, 2, 4
_RANDOM_MAX = 0x1FF_FFFF
_CHUNK = 1 << 16


@syscall
def getrandom(task: "Task", buffer: Pointer, size: Size, flags: Flags) -> int:
    """getrandom(2)."""
    if flags & ~(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE) or flags & 6 == 6:
        raise GuestError(EINVAL)
    size = min(size, _RANDOM_MAX)
    done = 0
    while done < size:
        task.kernel.check()
        count = task.mem.writable(buffer + done, min(size - done, _CHUNK))
        if not count:
            break
        task.mem.write(buffer + done, task.kernel.random(count))
        done += count
    if size and not done:
        raise GuestError(EFAULT)
    return done
