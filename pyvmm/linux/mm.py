"""The address space of a process: what its system calls do to its areas, and what happens when it touches them.

Memory is demand-zero: an area costs nothing until a page of it is touched, and a touch maps a few pages around it, more
when touches come in sequence (an exit costs far more than a page). A fork shares all pages until one of the two writes:
the page tables of both then lack the right to write, and :class:`~pyvmm.linux.frames.FrameAllocator` counts who has a
frame.
"""

from bisect import bisect_right
from collections.abc import Callable
from errno import EACCES, EEXIST, EFAULT, EINVAL, ENOMEM, EPERM
from typing import Any

from pyvmm.linux import layout
from pyvmm.linux.abi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_NORESERVE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE,
)
from pyvmm.linux.areas import (
    MAP_DONTFORK,
    MAP_MAYWRITE,
    MAP_WIPEONFORK,
    READ_WRITE_EXEC,
    InodeTable,
    Vma,
    rights_of,
)
from pyvmm.linux.errors import GuestError
from pyvmm.linux.frames import FrameAllocator
from pyvmm.linux.layout import PAGE_MASK, PAGE_SIZE, page_down, page_up
from pyvmm.linux.pagetable import PageTable, Run
from pyvmm.linux.paging import AROUND_MIN, PagedAreas
from pyvmm.memory import GuestMemory

#: vm.max_map_count: areas cost host memory, so there is a limit, and it is Linux's.
MAX_MAP_COUNT = 65530

#: Bytes that an area takes of the monitor's memory, about, and how many of them are not counted.
_AREA_COST, _AREAS_FREE = 256, 1024


