"""Virtual memory areas, and the sorted list of them that an address space has.

Areas are immutable tuples, so that a fork copies the list and nothing else.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from errno import ENOMEM
from typing import NamedTuple, Protocol

from pyvmm.linux import layout
from pyvmm.linux.abi.mman import MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE
from pyvmm.linux.errors import GuestError
from pyvmm.linux.pagetable import PTE_NX, PTE_P, PTE_RESIDENT, PTE_U, PTE_W

READ_WRITE_EXEC = PROT_READ | PROT_WRITE | PROT_EXEC

#: Kept in an area's flags (Linux's VM_MAYWRITE): the file was open for writing when it was mapped shared.
MAP_MAYWRITE = 1 << 40
#: MADV_WIPEONFORK: a child finds zeros here.
MAP_WIPEONFORK = 1 << 41
#: MADV_DONTFORK: a child does not have it.
MAP_DONTFORK = 1 << 42
#: The memory policy (mbind(2)): 16 bits.
MAP_MEMPOLICY_SHIFT = 44
MAP_MEMPOLICY = 0xFFFF << MAP_MEMPOLICY_SHIFT


class Backing(Protocol):
    """What a file mapping needs of an inode."""

    ino: int

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset`` on."""

    @property
    def size(self) -> int:
        """Bytes."""

    def shared_frame(self, index: int) -> int | None:
        """The frame that all shared mappings of page ``index`` use; None if there is none yet."""

    def share_page(self, index: int, frame: int) -> None:
        """From now on ``frame`` is page ``index``; it is given its contents."""

    def unshare_pages(self) -> list[int]:
        """Take the contents of all shared pages back; the frames that they had."""


class InodeTable(Protocol):
    """Where areas find their inodes by number, and say how long they need them."""

    def inode(self, ino: int) -> Backing: ...

    def hold(self, ino: int, shared: bool = False) -> None:
        """One more area maps the inode."""

    def drop(self, ino: int, shared: bool = False) -> list[int]:
        """One area less; the frames that nobody needs any more now that the last shared one is gone."""


class Vma(NamedTuple):
    """A virtual memory area: ``[start, end)``; ``ino`` 0 means anonymous; ``offset`` in bytes; ``name`` as
    ``/proc/self/maps`` shows it.
    """

    start: int
    end: int
    prot: int
    flags: int
    ino: int = 0
    offset: int = 0
    name: bytes = b""

    @property
    def is_shared(self) -> bool:
        """Whether it shows a file's own pages."""
        return bool(self.ino and self.flags & MAP_SHARED)

    def cut(self, start: int, end: int, prot: int | None = None) -> "Vma":
        """The part ``[start, end)`` of this area."""
        offset = self.offset + start - self.start if self.ino else 0
        return Vma(start, end, self.prot if prot is None else prot, self.flags, self.ino, offset, self.name)


def rights_of(prot: int) -> int:
    """The page-table bits for a protection. On x86 whatever can be written or executed can be read."""
    if not prot & READ_WRITE_EXEC:
        return PTE_RESIDENT | PTE_NX
    rights = PTE_P | PTE_U | PTE_RESIDENT
    if prot & PROT_WRITE:
        rights |= PTE_W
    if not prot & PROT_EXEC:
        rights |= PTE_NX
    return rights


class AreaList:
    """All areas of an address space, in order of address, no two of which overlap."""

    def __init__(self, inodes: InodeTable) -> None:
        self._inodes = inodes
        self._starts: list[int] = []
        self._vmas: list[Vma] = []
        self.mmap_top = layout.MMAP_TOP
        self._search_from = layout.MMAP_TOP

    def find(self, address: int) -> Vma | None:
        """The area that holds ``address``."""
        index = bisect_right(self._starts, address) - 1
        if index >= 0:
            vma = self._vmas[index]
            if address < vma.end:
                return vma
        return None

    def areas(self, start: int, end: int) -> list[Vma]:
        """The areas that ``[start, end)`` touches, whole."""
        first = max(bisect_right(self._starts, start) - 1, 0)
        last = bisect_left(self._starts, end)
        return [vma for vma in self._vmas[first:last] if vma.end > start]

    def maps(self) -> Iterator[Vma]:
        """All areas in order of address."""
        return iter(self._vmas)

    def _hold(self, vma: Vma) -> None:
        """One more area like ``vma`` maps its inode."""
        if vma.ino:
            self._inodes.hold(vma.ino, vma.is_shared)

    def _carve(self, start: int, end: int) -> list[Vma]:
        """Take ``[start, end)`` out of the list of areas; what was there, cut to size."""
        removed = []
        first = max(bisect_right(self._starts, start) - 1, 0)
        last = bisect_left(self._starts, end)
        kept = []
        for vma in self._vmas[first:last]:
            if vma.end <= start:
                kept.append(vma)
                continue
            if vma.start < start:
                kept.append(vma.cut(vma.start, start))
                self._hold(vma)
            removed.append(vma.cut(max(vma.start, start), min(vma.end, end)))
            if vma.end > end:
                kept.append(vma.cut(end, vma.end))
                self._hold(vma)
        self._vmas[first:last] = kept
        self._starts[first:last] = [vma.start for vma in kept]
        return removed

    def _insert(self, vma: Vma) -> None:
        """Add an area where there is none, merged with its neighbours if they are alike."""
        index = bisect_right(self._starts, vma.start)
        if not vma.ino and index:
            before = self._vmas[index - 1]
            if before.end == vma.start and not before.ino and before[2:4] == vma[2:4] and before.name == vma.name:
                index -= 1
                del self._starts[index], self._vmas[index]
                vma = vma._replace(start=before.start)
        if not vma.ino and index < len(self._vmas):
            after = self._vmas[index]
            if after.start == vma.end and not after.ino and after[2:4] == vma[2:4] and after.name == vma.name:
                del self._starts[index], self._vmas[index]
                vma = vma._replace(end=after.end)
        self._starts.insert(index, vma.start)
        self._vmas.insert(index, vma)

    def set_mmap_top(self, address: int) -> None:
        """Let new mappings grow downwards from ``address``."""
        self.mmap_top = self._search_from = address

    def _free_range(self, size: int) -> int:
        """The highest free range of ``size`` bytes under the mmap top.

        :raises GuestError: ENOMEM, the address space is full.
        """
        end = self._search_from
        index = bisect_right(self._starts, end - 1) - 1
        while index >= 0:
            vma = self._vmas[index]
            if vma.end < end and end - vma.end >= size:
                break
            end = min(end, vma.start)
            index -= 1
        if end - size < layout.MMAP_MIN_ADDR:
            if self._search_from != self.mmap_top:
                self._search_from = self.mmap_top
                return self._free_range(size)
            raise GuestError(ENOMEM)
        self._search_from = end - size
        return end - size
