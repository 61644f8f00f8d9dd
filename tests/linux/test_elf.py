"""Reading ELF files: what a program may look like, and that nothing else is believed."""

import struct
import tracemalloc
from errno import EINVAL, ENOEXEC, ENOMEM
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyvmm.linux import elf
from pyvmm.linux.abi.elf import EHDR, PHDR, PT_GNU_STACK, PT_INTERP, PT_LOAD
from pyvmm.linux.errors import GuestError
from pyvmm.linux.layout import PAGE_SIZE, TASK_SIZE, page_down, page_up

_CODE = 5  # PF_R | PF_X
_DATA = 6  # PF_R | PF_W


class File:
    """Bytes as a file, which refuses to be asked for more than any parser should want at once."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_at(self, offset: int, count: int) -> bytes:
        assert 0 <= offset < 1 << 63 and 0 <= count <= 1 << 17
        return self.data[offset : offset + count]


def header(**changes: int | bytes) -> bytes:
    fields: dict[str, int | bytes] = {
        "ident": b"\x7fELF\2\1\1".ljust(16, b"\0"), "type": 2, "machine": 62, "version": 1, "entry": 0x401000,
        "phoff": 64, "shoff": 0, "flags": 0,
        "ehsize": 64, "phentsize": 56, "phnum": 1, "shentsize": 0, "shnum": 0, "shstrndx": 0,
    }  # fmt: skip
    return EHDR.pack(*(fields | changes).values())


def load(
    address: int = 0x400000, memory: int = 0x2000, *, offset: int = 0, file: int = 0x1000, align: int = 0x1000
) -> bytes:
    return PHDR.pack(PT_LOAD, _CODE, offset, address, address, file, memory, align)


def program(*headers: bytes, tail: bytes = b"", **changes: int | bytes) -> bytes:
    return header(**{"phnum": len(headers), **changes}) + b"".join(headers) + tail


def parse(data: bytes) -> elf.Executable:
    return elf.parse(File(data).read_at)


def errno_of(data: bytes) -> int:
    with pytest.raises(GuestError) as caught:
        parse(data)
    return caught.value.errno


def test_a_static_program_gives_its_segments_and_entry() -> None:
    executable = parse(program(load(), load(0x403000, 0x500, offset=0x3000, file=0x10)))
    assert not executable.position_independent
    assert executable.entry == 0x401000
    assert [(s.address, s.memory_size, s.offset, s.file_size) for s in executable.segments] == [
        (0x400000, 0x2000, 0, 0x1000),
        (0x403000, 0x500, 0x3000, 0x10),
    ]
    assert (executable.low, executable.high) == (0x400000, 0x404000)
    assert executable.header_address == 0x400000 + 64


def test_the_hosts_own_libc_loader_is_read_as_it_is() -> None:
    loader = next(Path("/lib64").glob("ld-linux-x86-64.so*"), None)
    if loader is None:
        pytest.skip("this host has no /lib64/ld-linux-x86-64.so")
    executable = parse(loader.read_bytes())
    assert executable.position_independent and executable.interpreter is None
    assert page_down(executable.entry) < executable.high


def test_an_interpreter_is_named_by_the_bytes_before_its_nul() -> None:
    interpreter = PHDR.pack(PT_INTERP, 4, 64 + 2 * 56, 0, 0, 8, 8, 1)
    assert parse(program(load(), interpreter, tail=b"/lib/ld\0")).interpreter == b"/lib/ld"


def test_an_executable_stack_is_asked_for_by_a_flag() -> None:
    assert parse(program(load(), PHDR.pack(PT_GNU_STACK, 7, 0, 0, 0, 0, 0, 16))).executable_stack
    assert not parse(program(load(), PHDR.pack(PT_GNU_STACK, 6, 0, 0, 0, 0, 0, 16))).executable_stack


@pytest.mark.parametrize("length", [0, 1, 4, 16, 63, 64, 65, 119])
def test_a_truncated_file_is_no_program(length: int) -> None:
    assert errno_of(program(load())[:length]) == ENOEXEC


@pytest.mark.parametrize(
    "changes",
    [
        {"ident": b"\x7fELF\1\1\1".ljust(16, b"\0")},
        {"ident": b"\x7fELF\2\2\1".ljust(16, b"\0")},
        {"ident": b"#!/bin/sh\n".ljust(16, b"\0")},
        {"machine": 3},
        {"machine": 183},
        {"type": 1},
        {"type": 4},
        {"phnum": 0},
        {"phnum": 65535},
        {"phnum": 2000},
        {"phentsize": 32},
        {"phentsize": 65535},
        {"phoff": 1 << 63},
        {"phoff": 2**64 - 1},
        {"phoff": 4096},
    ],
    ids=str,
)
def test_a_file_that_is_not_an_x86_64_program_is_refused(changes: dict) -> None:
    assert errno_of(program(load(), **changes)) == ENOEXEC


def test_a_program_without_segments_is_refused() -> None:
    assert errno_of(program(PHDR.pack(PT_GNU_STACK, 6, 0, 0, 0, 0, 0, 16))) == ENOEXEC


@pytest.mark.parametrize(
    ("segment", "errno"),
    [
        (load(memory=1 << 60), ENOMEM),
        (load(memory=2**64 - 1), ENOMEM),
        (load(address=2**64 - 0x1000, memory=0x2000), ENOMEM),
        (load(address=TASK_SIZE, memory=0x1000), ENOMEM),
        (load(address=0xFFFF_8000_0000_0000), ENOMEM),
        (load(memory=0x10, file=0x1000), ENOMEM),
        (load(offset=0x123), EINVAL),
        (load(offset=2**64 - 0x1000), EINVAL),
    ],
    ids=[
        "2^60 bytes",
        "2^64-1 bytes",
        "wraps",
        "monitor's",
        "upper half",
        "file > memory",
        "odd offset",
        "huge offset",
    ],
)
def test_a_segment_that_cannot_be_mapped_is_refused(segment: bytes, errno: int) -> None:
    assert errno_of(program(segment)) == errno


@pytest.mark.parametrize("second", [0x400000, 0x3FF000, 0x400FFF, 0x10000])
def test_segments_that_overlap_or_descend_are_refused(second: int) -> None:
    assert errno_of(program(load(), load(second, offset=second & 0xFFF, file=1))) == EINVAL


@pytest.mark.parametrize("align", [1 << 63, 1 << 47, 3, 0, 2**64 - 1])
def test_an_alignment_that_makes_no_sense_is_not_obeyed(align: int) -> None:
    executable = parse(program(load(align=align), type=3))
    assert PAGE_SIZE <= executable.alignment < TASK_SIZE
    assert executable.alignment & (executable.alignment - 1) == 0


@pytest.mark.parametrize(
    ("size", "tail"),
    [(1, b"\0"), (0, b""), (4097, b"/" * 4097), (8, b"/lib/ld."), (8, b"/lib\0"), (2**64 - 1, b"/lib/ld\0")],
    ids=["empty", "none", "too long", "no NUL", "cut", "2^64-1"],
)
def test_an_odd_interpreter_name_is_refused(size: int, tail: bytes) -> None:
    assert errno_of(program(load(), PHDR.pack(PT_INTERP, 4, 64 + 2 * 56, 0, 0, size, size, 1), tail=tail)) == ENOEXEC


def test_an_interpreter_name_far_beyond_the_file_is_refused() -> None:
    assert errno_of(program(load(), PHDR.pack(PT_INTERP, 4, 2**64 - 8, 0, 0, 8, 8, 1))) == ENOEXEC


def test_reading_the_largest_table_takes_little_memory() -> None:
    data = program(*[load(0x400000 + 0x2000 * i, 0x1000) for i in range(1170)])
    tracemalloc.start()
    try:
        parse(data)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


_interesting = st.sampled_from(
    [0, 1, 0xFFF, 0x1000, 0x400000, TASK_SIZE - 1, TASK_SIZE, 1 << 47, 1 << 60, 1 << 63, 2**64 - 0x1000, 2**64 - 1]
)
_word = _interesting | st.integers(0, 2**64 - 1) | st.integers(0, 1 << 24)
_phdr = st.builds(
    PHDR.pack,
    st.sampled_from([PT_LOAD, PT_LOAD, PT_INTERP, PT_GNU_STACK, 0, 2]),
    st.integers(0, 2**32 - 1),
    *[_word] * 6,
)


def _is_sane(executable: elf.Executable) -> None:
    """What the loader relies on: segments ascend, share no page but perhaps one, and lie in the user half."""
    end = 0
    for segment in executable.segments:
        assert segment.memory_size > 0 and segment.file_size <= segment.memory_size
        assert segment.address + segment.memory_size <= TASK_SIZE
        assert (segment.offset - segment.address) % PAGE_SIZE == 0 and segment.offset <= 1 << 62
        assert page_down(segment.address) >= page_down(max(end - 1, 0))
        end = segment.address + segment.memory_size
    assert executable.high == page_up(end)
    assert 0 <= executable.entry < 1 << 64 and 0 <= executable.header_address < TASK_SIZE


@given(headers=st.lists(_phdr, max_size=6), entry=_word, kind=st.sampled_from([2, 3]), tail=st.binary(max_size=64))
@example(headers=[load(0x400FFF, 1, offset=0xFFF, file=1), load(0x401000, 1)], entry=2**64 - 1, kind=2, tail=b"")
def test_arbitrary_program_headers_give_a_sane_program_or_an_errno(
    headers: list[bytes], entry: int, kind: int, tail: bytes
) -> None:
    try:
        executable = parse(program(*headers, entry=entry, type=kind, tail=tail))
    except GuestError as error:
        assert error.errno in (ENOEXEC, ENOMEM, EINVAL)
    else:
        _is_sane(executable)


@given(position=st.integers(0, 64 + 3 * 56 - 1), value=st.integers(0, 255))
def test_any_byte_changed_gives_a_sane_program_or_an_errno(position: int, value: int) -> None:
    interpreter = PHDR.pack(PT_INTERP, 4, 64 + 3 * 56, 0, 0, 8, 8, 1)
    data = bytearray(program(load(), load(0x403000, 0x500, offset=0x3000, file=0x10), interpreter, tail=b"/lib/ld\0"))
    data[position] = value
    try:
        executable = parse(bytes(data))
    except GuestError as error:
        assert error.errno in (ENOEXEC, ENOMEM, EINVAL)
    else:
        _is_sane(executable)


@given(st.binary(max_size=512))
def test_arbitrary_bytes_are_no_program(data: bytes) -> None:
    try:
        _is_sane(parse(data))
    except GuestError as error:
        assert error.errno in (ENOEXEC, ENOMEM, EINVAL)


def test_the_abi_structures_are_those_of_elf_h() -> None:
    assert (EHDR.size, PHDR.size) == (64, 56)
    assert struct.calcsize("<16sHHIQQQIHHHHHH") == EHDR.size