class AddressSpace(PagedAreas):
    """``struct mm_struct``: areas, break, page tables."""

    def __init__(
        self,
        memory: GuestMemory,
        frames: FrameAllocator,
        inodes: InodeTable,
        root: int | None = None,
        prepare: Callable[[PageTable], None] = lambda table: None,
    ) -> None:
        super().__init__(memory, frames, inodes, root)
        #: Enters the monitor's own pages into new page tables.
        self._prepare = prepare
        if self.table.is_new:
            prepare(self.table)
        #: Bytes that its areas take of the memory limit.
        self._charged = 0
        #: Threads, of whatever processes, that run in it.
        self.users = 0
        self.brk_start = self.brk = 0
        #: Where the program's arguments and environment begin and end, as it was given them.
        self.arguments = self.environment = (0, 0)
        #: Virtual address of the vDSO (see vdso/__init__.py); 0: not mapped.
        self.vdso = 0
        #: Called in the middle of long work; set by the kernel.
        self.check: Callable[[], None] = lambda: None

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
        self._charge()
        self.unmap(address, size)
        vma = Vma(address, address + size, prot & READ_WRITE_EXEC, flags, ino, offset, name)
        self._hold(vma)
        self._insert(vma)
        if size <= AROUND_MIN * PAGE_SIZE and prot & PROT_WRITE and flags & MAP_ANONYMOUS and not flags & MAP_NORESERVE:
            # So small a mapping is about to be used, whole: giving it frames now saves the fault. (Not one of
            # mremap(2), which asks with MAP_NORESERVE: it brings its frames along.)
            self._map_frames(address, size >> 12, rights_of(prot))
        return address

    def _charge(self) -> None:
        """Count the areas beyond what programs usually have against the memory limit: they are the monitor's memory.

        :raises GuestError: ENOMEM, it is reached.
        """
        charge = max(len(self._vmas) - _AREAS_FREE, 0) * _AREA_COST
        more = charge - self._charged
        if more:
            if more > 0:
                self.check_room(more)
            self._frames.described += more
            self._charged = charge

    def unmap(self, address: int, size: int) -> None:
        """Remove every mapping of the pages of ``[address, address + size)`` (munmap(2), arguments already checked)."""
        end = address + size
        first = self.find(address)
        if first is not None and first.start < address and end < first.end and len(self._vmas) >= MAX_MAP_COUNT:
            raise GuestError(ENOMEM)  # it would split one area in two
        removed = self._carve(address, end)
        if not removed:
            return
        for vma in removed:
            self.check()
            self._release(vma, self.table.unmap(vma.start, vma.end))
            if vma.ino:
                frames = self._inodes.drop(vma.ino, vma.is_shared)
                self._frames.free((frame, 1) for frame in frames)
        if end <= self.mmap_top:
            self._search_from = max(self._search_from, end)

    def protect(self, address: int, size: int, prot: int) -> None:
        """mprotect(2), arguments already checked.

        :raises GuestError: ENOMEM for a hole (what lies before it is changed, as on Linux), EACCES for a shared
            mapping of a file that is not open for writing.
        """
        end = address + size
        prot &= READ_WRITE_EXEC
        reached = address
        error = changes = 0
        for vma in self.areas(address, end):
            if vma.start > reached:
                break
            if vma.prot != prot:
                if prot & PROT_WRITE and vma.is_shared and not vma.flags & MAP_MAYWRITE:
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
        self._alter(start, end, lambda vma: vma._replace(prot=prot))
        self._forget(self.table.protect(start, end, rights_of(prot), self._frames.shared))

    def advise(self, address: int, size: int, flags: int, cleared: int) -> None:
        """Change what is remembered of an area: set ``flags``, clear ``cleared`` (MAP_DONTFORK, MAP_WIPEONFORK,
        MAP_MEMPOLICY).

        :raises GuestError: ENOMEM, part of the range is not mapped; EINVAL, it cannot be of what is not private and
            anonymous.
        """
        found = self.areas(address, address + size)
        if flags & MAP_WIPEONFORK and any(vma.ino or vma.flags & MAP_SHARED for vma in found):
            raise GuestError(EINVAL)
        if len(self._vmas) + 2 * len(found) > MAX_MAP_COUNT:
            raise GuestError(ENOMEM)
        reached = address
        hole = False
        for vma in found:
            hole |= vma.start > reached
            start, reached = max(vma.start, address), min(vma.end, address + size)
            self._alter(start, reached, lambda vma: vma._replace(flags=vma.flags & ~cleared | flags))
        if hole or reached < address + size:
            raise GuestError(ENOMEM)

    def _alter(self, start: int, end: int, change: Callable[[Vma], Vma]) -> None:
        """Change every area of ``[start, end)``, all of it mapped: in one pass, however many areas there are."""
        changed: list[Vma] = []
        for vma in map(change, self._carve(start, end)):
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
            if not vma.is_shared:
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
            self._carve(vma.start, vma.end)
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

    # --------------------------------------------------------------------------------------------- life, fork

    @classmethod
    def like(cls, other: "AddressSpace") -> "AddressSpace":
        """An empty one in the same memory."""
        made = cls(other._memory, other._frames, other._inodes, prepare=other._prepare)
        made.check = other.check
        made.flush_needed = True
        return made

    def fork(self) -> "AddressSpace":
        """A copy for a child process (``dup_mmap()``), which shares all private pages until one of the two writes.

        :raises GuestError: ENOMEM, there is no room for its page tables.
        """
        if self.table.size + (self._charged >> layout.PAGE_SHIFT) > self._frames.available:
            raise GuestError(ENOMEM)
        child = AddressSpace.like(self)
        child.mmap_top, child._search_from = self.mmap_top, self._search_from
        child.brk_start, child.brk = self.brk_start, self.brk
        child.vvar, child.vdso = self.vvar, self.vdso
        child.arguments, child.environment = self.arguments, self.environment
        frames: list[int] = []
        for vma in self._vmas:
            if vma.flags & MAP_DONTFORK:
                continue
            self.check()
            child._vmas.append(vma)
            child._starts.append(vma.start)
            child._hold(vma)
            if vma.is_shared:
                self.table.copy_to(child.table, vma.start, vma.end, writable=True)
            elif not vma.flags & MAP_WIPEONFORK:
                frames += self.table.copy_to(child.table, vma.start, vma.end, writable=False)
        child._charge()
        if frames:
            self._frames.share(frames)
            first, last = min(frames), max(frames)
            self._memory.forget_translations(first << 12, (last + 1 - first) << 12)
        self.flush_needed = True
        return child

    def close(self) -> None:
        """The last thread has left: everything is unmapped, and the page tables are kept for the next address space."""
        runs: list[Run] = []
        for vma in self._carve(0, layout.TASK_SIZE):
            mapped = self.table.unmap(vma.start, vma.end)
            if vma.is_shared:
                self._forget(mapped)
            else:
                runs += mapped
            if vma.ino:
                runs += [(frame, 1) for frame in self._inodes.drop(vma.ino, vma.is_shared)]
        self._frames.free(runs)
        self._charge()
        self.table.retire()

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
            "arguments": self.arguments,
            "environment": self.environment,
        }

    def restore(self, state: "FrozenSpace") -> None:
        """Continue where a saved address space was; page tables are in guest memory already."""
        self._vmas = list(state.vmas)
        self._starts = list(state.starts)
        self.brk_start, self.brk = state.brk_start, state.brk
        self.mmap_top, self._search_from = state.mmap_top, state.search_from
        self.vvar, self.vdso = state.vvar, state.vdso
        self.arguments, self.environment = state.arguments, state.environment


class FrozenSpace:
    """A saved address space, made ready once so that every fork only copies two lists."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.vmas = [Vma(*fields) for fields in state["vmas"]]
        self.starts = [vma.start for vma in self.vmas]
        self.brk_start, self.brk = state["brk_start"], state["brk"]
        self.root = state["root"]
        self.mmap_top, self.search_from = state["mmap_top"], state["search_from"]
        self.vvar, self.vdso = state["vvar"], state["vdso"]
        self.arguments: tuple[int, int] = tuple(state["arguments"])
        self.environment: tuple[int, int] = tuple(state["environment"])
