"""Putting a program into an empty address space: what ``execve(2)`` does after it has found the file.

The stack at the first instruction, from its pointer upwards (System V ABI AMD64, 3.4.1): argc, argv, NULL, envp,
NULL, the auxiliary vector, then the strings they point to.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from errno import E2BIG, EINVAL, ELIBBAD, ENOMEM
from typing import TYPE_CHECKING

from pyvmm.linux import elf, layout, vdso
from pyvmm.linux.abi import elf as abi
from pyvmm.linux.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE
from pyvmm.linux.errors import GuestError
from pyvmm.linux.layout import PAGE_MASK, PAGE_SIZE, page_down, page_up
from pyvmm.linux.mm import AddressSpace
from pyvmm.linux.usermem import UserMemory

if TYPE_CHECKING:
    from pyvmm.linux.vfs import Inode

#: ``MAX_ARG_STRLEN`` and a quarter of the stack: what execve(2) allows for arguments and environment.
_MAX_ARG_STRLEN = 32 * PAGE_SIZE
_ARGUMENTS_MAX = layout.STACK_SIZE // 4

#: An entry point may be anything; as on Linux it wraps, and the program dies at its first instruction.
_MASK = (1 << 64) - 1
_ANONYMOUS_FIXED = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


@dataclass(frozen=True, slots=True)
class Program:
    """What is run: the files, found and checked for permission by the caller, and what the program is told."""

    path: bytes
    inode: "Inode"
    interpreter: "Inode | None"
    image: elf.Executable
    argv: Sequence[bytes]
    envp: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Identity:
    """What the auxiliary vector says about the user and the machine."""

    uid: int
    euid: int
    gid: int
    egid: int
    hwcap: int
    minsigstksz: int
    random: bytes


def load(mm: AddressSpace, memory: UserMemory, program: Program, identity: Identity) -> tuple[int, int]:
    """Map ``program`` into the empty ``mm`` and build its stack; (entry point, stack pointer).

    :raises GuestError: E2BIG, ENOEXEC, ENOMEM, EINVAL, ELIBBAD as execve(2) has them.
    """
    image = program.image
    bias = 0
    if image.position_independent:
        bias = (layout.EXEC_BASE + image.alignment - 1) & ~(image.alignment - 1)
    _map_image(mm, memory, program.inode, image, bias, program.path)
    mm.brk_start = mm.brk = page_up(image.high + bias)
    entry = (image.entry + bias) & _MASK
    base = 0
    if program.interpreter is not None:
        loader = elf.parse(program.interpreter.read_at)
        if not loader.position_independent or loader.interpreter is not None:
            raise GuestError(ELIBBAD)
        base = layout.INTERPRETER_BASE
        _map_image(mm, memory, program.interpreter, loader, base, image.interpreter or b"")
        mm.set_mmap_top(base)
        entry = (loader.entry + base) & _MASK

    stack = layout.STACK_TOP - layout.STACK_SIZE
    prot = PROT_READ | PROT_WRITE | (PROT_EXEC if image.executable_stack else 0)
    mm.map(stack, layout.STACK_SIZE, prot, _ANONYMOUS_FIXED, name=b"[stack]")
    vdso_address = vdso.map_into(mm)
    auxv = [
        (abi.AT_SYSINFO_EHDR, vdso_address),
        (abi.AT_HWCAP, identity.hwcap),
        (abi.AT_PAGESZ, PAGE_SIZE),
        (abi.AT_CLKTCK, 100),
        (abi.AT_PHDR, image.header_address + bias),
        (abi.AT_PHENT, abi.PHDR.size),
        (abi.AT_PHNUM, image.header_count),
        (abi.AT_BASE, base),
        (abi.AT_FLAGS, 0),
        (abi.AT_ENTRY, (image.entry + bias) & _MASK),
        (abi.AT_UID, identity.uid),
        (abi.AT_EUID, identity.euid),
        (abi.AT_GID, identity.gid),
        (abi.AT_EGID, identity.egid),
        (abi.AT_SECURE, 0),
        (abi.AT_HWCAP2, 0),
        (abi.AT_MINSIGSTKSZ, identity.minsigstksz),
    ]
    return entry, _build_stack(mm, memory, program, auxv, identity.random)


def _map_image(
    mm: AddressSpace, memory: UserMemory, inode: "Inode", image: elf.Executable, bias: int, path: bytes
) -> None:
    if image.high + bias > layout.STACK_TOP - layout.STACK_SIZE or image.low + bias < layout.MMAP_MIN_ADDR:
        raise GuestError(ENOMEM)
    for segment in image.segments:
        start = page_down(segment.address + bias)
        file_end = segment.address + bias + segment.file_size
        memory_end = segment.address + bias + segment.memory_size
        if segment.file_size:
            mm.map(
                start,
                file_end - start,
                segment.prot,
                MAP_PRIVATE | MAP_FIXED,
                inode.ino,
                segment.offset - (segment.address & PAGE_MASK),
                path,
            )
        zero_start = page_up(file_end) if segment.file_size else start
        if page_up(memory_end) > zero_start:
            mm.map(zero_start, page_up(memory_end) - zero_start, segment.prot, _ANONYMOUS_FIXED)
        if segment.file_size and memory_end > file_end and file_end & PAGE_MASK and segment.prot & PROT_WRITE:
            try:
                memory.write(file_end, bytes(page_up(file_end) - file_end))
            except GuestError:
                # The page lies past the end of the file: Linux calls such a program broken as well.
                raise GuestError(EINVAL) from None


def _build_stack(
    mm: AddressSpace, memory: UserMemory, program: Program, auxv: list[tuple[int, int]], random: bytes
) -> int:
    strings = bytearray()
    for string in (*program.argv, *program.envp):
        if len(string) >= _MAX_ARG_STRLEN:
            raise GuestError(E2BIG)
    count = len(program.argv) + len(program.envp)
    total = sum(len(string) + 1 for string in (*program.argv, *program.envp)) + 8 * count
    if total > _ARGUMENTS_MAX:
        raise GuestError(E2BIG)
    # The strings end at the top of the stack; eight zero bytes close it, as on Linux.
    size = sum(len(s) + 1 for s in (*program.argv, *program.envp)) + len(program.path) + 1 + len(b"x86_64\0") + 16
    base = (layout.STACK_TOP - 8 - size) & ~15

    def place(string: bytes) -> int:
        address = base + len(strings)
        strings.extend(string)
        return address

    random_address = place(random[:16])
    platform_address = place(b"x86_64\0")
    path_address = place(program.path + b"\0")
    arguments = base + len(strings)
    argv = [place(string + b"\0") for string in program.argv]
    environment = base + len(strings)
    envp = [place(string + b"\0") for string in program.envp]
    mm.arguments, mm.environment = (arguments, environment), (environment, base + len(strings))
    pairs = [
        *auxv,
        (abi.AT_RANDOM, random_address),
        (abi.AT_PLATFORM, platform_address),
        (abi.AT_EXECFN, path_address),
        (abi.AT_NULL, 0),
    ]
    words = [len(argv), *argv, 0, *envp, 0]
    for pair in pairs:
        words.extend(pair)
    pointer = (base - 8 * len(words)) & ~15
    memory.write(base, strings)
    memory.write(pointer, struct.pack(f"<{len(words)}Q", *words))
    return pointer
