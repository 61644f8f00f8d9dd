"""Copying from and to the memory of a guest program.

The monitor walks the guest's page tables itself and checks each page as the processor would (user, writable); a
page that is not there yet is faulted in as the guest's own touch would do. An address that the program may not
touch gives EFAULT. Lengths come from the guest: callers bound them before they ask, and nothing here allocates more
than it then copies.
"""

from errno import EFAULT, ENAMETOOLONG

from pyvmm.linux.errors import BadAccess, GuestError
from pyvmm.linux.layout import PAGE_MASK, PAGE_SIZE, TASK_SIZE
from pyvmm.linux.mm import AddressSpace
from pyvmm.linux.pagetable import PTE_FRAME, PTE_P, PTE_U, PTE_W

_READABLE = PTE_P | PTE_U
_WRITABLE = PTE_P | PTE_U | PTE_W


class UserMemory:
    """A program's view of its memory, for the system calls that serve it."""

    def __init__(self, mm: AddressSpace, view: memoryview, words: memoryview) -> None:
        self._mm = mm
        self._table = mm.table
        self._view = view
        self._words = words

    def _page(self, address: int, needed: int) -> int:
        """The physical address of ``address``, its page made accessible first if need be."""
        base = self._table.table(address)
        if base is not None:
            entry = self._words[base + (address >> 12 & 511)]
            if entry & needed == needed:
                return (entry & PTE_FRAME) | (address & PAGE_MASK)
        try:
            self._mm.fault(address, needed == _WRITABLE)
        except BadAccess:
            raise GuestError(EFAULT) from None
        entry = self._table.lookup(address)
        if entry & needed != needed:
            raise GuestError(EFAULT)
        return (entry & PTE_FRAME) | (address & PAGE_MASK)

    def read(self, address: int, count: int) -> bytes:
        """``count`` bytes at ``address``; EFAULT if any of them cannot be read."""
        offset = address & PAGE_MASK
        if offset + count <= PAGE_SIZE:
            if count <= 0:
                return b""
            if address >= TASK_SIZE:
                raise GuestError(EFAULT)
            start = self._page(address, _READABLE)
            return bytes(self._view[start : start + count])
        if address + count > TASK_SIZE:
            raise GuestError(EFAULT)
        parts = []
        for start, size in self._pieces(address, count, _READABLE):
            parts.append(self._view[start : start + size])
        return b"".join(parts)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Copy ``data`` to ``address``; EFAULT if any byte cannot be written (those before it may have been)."""
        count = len(data)
        if not count:
            return
        if address + count > TASK_SIZE:
            raise GuestError(EFAULT)
        if (address & PAGE_MASK) + count <= PAGE_SIZE:
            start = self._page(address, _WRITABLE)
            self._view[start : start + count] = data
            return
        done = 0
        source = memoryview(data)
        for start, size in self._pieces(address, count, _WRITABLE):
            self._view[start : start + size] = source[done : done + size]
            done += size

    def _pieces(self, address: int, count: int, needed: int) -> list[tuple[int, int]]:
        """Physically consecutive (address, size) pieces of a virtual range."""
        pieces: list[tuple[int, int]] = []
        end = address + count
        while address < end:
            size = min(end, (address | PAGE_MASK) + 1) - address
            start = self._page(address, needed)
            if pieces and pieces[-1][0] + pieces[-1][1] == start:
                pieces[-1] = (pieces[-1][0], pieces[-1][1] + size)
            else:
                pieces.append((start, size))
            address += size
        return pieces

    def readable(self, address: int, count: int) -> int:
        """How many of ``count`` bytes from ``address`` on can be read."""
        return self._accessible(address, count, _READABLE)

    def writable(self, address: int, count: int) -> int:
        """How many of ``count`` bytes from ``address`` on can be written."""
        return self._accessible(address, count, _WRITABLE)

    def _accessible(self, address: int, count: int, needed: int) -> int:
        end = min(address + count, TASK_SIZE)
        reached = address
        while reached < end:
            try:
                self._page(reached, needed)
            except GuestError:
                break
            reached = (reached | PAGE_MASK) + 1
        return max(min(reached, end) - address, 0)

    def read_cstring(self, address: int, limit: int) -> bytes:
        """The bytes at ``address`` up to a NUL, which must come within ``limit`` bytes (ENAMETOOLONG)."""
        found = bytearray()
        while len(found) < limit:
            if address >= TASK_SIZE:
                raise GuestError(EFAULT)
            start = self._page(address, _READABLE)
            piece = bytes(self._view[start : start + min(PAGE_SIZE - (address & PAGE_MASK), limit - len(found))])
            end = piece.find(0)
            if end >= 0:
                return bytes(found + piece[:end]) if found else piece[:end]
            found += piece
            address += len(piece)
        raise GuestError(ENAMETOOLONG)

    def read_u32(self, address: int) -> int:
        """An unsigned 32-bit integer."""
        return int.from_bytes(self.read(address, 4), "little")

    def read_u64(self, address: int) -> int:
        """An unsigned 64-bit integer."""
        return int.from_bytes(self.read(address, 8), "little")

    def write_u32(self, address: int, value: int) -> None:
        """An unsigned 32-bit integer."""
        self.write(address, value.to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        """An unsigned 64-bit integer."""
        self.write(address, value.to_bytes(8, "little"))
