"""Pages of areas: what happens when a program touches one (demand-zero, files, pages shared with a fork).

An area costs nothing until a page of it is touched, and a touch maps a few pages around it, more when touches come in
sequence: an exit costs far more than a page.
"""

from collections.abc import Iterable
from errno import ENOMEM

from pyvmm.linux import layout
from pyvmm.linux.abi.mman import PROT_EXEC, PROT_WRITE
from pyvmm.linux.abi.signal import BUS_ADRERR, SEGV_ACCERR, SEGV_MAPERR, SIGBUS, SIGSEGV
from pyvmm.linux.areas import READ_WRITE_EXEC, AreaList, Backing, InodeTable, Vma, rights_of
from pyvmm.linux.errors import BadAccess, GuestError
from pyvmm.linux.frames import FrameAllocator
from pyvmm.linux.layout import PAGE_MASK, PAGE_SIZE, page_down
from pyvmm.linux.pagetable import PTE_FRAME, PTE_W, PageTable, Run
from pyvmm.memory import GuestMemory

#: Pages mapped around a first touch, at least and (when touches follow each other) at most.
AROUND_MIN, AROUND_MAX = 16, 512


class PagedAreas(AreaList):
    """Areas, and the page tables that show those of their pages that have a frame."""

    def __init__(
        self, memory: GuestMemory, frames: FrameAllocator, inodes: InodeTable, root: int | None = None
    ) -> None:
        super().__init__(inodes)
        self._memory = memory
        self._view = memory.view
        self.frames = self._frames = frames
        self.table = PageTable(memory.words, frames, root)
        self._around_end = 0
        self._around = AROUND_MIN
        #: Physical address of the vvar page (see vdso/__init__.py); 0: not mapped.
        self.vvar = 0
        #: A translation was taken away: the guest's TLB must be flushed before it runs again.
        self.flush_needed = False

    def check_room(self, size: int) -> None:
        """ENOMEM unless ``size`` bytes could be touched now: a request that cannot succeed fails at once, as a
        program expects.
        """
        if size > self._frames.available * PAGE_SIZE:
            raise GuestError(ENOMEM)

    def fault(self, address: int, write: bool, execute: bool = False) -> None:
        """Make the page at ``address`` accessible, as a page fault does.

        :raises BadAccess: the signal that the access deserves.
        :raises OutOfMemory: no frame is left.
        """
        vma = self.find(address) if address < layout.TASK_SIZE else None
        if vma is None:
            raise BadAccess(SIGSEGV, SEGV_MAPERR)
        prot = vma.prot
        if not prot & (PROT_WRITE if write else PROT_EXEC if execute else READ_WRITE_EXEC):
            raise BadAccess(SIGSEGV, SEGV_ACCERR)
        entry = self.table.lookup(address)
        if entry:
            if write and not entry & PTE_W:
                self._unshare(vma, page_down(address), entry)
            return  # else resident with these very rights: the processor's view was old
        if vma.ino:
            self._fault_file(vma, page_down(address))
        else:
            self._fault_anonymous(vma, page_down(address))

    def _unshare(self, vma: Vma, address: int, entry: int) -> None:
        """Give a page that a fork has shared a frame of its own, unless nobody else has it any more."""
        frame = (entry & PTE_FRAME) >> 12
        if self._frames.is_shared(frame):
            first, _ = self._frames.allocate()
            self._view[first << 12 : (first + 1) << 12] = self._view[frame << 12 : (frame + 1) << 12]
            self.table.map(address, first, 1, rights_of(vma.prot))
            self._frames.free(((frame, 1),))
            self.flush_needed = True
        else:
            # Its neighbours are likely to be its own again too: a fault costs more than looking.
            start = max(vma.start, address & ~(AROUND_MIN * PAGE_SIZE - 1))
            end = min(vma.end, (address & ~(AROUND_MIN * PAGE_SIZE - 1)) + AROUND_MIN * PAGE_SIZE)
            self.table.allow_writing(start, end, self._frames.shared)

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
        if vma.is_shared:
            self._fault_shared(vma, inode, address)
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

    def _fault_shared(self, vma: Vma, inode: Backing, address: int) -> None:
        """Map the file's own pages around ``address``; those that nobody has mapped yet get a frame."""
        start, count = self._around_of(vma, address)
        first = (vma.offset + start - vma.start) >> 12
        pages = (inode.size + PAGE_MASK) >> 12
        if (vma.offset + address - vma.start) >> 12 >= pages:
            raise BadAccess(SIGBUS, BUS_ADRERR)
        rights = rights_of(vma.prot)
        for number in range(min(count, pages - first)):
            frame = inode.shared_frame(first + number)
            if frame is None:
                frame, _ = self._frames.allocate()
                inode.share_page(first + number, frame)
            self.table.map(start + number * PAGE_SIZE, frame, 1, rights)
        self._around_end = start + count * PAGE_SIZE

    def _around_of(self, vma: Vma, address: int) -> tuple[int, int]:
        """The pages to map for a touch of ``address``: (first address, count), all without a frame, ``address``
        among them.
        """
        if address == self._around_end:
            self._around = min(self._around * 2, AROUND_MAX)
        else:
            self._around = AROUND_MIN
        # When memory is scarce, what is not touched must not be what ends the guest.
        available, limit = self._frames.available, self._frames.limit
        if available < limit >> 3:
            if available < limit >> 6:
                return address, 1
            self._around = AROUND_MIN
        size = self._around * PAGE_SIZE
        low = max(vma.start, address & ~(AROUND_MIN * PAGE_SIZE - 1))
        high = min(vma.end, address + size if self._around > AROUND_MIN else low + size)
        if self.table.lookup(low) or self.table.empty(low, (address - low) >> 12) < (address - low) >> 12:
            low = address
        return low, max(self.table.empty(low, (high - low) >> 12), 1)

    # ------------------------------------------------------------------------------------------------- taking away

    def _release(self, vma: Vma, runs: list[Run]) -> None:
        """Frames that an area has lost: back to the allocator, or (shared with the file) only out of KVM's sight."""
        if not runs:
            return
        self.flush_needed = True
        if vma.is_shared:
            self._forget(runs)
            return
        if any(first <= self.vvar >> 12 < first + count for first, count in runs):
            # A program may unmap the vvar page; the clock must not be written into a frame that is something else then.
            self.vvar = 0
        self._frames.free(runs)

    def _forget(self, runs: Iterable[Run]) -> None:
        self.flush_needed = True
        for first, count in runs:
            self._memory.forget_translations(first << 12, count << 12)

    def _map_frames(self, address: int, count: int, rights: int) -> None:
        """Give frames to ``count`` pages that have none, as far as memory is plenty."""
        if self._frames.available < self._frames.limit >> 3:
            return
        while count:
            first, got = self._frames.allocate(count)
            self.table.map(address, first, got, rights)
            address += got * PAGE_SIZE
            count -= got
