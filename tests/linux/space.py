"""An address space on guest memory without a VM, and inodes that it can map."""

from collections import Counter
from itertools import pairwise

from pyvmm.linux import layout
from pyvmm.linux.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE
from pyvmm.linux.frames import FrameAllocator
from pyvmm.linux.mm import AddressSpace
from pyvmm.linux.pagetable import PTE_FRAME
from pyvmm.linux.usermem import UserMemory
from pyvmm.memory import GuestMemory

PAGE = layout.PAGE_SIZE
ANONYMOUS = MAP_PRIVATE | MAP_ANONYMOUS
FIXED = ANONYMOUS | MAP_FIXED


class File:
    """An inode as an address space sees it, with its contents in ``data``."""

    def __init__(self, ino: int, data: bytes, view: memoryview) -> None:
        self.ino, self.data, self._view = ino, bytearray(data), view
        self.pages: dict[int, int] = {}

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, count: int) -> bytes:
        return bytes(self.data[offset : offset + count])

    def shared_frame(self, index: int) -> int | None:
        return self.pages.get(index)

    def share_page(self, index: int, frame: int) -> None:
        self.pages[index] = frame
        self._view[frame << 12 : frame + 1 << 12] = self.read_at(index << 12, PAGE).ljust(PAGE, b"\0")

    def unshare_pages(self) -> list[int]:
        for index, frame in self.pages.items():
            size = min(PAGE, self.size - (index << 12))
            self.data[index << 12 : (index << 12) + size] = self._view[frame << 12 : (frame << 12) + size]
        frames = list(self.pages.values())
        self.pages.clear()
        return frames


class Space:
    """Memory, frames, an address space and user memory, put together as :mod:`pyvmm.linux.boot` does."""

    def __init__(self, limit: int = 16 << 20, in_use: int = 1 << 20) -> None:
        self.memory = GuestMemory(limit, in_use)
        self.frames = FrameAllocator(self.memory, layout.SYSTEM_FRAMES)
        self.files: dict[int, File] = {}
        self.held: Counter[int] = Counter()
        self.shared: Counter[int] = Counter()
        self.mm = AddressSpace(self.memory, self.frames, self)
        self.user = UserMemory(self.mm, self.memory.view, self.memory.words)

    def file(self, data: bytes) -> int:
        """A new inode with these contents; its number."""
        ino = len(self.files) + 1
        self.files[ino] = File(ino, data, self.memory.view)
        return ino

    # What an AddressSpace asks of an InodeTable.

    def inode(self, ino: int) -> File:
        return self.files[ino]

    def hold(self, ino: int, shared: bool = False) -> None:
        self.held[ino] += 1
        self.shared[ino] += shared

    def drop(self, ino: int, shared: bool = False) -> list[int]:
        self.held[ino] -= 1
        self.shared[ino] -= shared
        return self.files[ino].unshare_pages() if shared and not self.shared[ino] else []

    # What must hold whatever was done.

    def tables(self) -> list[int]:
        """The frames of all page tables."""
        words, found, level = self.memory.words, [self.mm.table.root >> 12], [self.mm.table.root >> 12]
        for _ in range(3):
            level = [
                (entry & PTE_FRAME) >> 12
                for frame in level
                for entry in words[frame << 9 : frame + 1 << 9]
                if entry & 1
            ]
            found += level
        return found

    def check(self) -> None:
        """No frame has two users, none is lost, and every area lies where areas may."""
        areas = list(self.mm.maps())
        for area, following in pairwise(areas):
            assert area.end <= following.start
        for area in areas:
            assert layout.MMAP_MIN_ADDR <= area.start < area.end <= layout.TASK_SIZE
            assert area.start % PAGE == area.end % PAGE == 0
        resident = {entry for area in areas for entry in self.mm.table.resident(area.start, area.end)}
        everywhere = set(self.mm.table.resident(0, layout.TASK_SIZE))
        assert everywhere == resident, "a page outside of every area has a frame"
        shared = {frame for file in self.files.values() for frame in file.pages.values()}
        private = [frame for _, entry in resident if (frame := (entry & PTE_FRAME) >> 12) not in shared]
        users = [*range(layout.SYSTEM_FRAMES), *self.tables(), *private, *shared]
        assert len(users) == len(set(users)), "a frame has two users"
        saved = self.frames.save()
        free = [frame for first, count in saved["free"] for frame in range(first, first + count)]  # type: ignore[attr-defined]
        assert len(free) == len(set(free)) and not set(free) & set(users), "a frame that is used is free as well"
        assert len(users) + len(free) == saved["next"], "a frame is lost"
        assert self.frames.used == len(users)
        holding = Counter(area.ino for area in areas if area.ino)
        assert +self.held == holding, "inodes are held as often as areas map them"

    def close(self) -> None:
        self.memory.close()
