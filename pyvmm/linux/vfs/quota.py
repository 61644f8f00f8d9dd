"""How much a sandbox may keep in its files: what is not in the image lies in the monitor's memory.

That memory is part of what the sandbox may have, as a tmpfs's is of its memory cgroup: what files take, frames cannot.
"""

from collections.abc import Callable
from errno import ENOSPC

from pyvmm.linux.errors import GuestError

BLOCK = 4096

#: What an entry of a directory costs besides its name.
ENTRY_COST = 192

#: What an inode costs besides its contents.
INODE_COST = 1024


class Quota:
    """Counts bytes and inodes of one sandbox; who takes too much gets ENOSPC."""

    __slots__ = ("bytes_used", "inodes_used", "max_bytes", "max_inodes", "memory_left")

    def __init__(self, max_bytes: int, max_inodes: int) -> None:
        self.max_bytes = max_bytes
        self.max_inodes = max_inodes
        self.bytes_used = 0
        self.inodes_used = 0
        #: Bytes of memory that the sandbox can still have; set by who knows.
        self.memory_left: Callable[[], int] = lambda: max_bytes

    def __repr__(self) -> str:
        return f"<Quota {self.bytes_used}/{self.max_bytes} bytes, {self.inodes_used}/{self.max_inodes} inodes>"

    @property
    def bytes_free(self) -> int:
        """What can still be taken."""
        return max(min(self.max_bytes - self.bytes_used, self.memory_left()), 0)

    def take(self, count: int) -> None:
        """Count ``count`` more bytes (ENOSPC), or fewer if it is negative."""
        if count > 0 and count > self.bytes_free:
            raise GuestError(ENOSPC)
        self.bytes_used += count

    def take_inode(self) -> None:
        """Count one more inode (ENOSPC)."""
        if self.inodes_used >= self.max_inodes:
            raise GuestError(ENOSPC)
        self.take(INODE_COST)
        self.inodes_used += 1

    def give_inode(self) -> None:
        """Count one inode less."""
        self.take(-INODE_COST)
        self.inodes_used -= 1
