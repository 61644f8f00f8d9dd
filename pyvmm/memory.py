"""Guest physical memory: one host mapping, the part of it that the VM may use, and the two ways to take a page back.

A guest's physical address is an offset into one contiguous host mapping of ``limit`` bytes::

    0                image_size            in_use                            limit
    ├── MAP_PRIVATE of the snapshot ──┼── anonymous, slots added ──┼── anonymous, no slot yet ──┤

Only ``[0, in_use)`` is covered by KVM memory slots, because the size of the slots, not the pages touched, decides
what a fork costs in time and in kernel memory. :meth:`extend` adds slots when the guest needs them. The host
commits a page when it is first touched, and never more than ``limit``.
"""

import ctypes
import mmap
import os
from collections.abc import Callable
from functools import lru_cache

from pyvmm.errors import HostError

PAGE_SIZE = 4096

_MAP_FIXED = 0x10
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_munmap = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_madvise = _libc.madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_mprotect = _libc.mprotect
_mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE: the limit is ours to keep, not the host's
_MADV_POPULATE_WRITE = 23

_HUGE = 2 << 20
_HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"

#: Slots after the first grow from this size (bytes), doubling up to ``_LARGEST_SLOT``: few slots, little of them
#: unused.
_FIRST_EXTENSION = 16 << 20
_LARGEST_SLOT = 256 << 20

#: ``attach`` hands slots to KVM through this: (slot, guest_phys_addr, memory_size, userspace_addr).
RegionSetter = Callable[[int, int, int, int], None]


class GuestMemory:
    """The physical memory of one guest.

    :param limit: bytes that the guest may ever have (a multiple of the page size).
    :param in_use: bytes covered by the first slot.
    :param image_fd: a file (a sealed memfd) mapped copy-on-write at address 0, ``image_size`` bytes of it; the
        descriptor is not kept.
    :raises HostError: the host refuses the mapping (``vm.max_map_count``, no memory).
    """

    def __init__(self, limit: int, in_use: int, image_fd: int = -1, image_size: int = 0) -> None:
        if not 0 < in_use <= limit or image_size > in_use:
            raise ValueError(f"guest memory of {limit:#x} bytes, {in_use:#x} in use, image of {image_size:#x}")
        self.limit = limit
        self.image_size = image_size
        self.in_use = in_use
        self._slots = [(0, in_use)]
        self._set_region: RegionSetter | None = None
        self.address = _checked_mmap(None, limit, _ANONYMOUS, -1)
        if image_size:
            try:
                _checked_mmap(self.address, image_size, mmap.MAP_PRIVATE | _MAP_FIXED, image_fd)
            except HostError:
                _munmap(self.address, limit)
                raise
        whole = memoryview(_array_type(limit).from_address(self.address))
        #: The memory as bytes and as little-endian 64-bit words; both become unusable (ValueError) when the memory
        #: is closed.
        self.view = whole.cast("B")
        self.words = self.view.cast("Q")
        whole.release()

    def attach(self, set_region: RegionSetter) -> None:
        """Give the slots to a VM, now and whenever the memory grows."""
        self._set_region = set_region
        for number, (start, size) in enumerate(self._slots):
            set_region(number, start, size, self.address + start)

    def extend(self, needed: int) -> None:
        """Let the guest use at least ``needed`` more bytes; ValueError past the limit."""
        if self.in_use + needed > self.limit:
            raise ValueError(f"guest memory cannot grow past {self.limit:#x} bytes")
        size = min(_FIRST_EXTENSION << (len(self._slots) - 1), _LARGEST_SLOT)
        size = min(max(size, needed), self.limit - self.in_use)
        start = self.in_use
        if self._set_region is not None:
            self._set_region(len(self._slots), start, size, self.address + start)
        self._slots.append((start, size))
        self.in_use += size

    def discard(self, start: int, size: int) -> None:
        """Drop the contents of ``[start, start + size)``: pages of the image show the image again (or are zero, if they
        were copied), all others read as zero.

        The host forgets the pages, so shadow page tables that still map them lose those entries as well.
        """
        _madvise(self.address + start, size, mmap.MADV_DONTNEED)

    def forget_translations(self, start: int, size: int) -> None:
        """Make KVM drop what its shadow page tables hold for ``[start, start + size)``, keeping the contents.

        A guest page-table entry changed from outside is not seen by shadow paging; taking the host's write
        permission away for a moment invalidates every shadow entry for the page (KVM's MMU notifier).
        """
        _mprotect(self.address + start, size, mmap.PROT_READ)
        _mprotect(self.address + start, size, _READ_WRITE)

    def copy_image(self, image_fd: int, size: int) -> None:
        """Have private copies of the first ``size`` bytes of the image made at once. It is only for speed, and must
        come before the guest runs.

        Into huge pages, where the host has them, more is copied in half the time: what is a fault for every page
        otherwise is one for 512.
        """
        whole = min((size + _HUGE - 1) & -_HUGE, self.image_size & -_HUGE)
        if whole < size or self.address % _HUGE or not _has_huge_pages():
            _madvise(self.address, size, _MADV_POPULATE_WRITE)  # kernels before 5.14 do not know how
            return
        _checked_mmap(self.address, whole, _ANONYMOUS | _MAP_FIXED, -1)
        _madvise(self.address, whole, mmap.MADV_HUGEPAGE)
        done = 0
        while done < whole:
            done += os.preadv(image_fd, [self.view[done:whole]], done)

    def close(self) -> None:
        """Unmap everything. Views must not be used any more; closing twice is fine."""
        if self.address:
            self.words.release()
            self.view.release()
            _munmap(self.address, self.limit)
            self.address = 0

    def __repr__(self) -> str:
        state = f"at {self.address:#x}" if self.address else "closed"
        sizes = f"{self.in_use >> 10} KiB of {self.limit >> 10} KiB, image {self.image_size >> 10} KiB"
        return f"<GuestMemory {sizes}, {state}>"


@lru_cache(maxsize=1)
def _has_huge_pages() -> bool:
    """Whether the host gives huge pages to who asks for them."""
    try:
        with open(_HUGE_PAGES) as file:
            return "[never]" not in file.read()
    except OSError:
        return False


@lru_cache(maxsize=16)
def _array_type(size: int) -> type[ctypes.Array[ctypes.c_ubyte]]:
    # Making the type costs more than mapping the memory.
    return ctypes.c_ubyte * size


def _checked_mmap(address: int | None, size: int, flags: int, fd: int) -> int:
    result = _mmap(address, size, _READ_WRITE, flags, fd, 0)
    if result == _MAP_FAILED:
        error = ctypes.get_errno()
        raise HostError(
            f"mmap of {size >> 20} MiB of guest memory failed: {os.strerror(error)}; "
            "see vm.max_map_count, vm.overcommit_memory and free memory"
        )
    return int(result)
