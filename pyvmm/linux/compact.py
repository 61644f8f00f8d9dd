"""Packing a frozen guest's memory: only what its program can reach, in the order in which forks will want it.

What a fork costs grows with the size of the snapshot, and a page that every fork writes to is best copied together
with its neighbours. So the frames are laid out anew::

    the monitor's pages | page tables | pages that every fork touches | all others

Frames that the program gave back, and page tables of address ranges it has left, stay behind.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pyvmm.linux import layout, stub
from pyvmm.linux.frames import FrameAllocator
from pyvmm.linux.layout import PAGE_SHIFT, PAGE_SIZE
from pyvmm.linux.mm import AddressSpace
from pyvmm.linux.pagetable import PTE_A, PTE_FRAME, PageTable
from pyvmm.memory import GuestMemory

#: Bytes that a group of eight pages covers, and of how many pages on it is made whole.
_GROUP = 8 * PAGE_SIZE
_WORTH_FILLING = 3


@dataclass(frozen=True, slots=True)
class Packed:
    """Packed memory (to be closed by the caller), and what of the saved state has changed by it."""

    memory: GuestMemory
    size: int
    hot_size: int
    root: int
    vvar: int


def pack(mm: AddressSpace, memory: GuestMemory, hot: Collection[int] = (), *, accesses_seen: bool = False) -> Packed:
    """Pack what ``mm`` maps in ``memory``; ``hot`` are the virtual addresses of pages to put first.

    :param accesses_seen: which pages a fork uses is to be seen by :func:`touched`. It is slower then.
    """
    target = GuestMemory(memory.limit, memory.limit)
    size = layout.SYSTEM_FRAMES * PAGE_SIZE
    target.view[:size] = memory.view[:size]
    frames = FrameAllocator(target, layout.SYSTEM_FRAMES)
    table = PageTable(target.words, frames)
    stub.map_system_pages(table)
    pages = [page for vma in mm.maps() for page in mm.table.resident(vma.start, vma.end)]
    for address, _ in pages:
        table.table(address, create=True)
    wanted = frozenset(hot)
    vvar = 0
    hot_size = 0
    for is_hot in (True, False):
        for address, entry in pages:
            if (address in wanted) is not is_hot:
                continue
            frame, _ = frames.allocate()
            old, new = entry & PTE_FRAME, frame << PAGE_SHIFT
            target.view[new : new + PAGE_SIZE] = memory.view[old : old + PAGE_SIZE]
            table.map(address, frame, 1, entry & ~PTE_FRAME)
            if old == mm.vvar:
                vvar = new
        if is_hot:
            hot_size = frames.used * PAGE_SIZE
    if accesses_seen:
        for vma in mm.maps():
            table.forget_accesses(vma.start, vma.end)
    return Packed(target, frames.used * PAGE_SIZE, hot_size, table.root, vvar)


def state_after(state: dict[str, Any], packed: Packed) -> dict[str, Any]:
    """The saved state of a guest (see :func:`pyvmm.linux.boot.freeze`) for its packed memory."""
    mm = {**state["mm"], "root": packed.root, "vvar": packed.vvar}
    return {**state, "mm": mm, "frames": {"next": packed.size >> PAGE_SHIFT, "free": []}}


def touched(mm: AddressSpace, memory: GuestMemory, snapshot: memoryview) -> set[int]:
    """The virtual addresses of all pages of a fork that its program has used, or that differ from ``snapshot``, the
    memory it was forked from, which was packed so that accesses are seen.
    """
    found = set()
    for vma in mm.maps():
        for address, entry in mm.table.resident(vma.start, vma.end):
            start = entry & PTE_FRAME
            end = start + PAGE_SIZE
            if entry & PTE_A or end > len(snapshot) or memory.view[start:end] != snapshot[start:end]:
                found.add(address)
    return found


def widen(mm: AddressSpace, hot: Collection[int]) -> set[int]:
    """``hot``, and the neighbours of pages that lie close together.

    When shadow paging fills in an entry it does the same for its neighbours in an aligned group of eight, up to the
    first whose page the host has no writable copy of (``PTE_PREFETCH_NUM``, ``FNAME(pte_prefetch)`` in
    arch/x86/kvm/mmu). Copying a page costs a quarter of a fault, so it pays to have groups whole.
    """
    wide = set(hot)
    groups = Counter(address // _GROUP for address in hot)
    for group, count in groups.items():
        if count >= _WORTH_FILLING:
            start = group * _GROUP
            wide.update(address for address, _ in mm.table.resident(start, start + _GROUP))
    return wide
