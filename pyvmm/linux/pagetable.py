"""4-level page tables in guest memory, written by the monitor (AMD64 APM volume 2, 5.3; Intel SDM volume 3, 4.5).

A table is addressed as an index into :attr:`GuestMemory.words`. Entries have Accessed and Dirty set beforehand, so
that no walker ever has to write them back. A page that is resident but may not be touched (``PROT_NONE``) keeps its
frame in an entry without the present bit::

    63  62..52  51..12  11..10   9         8..7  6  5  4..3  2  1  0
    NX          frame            RESIDENT        D  A        U  W  P

Adding an entry, or a right to one, needs nothing more. Taking one away does: nested paging must have its TLB
flushed, shadow paging must forget its copy of the entry (see :meth:`GuestMemory.forget_translations`); callers
collect the frames for that.

Shadow paging knows a table by the frame it lies in, and sees what a guest writes there but not what the monitor writes.
So a table that was in use must never become another one: the tables of an address space that has ended stay a tree,
with no page in it, until another address space takes it over whole (:meth:`PageTable.retire`).
"""

from array import array
from collections.abc import Collection, Iterator

from pyvmm.linux.frames import FrameAllocator

PTE_P = 1 << 0
PTE_W = 1 << 1
PTE_U = 1 << 2
PTE_A = 1 << 5
PTE_D = 1 << 6
PTE_RESIDENT = 1 << 9
PTE_NX = 1 << 63
PTE_FRAME = 0x000F_FFFF_FFFF_F000

_TABLE = PTE_P | PTE_W | PTE_U | PTE_A
_ENTRIES = 512
_EMPTY = array("Q", bytes(8 * _ENTRIES))

#: A run of pages that lost a mapping or a right: (first frame, how many).
Run = tuple[int, int]


