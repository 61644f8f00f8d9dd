"""bzImages: every way to pack a kernel, and files that lie."""

import bz2
import gzip
import lzma
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvmm import BootError
from pyvmm.boot import bzimage
from pyvmm.boot.boot_params import CMDLINE_SIZE, SETUP_SECTS
from tests.boot import images

_LIMIT = 64 << 20
# Something that compresses neither very well nor very badly.
_KERNEL = images.elf(b"\xf4" * 64) + b"".join(struct.pack("<QQ", i * i, i) for i in range(100_000))


def unpack(file: bytes, limit: int = _LIMIT) -> bytes:
    return bzimage.unpack(memoryview(file), limit)


def refused(file: bytes, limit: int = _LIMIT) -> str:
    with pytest.raises(BootError) as caught:
        unpack(file, limit)
    return str(caught.value)


@pytest.mark.parametrize("how", images.PACKERS)
def test_a_kernel_packed_in_any_way_is_unpacked(how):
    assert unpack(images.bzimage(images.packed(how, _KERNEL))) == _KERNEL


def test_a_kernel_that_is_not_packed_is_taken_as_it_is():
    assert unpack(images.bzimage(images.elf(b"\xf4"))) == images.elf(b"\xf4")


def test_no_number_of_setup_sectors_means_four():
    file = bytearray(images.bzimage(images.packed("lz4", _KERNEL)))
    file[SETUP_SECTS.offset] = 0
    assert unpack(bytes(file)) == _KERNEL


def test_a_legacy_lz4_stream_may_be_of_several_blocks():
    large = _KERNEL * 12
    assert len(large) > 16 << 20
    assert unpack(images.bzimage(images.packed("lz4", large))) == large


def test_a_legacy_lz4_stream_may_be_of_several_frames():
    packed = images.packed("lz4", _KERNEL[: 1 << 20])[:-4] + images.packed("lz4", _KERNEL[1 << 20 :])[:-4]
    assert unpack(images.bzimage(packed + struct.pack("<I", len(_KERNEL)))) == _KERNEL


@pytest.mark.parametrize("how", images.PACKERS)
def test_a_kernel_that_is_cut_off_is_damaged(how):
    packed = images.packed(how, _KERNEL)
    assert "damaged" in refused(images.bzimage(packed[: len(packed) // 2] + packed[-4:]))


@pytest.mark.parametrize("how", images.PACKERS)
def test_a_kernel_larger_than_it_says_is_damaged_and_not_unpacked_to_the_end(how):
    packed = images.packed(how, bytes(48 << 20))
    file = images.bzimage(packed[:-4] + struct.pack("<I", 1 << 20))
    tracemalloc.start()
    assert "damaged" in refused(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20


@pytest.mark.parametrize("how", images.PACKERS)
def test_a_kernel_larger_than_memory_does_not_fit(how):
    assert "the machine 1 MiB of memory" in refused(images.bzimage(images.packed(how, _KERNEL)), 1 << 20)


def test_a_dictionary_larger_than_the_build_of_linux_uses_is_refused():
    packed = bytearray(lzma.compress(_KERNEL[: 1 << 20], lzma.FORMAT_ALONE, preset=1))
    struct.pack_into("<I", packed, 1, 1 << 30)
    assert "damaged" in refused(images.bzimage(bytes(packed) + struct.pack("<I", 1 << 20)))


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (images.bzimage(b"\x89LZO\0\r\n\x1a\n".ljust(64, b"\0")), "packed with lzo"),
        (images.bzimage(b"?!?!".ljust(64, b"\0")), "unknown way (it begins with 3f 21 3f 21)"),
        (images.bzimage(b""), "outside of the file"),
        (images.bzimage(bytes(64), payload_length=0xFFFF_FFFF), "outside of the file"),
        (images.bzimage(bytes(64), payload_offset=0xFFFF_FFFF), "outside of the file"),
        (images.bzimage(bytes(64), version=0x207), "give its vmlinux"),
        (images.bzimage(gzip.compress(b"no ELF" * 100)), "is no ELF file"),
        (images.bzimage(gzip.compress(b"")), "is no ELF file"),
        (images.bzimage(bz2.compress(bytes(64)) + struct.pack("<I", 65)), "has 64 bytes unpacked and should have 65"),
        (images.bzimage(struct.pack("<IIQI", 0x184C2102, 0, 0, 9)), "a block that lies outside"),
        (images.bzimage(struct.pack("<IIQI", 0x184C2102, 1 << 31, 0, 9)), "a block that lies outside"),
        (images.bzimage(struct.pack("<IIQBI", 0x184C2102, 8, 0, 0, 9)), "damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_unpacked_is_refused(file, says):
    assert says in refused(file)


def test_what_has_no_setup_header_is_no_bzimage():
    assert not bzimage.is_bzimage(memoryview(b""))
    assert not bzimage.is_bzimage(memoryview(bytes(4096)))
    assert not bzimage.is_bzimage(memoryview(images.bzimage(bytes(64), boot_flag=0)))
    assert bzimage.is_bzimage(memoryview(images.bzimage(bytes(64))))


def test_the_setup_header_ends_where_its_jump_leads():
    header = bzimage.setup_header(memoryview(images.bzimage(b"\xff" * 64)))
    assert len(header) == 0x202 + 0x6A
    assert (header[: SETUP_SECTS.offset], CMDLINE_SIZE.read(header)) == (bytes(SETUP_SECTS.offset), 2047)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (images.bzimage(b"", version=0x204), "boot protocol 2.04"),
        (images.bzimage(b"", jump=0x00EB), "cut off"),
        (images.bzimage(b"")[:0x280], "cut off"),
    ],
)  # fmt: skip
def test_a_setup_header_that_is_old_or_short_is_refused(file, says):
    with pytest.raises(BootError, match=says):
        bzimage.setup_header(memoryview(file))


@given(st.sampled_from(sorted(images.PACKERS)), st.data())
def test_a_changed_byte_is_noticed_or_makes_no_more_than_memory(how, data):
    packed = bytearray(images.packed(how, _KERNEL[:5000]))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert len(unpack(images.bzimage(bytes(packed)), 1 << 20)) <= 1 << 20
    except BootError as error:
        assert str(error)
