"""Reading an ELF64 executable as ``fs/binfmt_elf.c`` does: what to map where, and nothing believed that was not
checked.

Every number in the file is hostile. What comes out has segments that lie in the user half, ascend, do not overlap,
and ask for no more bytes than the address space has; whether there is memory for them is decided when they are
touched.
"""

from collections.abc import Callable
from dataclasses import dataclass
from errno import EINVAL, ENOEXEC, ENOMEM

from pyvmm.linux.abi.elf import (
    EHDR,
    ELFCLASS64,
    ELFDATA2LSB,
    ELFMAG,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    PF_R,
    PF_W,
    PF_X,
    PHDR,
    PT_GNU_STACK,
    PT_INTERP,
    PT_LOAD,
)
from pyvmm.linux.abi.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from pyvmm.linux.errors import GuestError
from pyvmm.linux.layout import PAGE_MASK, PAGE_SIZE, TASK_SIZE, page_down, page_up

_PATH_MAX = 4096
#: ``load_elf_phdrs``: the program headers must fit in 64 KiB.
_PHDRS_MAX = 65536 // PHDR.size


@dataclass(frozen=True, slots=True)
class Segment:
    """A PT_LOAD header: ``file_size`` bytes of the file at ``offset`` belong at ``address``, zeros follow up to
    ``memory_size``.
    """

    address: int
    memory_size: int
    offset: int
    file_size: int
    prot: int


@dataclass(frozen=True, slots=True)
class Executable:
    """What the loader needs of an ELF file; addresses as in the file, before the load bias."""

    position_independent: bool
    entry: int
    segments: tuple[Segment, ...]
    interpreter: bytes | None
    header_address: int
    header_count: int
    alignment: int
    executable_stack: bool

    @property
    def low(self) -> int:
        """The page of the lowest address."""
        return page_down(self.segments[0].address)

    @property
    def high(self) -> int:
        """The page after the highest address."""
        return page_up(self.segments[-1].address + self.segments[-1].memory_size)


def parse(read_at: Callable[[int, int], bytes]) -> Executable:
    """Parse the file whose bytes ``read_at(offset, count)`` gives.

    :raises GuestError: ENOEXEC for what is no x86-64 ELF program, EINVAL or ENOMEM for one whose segments make no
        sense.
    """
    header = read_at(0, EHDR.size)
    if len(header) < EHDR.size or header[:4] != ELFMAG:
        raise GuestError(ENOEXEC)
    ident, kind, machine, _, entry, phoff, _, _, _, phentsize, phnum, _, _, _ = EHDR.unpack(header)
    if ident[4] != ELFCLASS64 or ident[5] != ELFDATA2LSB or machine != EM_X86_64 or kind not in (ET_EXEC, ET_DYN):
        raise GuestError(ENOEXEC)
    if phentsize != PHDR.size or not 1 <= phnum <= _PHDRS_MAX or phoff > 1 << 62:
        raise GuestError(ENOEXEC)
    table = read_at(phoff, phnum * PHDR.size)
    if len(table) < phnum * PHDR.size:
        raise GuestError(ENOEXEC)

    segments: list[Segment] = []
    interpreter = None
    alignment = PAGE_SIZE
    executable_stack = False
    header_address = 0
    for kind_, flags, offset, address, _, file_size, memory_size, align in PHDR.iter_unpack(table):
        if kind_ == PT_LOAD and memory_size:
            segments.append(_segment(flags, offset, address, file_size, memory_size, segments))
            if align & (align - 1) == 0 and align < TASK_SIZE:
                alignment = max(alignment, align)
            if offset <= phoff < offset + file_size:
                header_address = phoff - offset + address
        elif kind_ == PT_INTERP and interpreter is None:
            if not 2 <= file_size <= _PATH_MAX:
                raise GuestError(ENOEXEC)
            interpreter = read_at(offset & (1 << 62) - 1, file_size)
            if len(interpreter) < file_size or interpreter[-1] != 0:
                raise GuestError(ENOEXEC)
            interpreter = interpreter.split(b"\0", 1)[0]
        elif kind_ == PT_GNU_STACK:
            executable_stack = bool(flags & PF_X)
    if not segments:
        raise GuestError(ENOEXEC)
    return Executable(
        kind == ET_DYN, entry, tuple(segments), interpreter, header_address, phnum, alignment, executable_stack
    )


def _segment(flags: int, offset: int, address: int, file_size: int, memory_size: int, before: list[Segment]) -> Segment:
    if file_size > memory_size or memory_size > TASK_SIZE or address > TASK_SIZE - memory_size:
        raise GuestError(ENOMEM)
    if (offset ^ address) & PAGE_MASK or offset > 1 << 62:
        raise GuestError(EINVAL)
    # A segment may begin in the last page of the one before (it is then mapped again), not earlier.
    if before and page_down(address) < page_down(before[-1].address + before[-1].memory_size - 1):
        raise GuestError(EINVAL)
    prot = (PROT_READ if flags & PF_R else 0) | (PROT_WRITE if flags & PF_W else 0) | (PROT_EXEC if flags & PF_X else 0)
    return Segment(address, memory_size, offset, file_size, prot)
