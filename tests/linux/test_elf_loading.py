"""Putting ELF programs into an address space: the stack they find, and what hostile ones get."""

import struct
from collections.abc import Iterator, Sequence
from errno import E2BIG, EINVAL, ELIBBAD, ENOMEM

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvmm.linux import elf, exec, layout
from pyvmm.linux.abi import elf as abi
from pyvmm.linux.abi.mman import PROT_EXEC, PROT_READ, PROT_WRITE
from pyvmm.linux.errors import GuestError, OutOfMemory
from tests.linux.space import Space
from tests.linux.test_elf import header, load, program

_IDENTITY = exec.Identity(1000, 1001, 1002, 1003, 0x1234, 3000, b"0123456789abcdef")
_RW = abi.PF_R | abi.PF_W


def data_segment(address: int, offset: int, file: int, memory: int) -> bytes:
    return abi.PHDR.pack(abi.PT_LOAD, _RW, offset, address, address, file, memory, 0x1000)


@pytest.fixture
def space() -> Iterator[Space]:
    made = Space()
    yield made
    made.check()
    made.close()


def put(
    space: Space,
    file: bytes,
    *,
    interpreter: bytes | None = None,
    argv: Sequence[bytes] = (b"/bin/it",),
    envp: Sequence[bytes] = (),
) -> tuple[int, int]:
    """Load a file's program; (entry, stack pointer)."""
    inode = space.inode(space.file(file))
    loader = space.inode(space.file(interpreter)) if interpreter is not None else None
    image = elf.parse(inode.read_at)
    return exec.load(
        space.mm,
        space.user,
        exec.Program(b"/bin/it", inode, loader, image, argv, envp),
        _IDENTITY,  # type: ignore[arg-type]
    )


def errno_of(call) -> int:
    with pytest.raises(GuestError) as caught:
        call()
    return caught.value.errno


def read_stack(space: Space, pointer: int) -> tuple[list[bytes], list[bytes], dict[int, int]]:
    """What a program's start code reads: arguments, environment, auxiliary vector."""

    def word(index: int) -> int:
        return space.user.read_u64(pointer + 8 * index)

    count = word(0)
    argv = [space.user.read_cstring(word(1 + i), 1 << 20) for i in range(count)]
    assert word(1 + count) == 0
    index, envp = count + 2, []
    while word(index):
        envp.append(space.user.read_cstring(word(index), 1 << 20))
        index += 1
    index, auxv = index + 1, {}
    while word(index):
        auxv[word(index)] = word(index + 1)
        index += 2
    return argv, envp, auxv


def test_a_program_finds_its_arguments_environment_and_vector(space: Space) -> None:
    entry, pointer = put(space, program(load(memory=0x1000)), argv=[b"/bin/it", b"", b"\xff"], envp=[b"A=1", b"B="])
    argv, envp, auxv = read_stack(space, pointer)
    assert entry == auxv[abi.AT_ENTRY] == 0x401000
    assert (argv, envp) == ([b"/bin/it", b"", b"\xff"], [b"A=1", b"B="])
    assert pointer % 16 == 0
    assert [auxv[key] for key in (abi.AT_UID, abi.AT_EUID, abi.AT_GID, abi.AT_EGID)] == [1000, 1001, 1002, 1003]
    assert auxv[abi.AT_PHDR] == 0x400040 and auxv[abi.AT_PHNUM] == 1
    assert space.user.read(auxv[abi.AT_RANDOM], 16) == _IDENTITY.random
    assert space.user.read_cstring(auxv[abi.AT_EXECFN], 100) == b"/bin/it"
    assert space.user.read(auxv[abi.AT_SYSINFO_EHDR], 4) == b"\x7fELF"


def test_data_beyond_the_file_is_zero_and_the_break_follows(space: Space) -> None:
    file = program(data_segment(0x400000, 0, 0x800, 0x3000)).ljust(0x1000, b"J")
    put(space, file)
    assert space.user.read(0x4007FF, 1) == b"J"
    assert not any(space.user.read(0x400800, 0x2800))
    assert space.mm.brk == 0x403000


def test_a_position_independent_program_is_moved_and_its_alignment_kept(space: Space) -> None:
    entry, _ = put(space, program(load(0x1000, 0x1000, align=1 << 21), type=3, entry=0x1010))
    assert (entry - 0x1010) % (1 << 21) == 0 and entry > layout.MMAP_MIN_ADDR


def test_protections_are_those_of_the_segments(space: Space) -> None:
    put(space, program(load(memory=0x1000), data_segment(0x402000, 0, 0x10, 0x10)).ljust(0x1000, b"\0"))
    assert space.mm.find(0x400000).prot == PROT_READ | PROT_EXEC  # type: ignore[union-attr]
    assert space.mm.find(0x402000).prot == PROT_READ | PROT_WRITE  # type: ignore[union-attr]


