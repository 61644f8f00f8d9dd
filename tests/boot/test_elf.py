"""ELF files as kernels: what is taken from them, and that nothing in them is believed."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvmm import BootError
from pyvmm.boot import elf
from tests.boot import images
from tests.boot.images import AT

_MEMORY = 64 << 20


def parse(file: bytes, memory: int = _MEMORY) -> elf.Kernel:
    return elf.parse(memoryview(file), memory)


def refused(file: bytes) -> str:
    with pytest.raises(BootError) as caught:
        parse(file)
    return str(caught.value)


def of_segments(*segments: bytes, size: int = 0x2000, **changes: int) -> bytes:
    header = images.elf_header(**{"phnum": len(segments), **changes})
    return (header + b"".join(segments)).ljust(size, b"\xcc")


def test_a_segment_lies_at_its_physical_address():
    (segment,) = parse(images.elf(b"\xf4" * 8, memory=0x3000)).segments
    assert (segment.address, segment.file_size, segment.memory_size, segment.end) == (AT, 8, 0x3000, AT + 0x3000)


def test_segments_come_out_in_the_order_of_their_addresses():
    file = of_segments(images.segment(0, 16, AT + 0x1000), images.segment(0, 16, AT))
    assert [segment.address for segment in parse(file).segments] == [AT, AT + 0x1000]


def test_segments_that_touch_are_apart():
    file = of_segments(images.segment(0, 16, AT), images.segment(0, 16, AT + 16))
    assert parse(file).end == AT + 32


def test_a_segment_without_memory_is_left_out():
    file = of_segments(images.segment(0, 16, AT), images.segment(0, 0, 0))
    assert len(parse(file).segments) == 1


def test_a_note_of_xen_gives_the_pvh_entry():
    file = images.elf(b"\xf4" * 8, notes=images.note(b"Xen\0", 18, struct.pack("<Q", AT + 4)))
    kernel = parse(file)
    assert (kernel.pvh_entry, kernel.is_linux) == (AT + 4, False)


def test_notes_may_be_aligned_to_eight_bytes():
    notes = images.note(b"GNU\0", 5, bytes(12), align=8) + images.note(b"Xen\0", 18, struct.pack("<I", AT), align=8)
    file = bytearray(images.elf(b"\xf4" * 8, notes=notes))
    struct.pack_into("<Q", file, 64 + 56 + 48, 8)
    assert parse(bytes(file)).pvh_entry == AT


def test_a_note_of_linux_makes_it_linux():
    notes = images.note(b"Linux\0", 0x101, bytes(4)) + images.note(b"Xen\0", 18, struct.pack("<I", AT))
    kernel = parse(images.elf(b"\xf4" * 8, notes=notes))
    assert (kernel.is_linux, kernel.pvh_entry) == (True, AT)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (b"", "not an ELF file"),
        (b"\x7fELF", "not an ELF file"),
        (images.elf_header(ident=b"\x7fELF\1\1\1".ljust(16, b"\0")), "32-bit ELF"),
        (images.elf_header(ident=b"\x7fELF\2\2\1".ljust(16, b"\0")), "another processor"),
        (images.elf_header(machine=183), "another processor"),
        (images.elf_header(type=3), "-static -no-pie"),
        (images.elf_header(type=1), "-static -no-pie"),
        (images.elf_header(), "program headers lie outside"),
        (images.elf_header(phoff=(1 << 64) - 1), "program headers lie outside"),
        (images.elf_header(phentsize=32), "program headers lie outside"),
        (images.elf_header(phnum=0), "lies in none of its parts"),
        (of_segments(images.segment(0x1FF8, 16)), "ends before its part"),
        (of_segments(images.segment((1 << 64) - 8, 16)), "ends before its part"),
        (of_segments(images.segment(0, (1 << 64) - 1)), "ends before its part"),
        (of_segments(images.segment(0, 16, memory=8)), "0x10 bytes for 0x8 of memory"),
        (of_segments(images.segment(0, 16, 0x7000)), "below 0x100000"),
        (of_segments(images.segment(0, 16, _MEMORY - 8)), "does not fit"),
        (of_segments(images.segment(0, 16, memory=(1 << 64) - 1)), "does not fit"),
        (of_segments(images.segment(0, 16), images.segment(0, 16, AT + 15)), "at the same address"),
        (of_segments(images.segment(0, 16), entry=AT + 16), "entry 0x200010 lies in none"),
        (of_segments(images.segment(0, 16), entry=0xFFFF_FFFF_8020_0000), "must be a physical address"),
        (images.elf(b"\xf4", notes=images.note(b"Xen\0", 18, struct.pack("<I", 16))), "PVH entry 0x10 lies in none"),
    ],
)  # fmt: skip
def test_what_is_no_kernel_for_this_machine_is_refused(file, says):
    assert says in refused(file)


def test_a_kernel_that_fits_exactly_is_taken():
    assert parse(of_segments(images.segment(0, 16, _MEMORY - 16), entry=_MEMORY - 1)).end == _MEMORY


_numbers = st.one_of(
    st.integers(0, 0x3000),
    st.integers(AT - 0x1000, AT + 0x3000),
    st.integers(_MEMORY - 0x1000, _MEMORY + 0x1000),
    st.integers(0, (1 << 64) - 1),
)


@given(st.lists(st.tuples(_numbers, _numbers, _numbers, _numbers), max_size=4), _numbers)
def test_whatever_the_headers_say_segments_lie_in_file_and_memory(headers, entry):
    file = of_segments(*(images.segment(o, f, a, m) for o, f, a, m in headers), entry=entry)
    try:
        kernel = parse(file)
    except BootError:
        return
    last = 0x100000
    for segment in kernel.segments:
        assert last <= segment.address and segment.end <= _MEMORY
        assert segment.offset + segment.file_size <= len(file) and segment.file_size <= segment.memory_size
        last = segment.end
    assert any(segment.address <= kernel.entry < segment.end for segment in kernel.segments)


@given(st.binary(max_size=200))
def test_notes_of_any_bytes_are_read_to_an_end(notes):
    file = images.elf(b"\xf4" * 8, notes=notes)
    try:
        assert parse(file).entry == AT
    except BootError as error:
        assert "PVH entry" in str(error)


@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic_are_a_kernel_or_refused(data):
    try:
        parse(b"\x7fELF\2\1\1" + data)
    except BootError as error:
        assert str(error)
