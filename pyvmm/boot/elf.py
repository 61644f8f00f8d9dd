"""An ELF64 file as a kernel: what lies at which physical address, and how it wants to be entered.

Unlike a program (``pyvmm.linux.elf``) a kernel is put where its physical addresses say (``p_paddr``), not its virtual
ones. Every number in the file is hostile; what comes out lies inside the file and inside the machine's memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from pyvmm.boot.layout import HIGH_MEMORY
from pyvmm.errors import BootError
from pyvmm.linux.abi.elf import (
    EHDR,
    ELFCLASS32,
    ELFCLASS64,
    ELFDATA2LSB,
    ELFMAG,
    EM_X86_64,
    ET_EXEC,
    NHDR,
    PHDR,
    PT_LOAD,
    PT_NOTE,
)

#: ``xen/include/public/elfnote.h``: the physical address of an entry in 32-bit mode, as PVH has it.
XEN_ELFNOTE_PHYS32_ENTRY = 18


@dataclass(frozen=True, slots=True)
class Segment:
    """``file_size`` bytes of the file at ``offset`` belong at the physical ``address``, zeros follow up to
    ``memory_size``.
    """

    address: int
    memory_size: int
    offset: int
    file_size: int

    @property
    def end(self) -> int:
        """The physical address after it."""
        return self.address + self.memory_size


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel's segments, ascending by address and apart from each other.

    ``entry`` is where it is entered in 64-bit mode, ``pvh_entry`` where in 32-bit mode, if it can be. ``is_linux``: it
    has notes of Linux's own, so it knows ``boot_params``.
    """

    entry: int
    pvh_entry: int | None
    is_linux: bool
    segments: tuple[Segment, ...]

    @property
    def end(self) -> int:
        """The physical address after the last segment."""
        return self.segments[-1].end


def parse(file: memoryview, memory_size: int) -> Kernel:
    """Parse an ELF file for a machine with ``memory_size`` bytes of memory.

    :raises BootError: it is no executable for x86-64, is damaged, or does not fit.
    """
    if len(file) < EHDR.size or file[:4] != ELFMAG:
        raise BootError("not an ELF file")
    ident, kind, machine, _, entry, phoff, _, _, _, phentsize, phnum, _, _, _ = EHDR.unpack_from(file)
    if ident[4] == ELFCLASS32:
        raise BootError("the kernel is a 32-bit ELF file; a 64-bit one is needed (x86-64)")
    if ident[4] != ELFCLASS64 or ident[5] != ELFDATA2LSB or machine != EM_X86_64:
        raise BootError(f"the kernel is an ELF file for another processor (e_machine {machine}); x86-64 is needed")
    if kind != ET_EXEC:
        raise BootError(
            f"the ELF file is of type {kind}, not ET_EXEC: shared objects, position-independent programs and object "
            "files cannot be booted; link it statically, with fixed addresses (-static -no-pie)"
        )
    if phentsize != PHDR.size or phoff > len(file) or phnum * PHDR.size > len(file) - phoff:
        raise BootError("the ELF file is damaged: its program headers lie outside of it")
    segments = []
    pvh_entry, is_linux = None, False
    for kind_, _, offset, _, address, file_size, in_memory, align in PHDR.iter_unpack(
        file[phoff : phoff + phnum * PHDR.size]
    ):
        if kind_ not in (PT_LOAD, PT_NOTE):
            continue
        if offset > len(file) or file_size > len(file) - offset:
            raise BootError(f"the ELF file is damaged: it ends before its part at {offset:#x}, {file_size:#x} bytes")
        if kind_ == PT_NOTE:
            for name, type_, descriptor in _notes(file[offset : offset + file_size], 8 if align == 8 else 4):
                is_linux |= name == b"Linux\0"
                if name == b"Xen\0" and type_ == XEN_ELFNOTE_PHYS32_ENTRY and len(descriptor) in (4, 8):
                    pvh_entry = int.from_bytes(descriptor, "little")
        elif in_memory:
            segments.append(_segment(address, in_memory, offset, file_size, memory_size))
    segments.sort(key=lambda segment: segment.address)
    for before, after in pairwise(segments):
        if after.address < before.end:
            raise BootError(f"the ELF file is damaged: two of its parts belong at the same address {after.address:#x}")
    for name_, where in ("entry", entry), ("PVH entry", pvh_entry):
        if where is not None and not any(segment.address <= where < segment.end for segment in segments):
            raise BootError(
                f"the ELF file's {name_} {where:#x} lies in none of its parts; it must be a physical address"
            )
    return Kernel(entry, pvh_entry, is_linux, tuple(segments))


def _segment(address: int, in_memory: int, offset: int, file_size: int, memory_size: int) -> Segment:
    if file_size > in_memory:
        raise BootError(f"the ELF file is damaged: a part has {file_size:#x} bytes for {in_memory:#x} of memory")
    if address < HIGH_MEMORY:
        raise BootError(
            f"the ELF file has a part for the physical address {address:#x}; what lies below {HIGH_MEMORY:#x} is the "
            "machine's, so link it there or above"
        )
    end = address + in_memory
    if end > memory_size:
        raise BootError(
            f"the kernel does not fit: it needs memory up to {end:#x}, the machine has {memory_size:#x} bytes "
            f"({memory_size >> 20} MiB)"
        )
    return Segment(address, in_memory, offset, file_size)


def _notes(data: memoryview, align: int) -> Iterator[tuple[bytes, int, memoryview]]:
    """Name (with its zero), type and descriptor of each note; what is no note ends the list."""
    at = 0
    while len(data) - at >= NHDR.size:
        name_size, size, type_ = NHDR.unpack_from(data, at)
        start = at + NHDR.size
        descriptor = start + name_size + (-name_size & 3 if align == 4 else -(start + name_size) & 7)
        if descriptor + size > len(data):
            return
        yield bytes(data[start : start + name_size]), type_, data[descriptor : descriptor + size]
        at = descriptor + size + (-(descriptor + size) & align - 1)
