"""Guest memory without a VM: one mapping, copy-on-write from an image, and pages taken back."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pyvmm import HostError
from pyvmm.memory import GuestMemory

_PAGE = 4096


@pytest.fixture
def image() -> Iterator[int]:
    fd = os.memfd_create("image")
    os.write(fd, b"i" * 4 * _PAGE)
    yield fd
    os.close(fd)


def resident(memory: GuestMemory) -> int:
    """KiB of the mapping that are the process's own."""
    own = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            inside = memory.address <= int(head.split("-")[0], 16) < memory.address + memory.limit
        elif inside and head in ("Private_Dirty:",):
            own += int(line.split()[1])
    return own


def test_memory_shows_the_image_and_then_zeros(image: int) -> None:
    memory = GuestMemory(16 * _PAGE, 8 * _PAGE, image, 4 * _PAGE)
    assert bytes(memory.view[: 4 * _PAGE]) == b"i" * 4 * _PAGE
    assert not any(memory.view[4 * _PAGE :])
    memory.close()


def test_what_is_written_is_this_memorys_own(image: int) -> None:
    one, other = (GuestMemory(16 * _PAGE, 8 * _PAGE, image, 4 * _PAGE) for _ in range(2))
    one.view[:3] = b"one"
    assert bytes(other.view[:3]) == b"iii" == os.pread(image, 3, 0)
    one.close()
    other.close()


def test_words_and_bytes_are_the_same_memory() -> None:
    memory = GuestMemory(_PAGE, _PAGE)
    memory.words[1] = 0x1122334455667788
    assert memory.view[8] == 0x88
    memory.close()


def test_discarded_pages_are_zero_or_the_image_again_and_cost_nothing(image: int) -> None:
    memory = GuestMemory(64 * _PAGE, 64 * _PAGE, image, 4 * _PAGE)
    memory.view[:] = b"x" * len(memory.view)
    memory.discard(0, 64 * _PAGE)
    assert memory.view[0] == ord("i") and memory.view[5 * _PAGE] == 0
    assert resident(memory) < 64  # KiB of 256; the kernel may have merged the mapping with a neighbour
    memory.close()


@pytest.mark.parametrize("huge", [True, False])
@pytest.mark.parametrize("size", [_PAGE, (2 << 20) - _PAGE, 2 << 20, (2 << 20) + _PAGE, 5 << 20])
def test_a_copied_image_is_the_image_and_this_memorys_own(
    size: int, huge: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyvmm.memory._has_huge_pages", lambda: huge)
    content = os.urandom(_PAGE) * (5 << 20 >> 12)
    fd = os.memfd_create("image")
    os.write(fd, content)
    with closing(GuestMemory(16 << 20, 8 << 20, fd, 5 << 20)) as memory:
        memory.copy_image(fd, size)
        assert resident(memory) >= size >> 10
        assert memory.view[: 5 << 20] == content
        assert not any(memory.view[5 << 20 : (5 << 20) + _PAGE])
        memory.view[0] ^= 0xFF
        memory.view[(5 << 20) - 1] ^= 0xFF
        assert os.pread(fd, 5 << 20, 0) == content
        memory.discard(0, _PAGE)
        assert memory.view[_PAGE : 4 << 20] == content[_PAGE : 4 << 20]
    os.close(fd)


def test_forgetting_translations_keeps_contents() -> None:
    memory = GuestMemory(2 * _PAGE, 2 * _PAGE)
    memory.view[:4] = b"kept"
    memory.forget_translations(0, 2 * _PAGE)
    memory.view[4:6] = b"on"
    assert bytes(memory.view[:6]) == b"kepton"
    memory.close()


def test_memory_grows_in_slots_up_to_its_limit() -> None:
    memory = GuestMemory(100 << 20, 4 << 20)
    slots: dict[int, tuple[int, int, int]] = {}
    memory.attach(lambda number, *slot: slots.__setitem__(number, slot))  # type: ignore[misc]
    while memory.in_use < memory.limit:
        memory.extend(_PAGE)
    with pytest.raises(ValueError, match="cannot grow"):
        memory.extend(_PAGE)
    end = 0
    for number in range(len(slots)):
        start, size, address = slots[number]
        assert (start, address) == (end, memory.address + end)
        end += size
    assert end == memory.limit and len(slots) <= 5
    memory.close()


@pytest.mark.parametrize(
    ("limit", "in_use", "image_size"), [(0, 0, 0), (_PAGE, 2 * _PAGE, 0), (_PAGE, 0, 0), (4 * _PAGE, _PAGE, 2 * _PAGE)]
)
def test_sizes_that_make_no_sense_are_refused(image: int, limit: int, in_use: int, image_size: int) -> None:
    with pytest.raises(ValueError, match="guest memory"):
        GuestMemory(limit, in_use, image, image_size)


def test_a_mapping_that_the_host_refuses_is_a_clear_error() -> None:
    with pytest.raises(HostError, match=r"guest memory failed.*max_map_count"):
        GuestMemory(1 << 62, _PAGE)


def test_a_bad_image_leaves_no_mapping_behind() -> None:
    before = len(Path("/proc/self/maps").read_text().splitlines())
    with pytest.raises(HostError):
        GuestMemory(16 * _PAGE, 8 * _PAGE, 10_000, 4 * _PAGE)
    assert len(Path("/proc/self/maps").read_text().splitlines()) <= before


def test_closed_memory_cannot_be_touched_and_closes_twice() -> None:
    memory = GuestMemory(_PAGE, _PAGE)
    view = memory.view
    memory.close()
    memory.close()
    with pytest.raises(ValueError, match="released"):
        view[0]
    assert "closed" in repr(memory)
