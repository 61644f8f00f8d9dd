"""Memory: brk(2), mmap(2) and what belongs to them."""

from errno import EFAULT, EINVAL, ENOMEM, EOVERFLOW
from typing import TYPE_CHECKING

from pyvmm.linux.abi import mman
from pyvmm.linux.areas import MAP_DONTFORK, MAP_MAYWRITE, MAP_WIPEONFORK
from pyvmm.linux.errors import GuestError
from pyvmm.linux.layout import MMAP_MIN_ADDR, PAGE_MASK, PAGE_SIZE, TASK_SIZE, page_up
from pyvmm.linux.table import Fd, Flags, Int, LongFlags, Pointer, Size, ULong, syscall

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: Advice that changes nothing here, and is accepted because Linux accepts it.
_HARMLESS_ADVICE = frozenset(
    {
        mman.MADV_NORMAL,
        mman.MADV_RANDOM,
        mman.MADV_SEQUENTIAL,
        mman.MADV_WILLNEED,
        mman.MADV_MERGEABLE,
        mman.MADV_UNMERGEABLE,
        mman.MADV_HUGEPAGE,
        mman.MADV_NOHUGEPAGE,
        mman.MADV_DONTDUMP,
        mman.MADV_DODUMP,
        mman.MADV_COLD,
        mman.MADV_PAGEOUT,
        mman.MADV_POPULATE_READ,
        mman.MADV_POPULATE_WRITE,
    }
)
#: Advice that is remembered: flags to set and to clear.
_FORK_ADVICE = {
    mman.MADV_DONTFORK: (MAP_DONTFORK, 0),
    mman.MADV_DOFORK: (0, MAP_DONTFORK),
    mman.MADV_WIPEONFORK: (MAP_WIPEONFORK, 0),
    mman.MADV_KEEPONFORK: (0, MAP_WIPEONFORK),
}
_PROT_KNOWN = (
    mman.PROT_READ | mman.PROT_WRITE | mman.PROT_EXEC | 8 | mman.PROT_GROWSDOWN | mman.PROT_GROWSUP
)  # 8: PROT_SEM
_MINCORE_MAX = 1 << 38
_SHOWN_PATH_MAX = 256


def _checked_range(address: int, size: int) -> int:
    """The page-rounded size of a range that mprotect(2) and its like may look at."""
    if address & PAGE_MASK:
        raise GuestError(EINVAL)
    size = page_up(size)
    if address + size > TASK_SIZE:
        raise GuestError(ENOMEM)
    return size


@syscall
def brk(task: "Task", address: Pointer) -> int:
    """brk(2)."""
    return task.mm.set_brk(address)


@syscall
def mmap(task: "Task", address: Pointer, length: Size, prot: Flags, flags: Flags, fd: Fd, offset: ULong) -> int:
    """mmap(2)."""
    if offset & PAGE_MASK:
        raise GuestError(EINVAL)
    file = None if flags & mman.MAP_ANONYMOUS else task.files.get(fd)
    kind = flags & mman.MAP_TYPE
    if kind not in (mman.MAP_SHARED, mman.MAP_PRIVATE, mman.MAP_SHARED_VALIDATE) or not length:
        raise GuestError(EINVAL)
    if flags & mman.MAP_HUGETLB:
        raise GuestError(ENOMEM)
    ino, name, kept_flags, made = 0, b"", flags, None
    if file is not None:
        if offset + length > 1 << 63:
            raise GuestError(EOVERFLOW)
        inode = file.mapping(prot, flags)
        if kind != mman.MAP_PRIVATE and file.writable:
            kept_flags |= MAP_MAYWRITE
        if inode is not None:
            # The name is for /proc/self/maps only, and every area has its own copy.
            ino, name = inode.ino, file.path[-_SHOWN_PATH_MAX:]
    elif kind != mman.MAP_PRIVATE:
        # Children see what is written here, so it is a file without a name, as in Linux (``shmem_zero_setup()``).
        made = task.kernel.vfs.make_shared_memory(length)
        made.hold()
        ino, name, offset = made.ino, b"/dev/zero (deleted)", 0
        kept_flags |= MAP_MAYWRITE
    try:
        address = task.mm.map(address, length, prot, kept_flags, ino, offset, name)
    finally:
        if made is not None:
            made.drop()
    if flags & mman.MAP_POPULATE and prot & (mman.PROT_READ | mman.PROT_WRITE):
        task.mem.readable(address, min(length, 1 << 20))
    return address


@syscall
def munmap(task: "Task", address: Pointer, length: Size) -> int:
    """munmap(2)."""
    if address & PAGE_MASK or not length or length > TASK_SIZE or address > TASK_SIZE - length:
        raise GuestError(EINVAL)
    task.mm.unmap(address, min(page_up(length), TASK_SIZE - address))
    return 0


@syscall
def mprotect(task: "Task", address: Pointer, length: Size, prot: Flags) -> int:
    """mprotect(2)."""
    grows = mman.PROT_GROWSDOWN | mman.PROT_GROWSUP
    if prot & grows == grows:
        raise GuestError(EINVAL)
    length = _checked_range(address, length)
    if length:
        if prot & ~_PROT_KNOWN or prot & grows:
            raise GuestError(EINVAL)
        task.mm.protect(address, length, prot)
    return 0


@syscall
def pkey_mprotect(task: "Task", address: Pointer, length: Size, prot: Flags, key: Int) -> int:
    """pkey_mprotect(2).

    There are no protection keys: only key -1 (none) is accepted.
    """
    if key != -1:
        raise GuestError(EINVAL)
    return mprotect(task, address, length, prot)