class PageTable:
    """The page tables of one address space, ``root`` being the physical address that belongs into CR3."""

    def __init__(self, words: memoryview, frames: FrameAllocator, root: int | None = None) -> None:
        self._words = words
        self._frames = frames
        #: Last-level tables by virtual address >> 21, as word indices; filled as walks find them. Tables are never
        #: freed, so it is never stale.
        self._last_level: dict[int, int] = {}
        #: There is nothing in the tables yet.
        self.is_new = root is None and not frames.retired_tables
        if root is not None:
            self.root = root
        elif frames.retired_tables:
            self.root, self._last_level = frames.retired_tables.pop()
        else:
            self.root = self._new_table()

    def forget_accesses(self, start: int, end: int) -> None:
        """Clear the Accessed bits of the resident pages. Walkers then write to the tables, and shadow paging fills in
        no entries ahead: for measuring only.
        """
        for _, index, count in self._tables(start, end):
            for position in range(index, index + count):
                self._words[position] &= ~PTE_A

    @property
    def size(self) -> int:
        """Frames that tables like these take, at most."""
        return 2 * len(self._last_level) + 8

    def retire(self) -> None:
        """Keep the tables, in which no page of a program is left, for the next address space."""
        self._frames.retired_tables.append((self.root, self._last_level))

    def _new_table(self) -> int:
        first, _ = self._frames.allocate()
        return first << 12

    def table(self, address: int, create: bool = False) -> int | None:
        """The word index of the last-level table for ``address``; None if there is none and ``create`` is false."""
        base = self._last_level.get(address >> 21)
        if base is not None:
            return base
        words = self._words
        base = self.root >> 3
        for shift in (39, 30, 21):
            index = base + (address >> shift & 511)
            entry = words[index]
            if not entry & PTE_P:
                if not create:
                    return None
                words[index] = entry = self._new_table() | _TABLE
            base = (entry & PTE_FRAME) >> 3
        self._last_level[address >> 21] = base
        return base

    def lookup(self, address: int) -> int:
        """The last-level entry for ``address`` (0: none)."""
        base = self._last_level.get(address >> 21)
        if base is None:
            base = self.table(address)
            if base is None:
                return 0
        return self._words[base + (address >> 12 & 511)]

    def map(self, address: int, first_frame: int, count: int, rights: int) -> None:
        """Map ``count`` pages at ``address`` to consecutive frames with ``rights`` (entry bits)."""
        bits = rights | PTE_A | PTE_D
        entry = first_frame << 12 | bits
        while count:
            base = self.table(address, create=True)
            assert base is not None
            index = address >> 12 & 511
            part = min(count, _ENTRIES - index)
            if part == 1:
                self._words[base + index] = entry
            else:
                start = base + index
                self._words[start : start + part] = array("Q", range(entry, entry + (part << 12), 4096))
            address += part << 12
            entry += part << 12
            count -= part

    def _tables(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(address, word index of its entry, entries) for each part of ``[start, end)`` that has a last-level table."""
        address = start
        while address < end:
            limit = min(end, (address | 0x1F_FFFF) + 1)
            base = self.table(address)
            if base is not None:
                yield address, base + (address >> 12 & 511), (limit - address) >> 12
                address = limit
            else:
                address = min(end, self._next_table(address))

    def _next_table(self, address: int) -> int:
        """The first address after ``address`` that could have a last-level table, given that ``address`` has none."""
        base = self.root >> 3
        for shift in (39, 30, 21):
            entry = self._words[base + (address >> shift & 511)]
            if not entry & PTE_P:
                # The next entry that is there, or the end of this table.
                index = address >> shift & 511
                rest = self._words[base + index + 1 : base + _ENTRIES].tolist()
                ahead = next((n for n, other in enumerate(rest, 1) if other & PTE_P), len(rest) + 1)
                return (address >> shift) + ahead << shift
            base = (entry & PTE_FRAME) >> 3
        return address

    def resident(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(address, entry) of every page of ``[start, end)`` that has a frame."""
        for address, index, count in self._tables(start, end):
            for entry in self._words[index : index + count]:
                if entry:
                    yield address, entry
                address += 4096

    def empty(self, start: int, count: int) -> int:
        """How many pages from ``start`` on, up to ``count`` and to the end of the last-level table, have no frame."""
        base = self.table(start)
        index = start >> 12 & 511
        count = min(count, _ENTRIES - index)
        if base is None:
            return count
        for distance, entry in enumerate(self._words[base + index : base + index + count]):
            if entry:
                return distance
        return count

    def unmap(self, start: int, end: int) -> list[Run]:
        """Remove every entry of ``[start, end)``; the frames that were mapped, in runs."""
        runs: list[Run] = []
        for _, index, count in self._tables(start, end):
            entries = self._words[index : index + count].tolist()
            if not any(entries):
                continue
            self._words[index : index + count] = _EMPTY[:count]
            for entry in entries:
                if entry:
                    _extend(runs, (entry & PTE_FRAME) >> 12)
        return runs

    def protect(self, start: int, end: int, rights: int, shared: Collection[int] = ()) -> list[Run]:
        """Give every resident page of ``[start, end)`` new rights, but none to write where the frame is ``shared`` with
        a fork; the frames that lost one, in runs.
        """
        runs: list[Run] = []
        bits = rights | PTE_A | PTE_D
        if shared and bits & PTE_W:
            for address, entry in list(self.resident(start, end)):
                frame = (entry & PTE_FRAME) >> 12
                runs += self.protect(address, address + 4096, rights & ~PTE_W if frame in shared else rights)
            return runs
        for _, index, count in self._tables(start, end):
            entries = self._words[index : index + count].tolist()
            if not any(entries):
                continue
            for position, entry in enumerate(entries):
                if entry:
                    entries[position] = entry & PTE_FRAME | bits
                    if entry & ~bits & (PTE_P | PTE_W) or bits & ~entry & PTE_NX:
                        _extend(runs, (entry & PTE_FRAME) >> 12)
            self._words[index : index + count] = array("Q", entries)
        return runs

    def allow_writing(self, start: int, end: int, shared: Collection[int]) -> None:
        """Let the resident pages of ``[start, end)`` whose frame is not ``shared`` be written to."""
        for _, index, count in self._tables(start, end):
            for place in range(index, index + count):
                entry = self._words[place]
                if entry & PTE_P and (entry & PTE_FRAME) >> 12 not in shared:
                    self._words[place] = entry | PTE_W

    def copy_to(self, other: "PageTable", start: int, end: int, *, writable: bool) -> list[int]:
        """Enter the pages of ``[start, end)`` into another table as well, where nothing is mapped; their frames. Unless
        ``writable``, both lose the right to write.
        """
        frames: list[int] = []
        for address, index, count in self._tables(start, end):
            entries = self._words[index : index + count].tolist()
            if not any(entries):
                continue
            if not writable:
                entries = [entry & ~PTE_W for entry in entries]
                self._words[index : index + count] = array("Q", entries)
            base = other.table(address, create=True)
            assert base is not None
            place = base + (address >> 12 & 511)
            other._words[place : place + count] = array("Q", entries)
            frames += [(entry & PTE_FRAME) >> 12 for entry in entries if entry]
        return frames

    def move(self, old: int, new: int, size: int) -> list[Run]:
        """Move the entries of ``[old, old + size)`` to ``new``, where nothing is mapped; the frames moved, in runs."""
        runs: list[Run] = []
        for address, entry in list(self.resident(old, old + size)):
            target = new + address - old
            base = self.table(target, create=True)
            assert base is not None
            self._words[base + (target >> 12 & 511)] = entry
            _extend(runs, (entry & PTE_FRAME) >> 12)
        for _, index, count in self._tables(old, old + size):
            self._words[index : index + count] = _EMPTY[:count]
        return runs


def _extend(runs: list[Run], frame: int) -> None:
    """Add ``frame`` to ``runs``, to the last one if it follows it."""
    if runs:
        first, count = runs[-1]
        if frame == first + count:
            runs[-1] = (first, count + 1)
            return
    runs.append((frame, 1))