def test_the_stack_can_be_executed_only_on_request(space: Space) -> None:
    put(space, program(load(memory=0x1000)))
    assert space.mm.find(layout.STACK_TOP - 1).prot == PROT_READ | PROT_WRITE  # type: ignore[union-attr]


@pytest.mark.parametrize("entry", [0, 0xFFFF_8000_0000_0000, 2**64 - 1])
@pytest.mark.parametrize("kind", [2, 3])
def test_an_entry_point_anywhere_is_the_programs_own_problem(space: Space, entry: int, kind: int) -> None:
    start, _ = put(space, program(load(memory=0x1000), entry=entry, type=kind))
    assert 0 <= start < 1 << 64


@pytest.mark.parametrize(
    ("file", "errno"),
    [
        (program(load(0, 0x1000)), ENOMEM),
        (program(load(0x1000, 0x1000)), ENOMEM),
        (program(load(layout.STACK_TOP - 0x1000, 0x1000)), ENOMEM),
        (program(load(memory=0x7000_0000_0000), type=3), ENOMEM),
        (program(load(memory=0x1000, align=1 << 46), type=3), ENOMEM),
        (program(data_segment(0x400000, 0, 0x1000, 1 << 46)), ENOMEM),
        (program(data_segment(0x400000, 0x10_0000, 0x800, 0x1000)), EINVAL),
    ],
    ids=[
        "at 0",
        "below the minimum",
        "on the stack",
        "too large",
        "align 2^46",
        "64 TiB of data",
        "past the file's end",
    ],
)
def test_a_program_that_cannot_be_placed_is_refused(space: Space, file: bytes, errno: int) -> None:
    assert errno_of(lambda: put(space, file)) == errno


def test_an_interpreter_is_entered_first_and_told_where_the_program_is(space: Space) -> None:
    loader = program(load(0, 0x1000), type=3, entry=0x123)
    entry, pointer = put(space, program(load(memory=0x1000)), interpreter=loader)
    _, _, auxv = read_stack(space, pointer)
    assert entry == layout.INTERPRETER_BASE + 0x123
    assert (auxv[abi.AT_BASE], auxv[abi.AT_ENTRY]) == (layout.INTERPRETER_BASE, 0x401000)


def test_an_interpreter_that_wants_an_interpreter_is_refused(space: Space) -> None:
    interp = abi.PHDR.pack(abi.PT_INTERP, 4, 64 + 2 * 56, 0, 0, 8, 8, 1)
    itself = program(load(0, 0x1000), interp, tail=b"/lib/ld\0", type=3)
    assert errno_of(lambda: put(space, itself, interpreter=itself)) == ELIBBAD


def test_an_interpreter_at_a_fixed_address_is_refused(space: Space) -> None:
    assert errno_of(lambda: put(space, program(load(memory=0x1000)), interpreter=program(load()))) == ELIBBAD


@pytest.mark.parametrize(
    "arguments", [[b"x" * (128 << 10)], [b"x" * 100_000] * 30, [b""] * 1_000_000], ids=["one long", "3 MB", "10^6"]
)
def test_too_many_arguments_are_refused_before_anything_is_copied(space: Space, arguments: list[bytes]) -> None:
    assert errno_of(lambda: put(space, program(load(memory=0x1000)), argv=arguments)) == E2BIG


_number = st.sampled_from([0, 1, 0x1000, 0x400000, 0x40_0000_0000, 1 << 45, 1 << 46, (1 << 47) - (1 << 22), 2**64 - 1])
_segment = st.builds(
    lambda flags, page, address, file, memory, align: abi.PHDR.pack(
        abi.PT_LOAD, flags, page << 12, address & ~0xFFF, 0, file, memory, align
    ),
    st.integers(0, 7), st.integers(0, 5), _number | st.integers(0, 1 << 47), st.integers(0, 0x3000) | _number,
    st.integers(0, 0x5000) | _number, _number,
)  # fmt: skip


@given(segments=st.lists(_segment, min_size=1, max_size=5), entry=_number, kind=st.sampled_from([2, 3]))
def test_any_program_is_placed_or_refused_and_memory_stays_in_its_bounds(
    segments: list[bytes], entry: int, kind: int
) -> None:
    space = Space(4 << 20, 1 << 20)
    try:
        put(space, program(*segments, entry=entry, type=kind).ljust(0x2345, b"x"))
    except GuestError as error:
        assert 0 < error.errno < 134
    except OutOfMemory:
        pass
    finally:
        space.check()
        space.close()


def test_helpers_make_the_header_that_elf_h_has() -> None:
    assert struct.unpack_from("<HH", header(), 16) == (2, 62)