@syscall
def pkey_alloc(task: "Task", flags: LongFlags, rights: ULong) -> int:
    """pkey_alloc(2).

    There are no protection keys: as on a processor without them.
    """
    raise GuestError(EINVAL)


@syscall
def mremap(task: "Task", old: Pointer, old_size: Size, new_size: Size, flags: LongFlags, new_address: Pointer) -> int:
    """mremap(2).

    MREMAP_DONTUNMAP, and the duplication of a shared mapping by an old size of 0, give EINVAL.
    """
    if flags & ~(mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED) or old & PAGE_MASK:
        raise GuestError(EINVAL)
    fixed = bool(flags & mman.MREMAP_FIXED)
    if fixed and (not flags & mman.MREMAP_MAYMOVE or new_address & PAGE_MASK):
        raise GuestError(EINVAL)
    if not new_size or not old_size or new_size > TASK_SIZE or old_size > TASK_SIZE:
        raise GuestError(EINVAL)
    old_size, new_size = page_up(old_size), page_up(new_size)
    if old > TASK_SIZE - old_size:
        raise GuestError(EFAULT)
    if fixed:
        if new_address > TASK_SIZE - new_size or new_address < MMAP_MIN_ADDR:
            raise GuestError(EINVAL)
        if new_address < old + old_size and old < new_address + new_size:
            raise GuestError(EINVAL)
    return task.mm.remap(old, old_size, new_size, bool(flags & mman.MREMAP_MAYMOVE), new_address if fixed else None)


@syscall
def madvise(task: "Task", address: Pointer, length: Size, advice: Int) -> int:
    """madvise(2).

    MADV_FREE acts at once, as MADV_DONTNEED does; MADV_REMOVE is refused; all advice on caching is accepted and
    changes nothing.
    """
    if address & PAGE_MASK:
        raise GuestError(EINVAL)
    size = page_up(length)
    if size < length or address + size > 1 << 64:
        raise GuestError(EINVAL)
    if advice not in _HARMLESS_ADVICE | _FORK_ADVICE.keys() | {mman.MADV_DONTNEED, mman.MADV_FREE}:
        raise GuestError(EINVAL)
    if not size:
        return 0
    if address + size > TASK_SIZE:
        raise GuestError(ENOMEM)
    if advice in (mman.MADV_DONTNEED, mman.MADV_FREE):
        task.mm.discard(address, size)
    elif advice in _FORK_ADVICE:
        task.mm.advise(address, size, *_FORK_ADVICE[advice])
    elif not task.mm.find(address):
        raise GuestError(ENOMEM)
    return 0


@syscall
def msync(task: "Task", address: Pointer, length: Size, flags: Flags) -> int:
    """msync(2).

    Shared mappings use the file's own pages, so there is nothing to write back.
    """
    both = mman.MS_ASYNC | mman.MS_SYNC
    if flags & ~(both | mman.MS_INVALIDATE) or flags & both == both or address & PAGE_MASK:
        raise GuestError(EINVAL)
    size = page_up(length)
    if size < length or address + size > TASK_SIZE:
        raise GuestError(ENOMEM)
    reached = address
    for vma in task.mm.areas(address, address + size):
        if vma.start > reached:
            raise GuestError(ENOMEM)
        reached = vma.end
    if reached < address + size:
        raise GuestError(ENOMEM)
    return 0


@syscall
def mincore(task: "Task", address: Pointer, length: Size, vector: Pointer) -> int:
    """mincore(2).

    Ranges of more than 256 GiB are refused with ENOMEM: looking at them would take longer than a call should.
    """
    size = page_up(length)
    if address & PAGE_MASK:
        raise GuestError(EINVAL)
    if address + size > TASK_SIZE or size > _MINCORE_MAX:
        raise GuestError(ENOMEM)
    reached = address
    for vma in task.mm.areas(address, address + size):
        if vma.start > reached:
            raise GuestError(ENOMEM)
        reached = vma.end
    if reached < address + size:
        raise GuestError(ENOMEM)
    # A page of the answer at a time: the range may be larger than any buffer should be.
    span = PAGE_SIZE << 12
    for start in range(address, address + size, span):
        task.kernel.check()
        end = min(start + span, address + size)
        resident = bytearray((end - start) >> 12)
        for page, _ in task.mm.table.resident(start, end):
            resident[(page - start) >> 12] = 1
        task.mem.write(vector + ((start - address) >> 12), resident)
    return 0


@syscall
def mlock(task: "Task", address: Pointer, length: Size) -> int:
    """mlock(2).

    Memory is never swapped out, so locking it changes nothing.
    """
    if length and not task.mm.find(address):
        raise GuestError(ENOMEM)
    return 0


@syscall
def munlock(task: "Task", address: Pointer, length: Size) -> int:
    """munlock(2)."""
    return mlock(task, address, length)


@syscall
def mlockall(task: "Task", flags: Flags) -> int:
    """mlockall(2)."""
    if not flags or flags & ~7:
        raise GuestError(EINVAL)
    return 0


@syscall
def munlockall(task: "Task") -> int:
    """munlockall(2)."""
    return 0


@syscall
def membarrier(task: "Task", command: Int, flags: Flags, cpu: Int) -> int:
    """membarrier(2).

    One processor needs no barriers: every command of the query's answer succeeds.
    """
    supported = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4
    if flags or command < 0:
        raise GuestError(EINVAL)
    if command == 0:
        return supported
    if command & (command - 1) or not command & supported:
        raise GuestError(EINVAL)
    return 0
