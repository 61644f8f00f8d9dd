"""The address space of a process: its virtual memory areas, and what happens when it touches them.

Areas are immutable tuples in a sorted list, so that a fork copies the list and nothing else. Memory is demand-zero:
an area costs nothing until a page of it is touched, and a touch maps a few pages around it, more when touches come
in sequence (an exit costs far more than a page).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from errno import EACCES, EEXIST, EFAULT, EINVAL, ENOMEM, EPERM
from typing import Any, NamedTuple, Protocol

from pyvmm.linux import layout
from pyvmm.linux.abi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_NORESERVE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from pyvmm.linux.abi.signal import BUS_ADRERR, SEGV_ACCERR, SEGV_MAPERR, SIGBUS, SIGSEGV
from pyvmm.linux.errors import BadAccess, GuestError
from pyvmm.linux.frames import FrameAllocator
from pyvmm.linux.layout import PAGE_MASK, PAGE_SIZE, page_down, page_up
from pyvmm.linux.pagetable import PTE_NX, PTE_P, PTE_RESIDENT, PTE_U, PTE_W, PageTable, Run
from pyvmm.memory import GuestMemory

_READ_WRITE_EXEC = PROT_READ | PROT_WRITE | PROT_EXEC

#: vm.max_map_count: areas cost host memory, so there is a limit, and it is Linux's.
MAX_MAP_COUNT = 65530

#: Pages mapped around a first touch, at least and (when touches follow each other) at most.
_AROUND_MIN, _AROUND_MAX = 16, 512


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
    def hold(self, ino: int) -> None: ...
    def drop(self, ino: int) -> None: ...


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

    def cut(self, start: int, end: int, prot: int | None = None) -> "Vma":
        """The part ``[start, end)`` of this area."""
        offset = self.offset + start - self.start if self.ino else 0
        return Vma(start, end, self.prot if prot is None else prot, self.flags, self.ino, offset, self.name)


def rights_of(prot: int) -> int:
    """The page-table bits for a protection. On x86 whatever can be written or executed can be read."""
    if not prot & _READ_WRITE_EXEC:
        return PTE_RESIDENT | PTE_NX
    rights = PTE_P | PTE_U | PTE_RESIDENT
    if prot & PROT_WRITE:
        rights |= PTE_W
    if not prot & PROT_EXEC:
        rights |= PTE_NX
    return rights


class AddressSpace:
    """``struct mm_struct``: areas, break, page tables."""

    def __init__(
        self, memory: GuestMemory, frames: FrameAllocator, inodes: InodeTable, root: int | None = None
    ) -> None:
        self._memory = memory
        self._view = memory.view
        self.frames = self._frames = frames
        self._inodes = inodes
        self.table = PageTable(memory.words, frames, root)
        self._starts: list[int] = []
        self._vmas: list[Vma] = []
        self.brk_start = self.brk = 0
        self.mmap_top = layout.MMAP_TOP
        self._search_from = layout.MMAP_TOP
        self._around_end = 0
        self._around = _AROUND_MIN
        #: Physical address of the vvar page and virtual address of the vDSO (see vdso/__init__.py); 0: not mapped.
        self.vvar = self.vdso = 0
        #: A translation was taken away: the guest's TLB must be flushed before it runs again.
        self.flush_needed = False
        #: Called in the middle of long work; set by the kernel.
        self.check: Callable[[], None] = lambda: None

    # ------------------------------------------------------------------------------------------------- areas

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
                if vma.ino:
                    self._inodes.hold(vma.ino)
            removed.append(vma.cut(max(vma.start, start), min(vma.end, end)))
            if vma.end > end:
                kept.append(vma.cut(end, vma.end))
                if vma.ino:
                    self._inodes.hold(vma.ino)
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

    # ------------------------------------------------------------------------------------------ system calls

    def map(
        self, address: int, size: int, prot: int, flags: int, ino: int = 0, offset: int = 0, name: bytes = b""
    ) -> int:
        """Map ``size`` bytes (mmap(2), arguments already checked against the file); the address.

        :raises GuestError: EINVAL, ENOMEM, EPERM, EEXIST as mmap(2) has them.
        """
        size = page_up(size)
        if not 0 < size <= layout.TASK_SIZE:
            raise GuestError(EINVAL if not size else ENOMEM)
        if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE):
            if address & PAGE_MASK:
                raise GuestError(EINVAL)
            if address + size > layout.TASK_SIZE:
                raise GuestError(ENOMEM)
            if address < layout.MMAP_MIN_ADDR:
                raise GuestError(EPERM)
            if flags & MAP_FIXED_NOREPLACE and self.areas(address, address + size):
                raise GuestError(EEXIST)
        else:
            address = page_down(address)
            hint_is_free = layout.MMAP_MIN_ADDR <= address <= layout.TASK_SIZE - size and not self.areas(
                address, address + size
            )
            if not hint_is_free:
                address = self._free_range(size)
        if len(self._vmas) >= MAX_MAP_COUNT:
            raise GuestError(ENOMEM)
        if prot & PROT_WRITE and not flags & MAP_NORESERVE:
            self.check_room(size)
        self.unmap(address, size)
        if ino:
            self._inodes.hold(ino)
        self._insert(Vma(address, address + size, prot & _READ_WRITE_EXEC, flags, ino, offset, name))
        if (
            size <= _AROUND_MIN * PAGE_SIZE
            and prot & PROT_WRITE
            and flags & MAP_ANONYMOUS
            and not flags & MAP_NORESERVE
        ):
            # So small a mapping is about to be used, whole: giving it frames now saves the fault. (Not one of
            # mremap(2), which asks with MAP_NORESERVE: it brings its frames along.)
            self._map_frames(address, size >> 12, rights_of(prot))
        return address

    def _map_frames(self, address: int, count: int, rights: int) -> None:
        """Give frames to ``count`` pages that have none, as far as memory is plenty."""
        if self._frames.available < self._frames.limit >> 3:
            return
        while count:
            first, got = self._frames.allocate(count)
            self.table.map(address, first, got, rights)
            address += got * PAGE_SIZE
            count -= got

    def check_room(self, size: int) -> None:
        """ENOMEM unless ``size`` bytes could be touched now: a request that cannot succeed fails at once, as a
        program expects.
        """
        if size > self._frames.available * PAGE_SIZE:
            raise GuestError(ENOMEM)

    def unmap(self, address: int, size: int) -> None:
        """Remove every mapping of the pages of ``[address, address + size)`` (munmap(2), arguments already checked)."""
        end = address + size
        first = self.find(address)
        if first is not None and first.start < address and end < first.end and len(self._vmas) >= MAX_MAP_COUNT:
            raise GuestError(ENOMEM)  # it would split one area in two
        removed = self._carve(address, end)
        if not removed:
            return
        still_shared: set[int] | None = None
        for vma in removed:
            self.check()
            self._release(vma, self.table.unmap(vma.start, vma.end))
            if vma.ino:
                if vma.flags & MAP_SHARED:
                    if still_shared is None:
                        still_shared = {other.ino for other in self._vmas if other.flags & MAP_SHARED}
                    if vma.ino not in still_shared:
                        frames = self._inodes.inode(vma.ino).unshare_pages()
                        self._frames.free((frame, 1) for frame in frames)
                self._inodes.drop(vma.ino)
        if end <= self.mmap_top:
            self._search_from = max(self._search_from, end)

    def _release(self, vma: Vma, runs: list[Run]) -> None:
        """Frames that an area has lost: back to the allocator, or (shared with the file) only out of KVM's sight."""
        if not runs:
            return
        self.flush_needed = True
        if vma.ino and vma.flags & MAP_SHARED:
            self._forget(runs)
            return
        if any(first <= self.vvar >> 12 < first + count for first, count in runs):
            # A program may unmap the vvar page; the clock must not be written into a frame that is something else then.
            self.vvar = self.vdso = 0
        self._frames.free(runs)

    def _forget(self, runs: Iterable[Run]) -> None:
        self.flush_needed = True
        for first, count in runs:
            self._memory.forget_translations(first << 12, count << 12)

    def protect(self, address: int, size: int, prot: int) -> None:
        """mprotect(2), arguments already checked.

        :raises GuestError: ENOMEM for a hole (what lies before it is changed, as on Linux), EACCES for a shared
            mapping of a file that is not open for writing.
        """
        end = address + size
        prot &= _READ_WRITE_EXEC
        reached = address
        error = changes = 0
        for vma in self.areas(address, end):
            if vma.start > reached:
                break
            if vma.prot != prot:
                shared_file = vma.ino and vma.flags & MAP_SHARED
                if prot & PROT_WRITE and shared_file and not vma.flags & MAP_MAYWRITE:
                    error = EACCES
                    break
                changes += 1
            reached = min(vma.end, end)
        if changes:
            if len(self._vmas) + 2 > MAX_MAP_COUNT:
                raise GuestError(ENOMEM)
            self._set_prot(address, reached, prot)
        if reached < end:
            raise GuestError(error or ENOMEM)

    def _set_prot(self, start: int, end: int, prot: int) -> None:
        """Give ``[start, end)``, all of it mapped, one protection: in one pass, however many areas there are."""
        changed: list[Vma] = []
        for vma in self._carve(start, end):
            vma = vma._replace(prot=prot)
            before = changed[-1] if changed else None
            if (
                before is not None
                and not before.ino
                and not vma.ino
                and before[2:4] == vma[2:4]
                and before.name == vma.name
            ):
                changed[-1] = before._replace(end=vma.end)
            else:
                changed.append(vma)
        index = bisect_right(self._starts, start)
        self._vmas[index:index] = changed[1:-1]
        self._starts[index:index] = [vma.start for vma in changed[1:-1]]
        self._insert(changed[0])
        if len(changed) > 1:
            self._insert(changed[-1])
        self._forget(self.table.protect(start, end, rights_of(prot)))

    def discard(self, address: int, size: int) -> None:
        """MADV_DONTNEED: anonymous pages read as zero afterwards, private file pages as the file; shared ones are
        untouched.

        :raises GuestError: ENOMEM when part of the range is not mapped.
        """
        end = address + size
        reached = address
        hole = False
        for vma in self.areas(address, end):
            hole |= vma.start > reached
            start, reached = max(vma.start, address), min(vma.end, end)
            self.check()
            if not vma.flags & MAP_SHARED:
                self._release(vma, self.table.unmap(start, reached))
        if hole or reached < end:
            raise GuestError(ENOMEM)

    def remap(self, old: int, old_size: int, new_size: int, may_move: bool, fixed: int | None) -> int:
        """mremap(2), arguments already checked for alignment; the new address."""
        vma = self.find(old)
        if vma is None or old + old_size > vma.end:
            raise GuestError(EFAULT)
        if new_size <= old_size and fixed is None:
            if new_size < old_size:
                self.unmap(old + new_size, old_size - new_size)
            return old
        if new_size > old_size and vma.prot & PROT_WRITE:
            self.check_room(new_size - old_size)
        end = old + old_size
        if (
            fixed is None
            and end == vma.end
            and old + new_size <= layout.TASK_SIZE
            and not self.areas(end, old + new_size)
        ):
            if vma.ino:
                self._inodes.hold(vma.ino)
            self._carve(vma.start, vma.end)
            if vma.ino:
                self._inodes.drop(vma.ino)
            self._insert(vma._replace(end=old + new_size))
            return old
        if not may_move:
            raise GuestError(ENOMEM)
        flags = (
            (vma.flags & ~(MAP_FIXED | MAP_FIXED_NOREPLACE)) | (MAP_FIXED if fixed is not None else 0) | MAP_NORESERVE
        )
        offset = vma.offset + old - vma.start if vma.ino else 0
        if fixed is not None and new_size < old_size:
            self.unmap(old + new_size, old_size - new_size)
            old_size = new_size
        new = self.map(fixed or 0, new_size, vma.prot, flags, vma.ino, offset, vma.name)
        self._forget(self.table.move(old, new, old_size))
        self.unmap(old, old_size)
        return new

    def set_brk(self, wanted: int) -> int:
        """brk(2): the break afterwards, which is the old one when ``wanted`` cannot be had."""
        if wanted < self.brk_start:
            return self.brk
        old_end, new_end = page_up(self.brk), page_up(wanted)
        if new_end > old_end:
            too_much = new_end > layout.TASK_SIZE or new_end - old_end > self._frames.available * PAGE_SIZE
            if too_much or self.areas(old_end, new_end):
                return self.brk
            self._insert(Vma(old_end, new_end, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | 2, 0, 0, b"[heap]"))
        elif new_end < old_end:
            self.unmap(new_end, old_end - new_end)
        self.brk = wanted
        return wanted

    # ------------------------------------------------------------------------------------------------ faults

    def fault(self, address: int, write: bool, execute: bool = False) -> None:
        """Make the page at ``address`` accessible, as a page fault does.

        :raises BadAccess: the signal that the access deserves.
        :raises OutOfMemory: no frame is left.
        """
        vma = self.find(address) if address < layout.TASK_SIZE else None
        if vma is None:
            raise BadAccess(SIGSEGV, SEGV_MAPERR)
        prot = vma.prot
        if not prot & (PROT_WRITE if write else PROT_EXEC if execute else _READ_WRITE_EXEC):
            raise BadAccess(SIGSEGV, SEGV_ACCERR)
        if self.table.lookup(address):
            return  # resident with these very rights: the processor's view was old
        if vma.ino:
            self._fault_file(vma, page_down(address))
        else:
            self._fault_anonymous(vma, page_down(address))

    def populate(self, address: int, data: bytes) -> int:
        """Give the page at ``address`` a frame that begins with ``data``, whatever the program may do there; its
        physical address.
        """
        vma = self.find(address)
        assert vma is not None
        first, _ = self._frames.allocate()
        start = first << 12
        self._view[start : start + len(data)] = data
        self.table.map(address, first, 1, rights_of(vma.prot))
        return start

    def _fault_anonymous(self, vma: Vma, address: int) -> None:
        start, count = self._around_of(vma, address)
        rights = rights_of(vma.prot)
        first, got = self._frames.allocate(count)
        if got < count:
            # A short run must hold the page that was touched.
            start = max(start, address - (got - 1) * PAGE_SIZE)
        self.table.map(start, first, got, rights)
        self._around_end = start + got * PAGE_SIZE

    def _fault_file(self, vma: Vma, address: int) -> None:
        inode = self._inodes.inode(vma.ino)
        if vma.flags & MAP_SHARED:
            index = (vma.offset + address - vma.start) >> 12
            if index << 12 >= inode.size:
                raise BadAccess(SIGBUS, BUS_ADRERR)
            frame = inode.shared_frame(index)
            if frame is None:
                frame, _ = self._frames.allocate()
                inode.share_page(index, frame)
            self.table.map(address, frame, 1, rights_of(vma.prot))
            return
        start, count = self._around_of(vma, address)
        offset = vma.offset + start - vma.start
        data = inode.read_at(offset, count * PAGE_SIZE)
        pages = (len(data) + PAGE_MASK) >> 12
        if (address - start) >> 12 >= pages:
            raise BadAccess(SIGBUS, BUS_ADRERR)
        rights = rights_of(vma.prot)
        position = 0
        while position < pages:
            first, got = self._frames.allocate(pages - position)
            part = data[position << 12 : (position + got) << 12]
            self._view[first << 12 : (first << 12) + len(part)] = part
            self.table.map(start + (position << 12), first, got, rights)
            position += got

    def _around_of(self, vma: Vma, address: int) -> tuple[int, int]:
        """The pages to map for a touch of ``address``: (first address, count), all without a frame, ``address``
        among them.
        """
        if address == self._around_end:
            self._around = min(self._around * 2, _AROUND_MAX)
        else:
            self._around = _AROUND_MIN
        # When memory is scarce, what is not touched must not be what ends the guest.
        available, limit = self._frames.available, self._frames.limit
        if available < limit >> 3:
            if available < limit >> 6:
                return address, 1
            self._around = _AROUND_MIN
        size = self._around * PAGE_SIZE
        low = max(vma.start, address & ~(_AROUND_MIN * PAGE_SIZE - 1))
        high = min(vma.end, address + size if self._around > _AROUND_MIN else low + size)
        if self.table.lookup(low) or self.table.empty(low, (address - low) >> 12) < (address - low) >> 12:
            low = address
        return low, max(self.table.empty(low, (high - low) >> 12), 1)

    # ------------------------------------------------------------------------------------------ save, restore

    def save(self) -> dict[str, object]:
        """Plain data."""
        return {
            "vmas": [tuple(vma) for vma in self._vmas],
            "brk_start": self.brk_start,
            "brk": self.brk,
            "root": self.table.root,
            "mmap_top": self.mmap_top,
            "search_from": self._search_from,
            "vvar": self.vvar,
            "vdso": self.vdso,
        }

    def restore(self, state: "FrozenSpace") -> None:
        """Continue where a saved address space was; page tables are in guest memory already."""
        self._vmas = list(state.vmas)
        self._starts = list(state.starts)
        self.brk_start, self.brk = state.brk_start, state.brk
        self.mmap_top, self._search_from = state.mmap_top, state.search_from
        self.vvar, self.vdso = state.vvar, state.vdso


class FrozenSpace:
    """A saved address space, made ready once so that every fork only copies two lists."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.vmas = [Vma(*fields) for fields in state["vmas"]]
        self.starts = [vma.start for vma in self.vmas]
        self.brk_start, self.brk = state["brk_start"], state["brk"]
        self.root = state["root"]
        self.mmap_top, self.search_from = state["mmap_top"], state["search_from"]
        self.vvar, self.vdso = state["vvar"], state["vdso"]


#: Kept in an area's flags (Linux's VM_MAYWRITE): the file was open for writing when it was mapped shared.
MAP_MAYWRITE = 1 << 40
