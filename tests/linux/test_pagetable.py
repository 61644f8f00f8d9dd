"""Page tables against a dictionary."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvmm.linux.layout import TASK_SIZE
from pyvmm.linux.pagetable import PTE_A, PTE_D, PTE_FRAME, PTE_NX, PTE_P, PTE_RESIDENT, PTE_U, PTE_W
from tests.linux.space import PAGE, Space

_READ = PTE_P | PTE_U | PTE_RESIDENT | PTE_NX
_WRITE = _READ | PTE_W
_NONE = PTE_RESIDENT | PTE_NX
_TOP = TASK_SIZE - PAGE


@pytest.fixture
def space() -> Iterator[Space]:
    made = Space()
    yield made
    made.close()


def walk(space: Space, address: int) -> int:
    """The entry that a processor would find, by the book (AMD64 APM volume 2, 5.3)."""
    table = space.mm.table.root
    for shift in (39, 30, 21, 12):
        entry = int.from_bytes(space.memory.view[table + (address >> shift & 511) * 8 :][:8], "little")
        if shift > 12 and not entry & PTE_P:
            return 0
        table = entry & PTE_FRAME
    return entry


@pytest.mark.parametrize("address", [0, PAGE, 0x1F_F000, 0x20_0000, 0x5555_5555_4000, _TOP])
def test_a_mapped_page_is_found_by_the_processors_walk(space: Space, address: int) -> None:
    space.mm.table.map(address, 77, 1, _WRITE)
    assert walk(space, address) == 77 << 12 | _WRITE | PTE_A | PTE_D == space.mm.table.lookup(address)
    assert walk(space, address ^ PAGE) == 0


def test_a_run_that_crosses_tables_maps_consecutive_frames(space: Space) -> None:
    space.mm.table.map(0x3F_E000, 100, 5, _READ)
    assert [walk(space, 0x3F_E000 + i * PAGE) >> 12 & 0xFFFF for i in range(5)] == [100, 101, 102, 103, 104]


def test_unmapping_gives_back_frames_in_runs(space: Space) -> None:
    space.mm.table.map(0x20_0000, 100, 3, _READ)
    space.mm.table.map(0x20_4000, 200, 2, _READ)
    assert space.mm.table.unmap(0, TASK_SIZE) == [(100, 3), (200, 2)]
    assert list(space.mm.table.resident(0, TASK_SIZE)) == []


def test_only_pages_that_lose_a_right_are_reported(space: Space) -> None:
    table = space.mm.table
    table.map(0x20_0000, 100, 1, _READ)
    table.map(0x20_1000, 200, 1, _WRITE)
    assert table.protect(0x20_0000, 0x20_2000, _READ) == [(200, 1)]
    assert table.protect(0x20_0000, 0x20_2000, _WRITE) == []
    assert table.protect(0x20_0000, 0x20_2000, _NONE) == [(100, 1), (200, 1)]
    assert walk(space, 0x20_0000) & (PTE_P | PTE_FRAME) == 100 << 12


def test_walking_the_whole_empty_half_is_quick(space: Space) -> None:
    space.mm.table.map(_TOP, 9, 1, _READ)
    steps = 0
    for _ in space.mm.table._tables(0, TASK_SIZE):
        steps += 1
    assert steps == 1


_PAGES = [base + i * PAGE for base in (0x1F_E000, 0x3FFF_E000, 0x7F_FFFF_E000) for i in range(4)]
_ops = st.lists(
    st.tuples(
        st.sampled_from(["map", "unmap", "protect", "move"]),
        st.sampled_from(_PAGES),
        st.integers(1, 4),
        st.sampled_from([_READ, _WRITE, _NONE]),
        st.sampled_from(_PAGES),
    ),
    max_size=40,
)


@given(_ops)
def test_any_sequence_of_changes_leaves_what_a_dictionary_has(steps: list[tuple[str, int, int, int, int]]) -> None:
    space = Space()
    try:
        model: dict[int, tuple[int, int]] = {}
        frame = 1000
        table = space.mm.table
        for what, address, count, rights, other in steps:
            pages = [address + i * PAGE for i in range(count)]
            if what == "map" and not model.keys() & set(pages):
                table.map(address, frame, count, rights)
                model.update((page, (frame + i, rights)) for i, page in enumerate(pages))
                frame += count
            elif what == "unmap":
                lost = [
                    number for first, n in table.unmap(address, pages[-1] + PAGE) for number in range(first, first + n)
                ]
                assert lost == [model.pop(page)[0] for page in pages if page in model]
            elif what == "protect":
                table.protect(address, pages[-1] + PAGE, rights)
                model.update((page, (model[page][0], rights)) for page in pages if page in model)
            elif what == "move":
                targets = [other + i * PAGE for i in range(count)]
                if not set(targets) & (model.keys() | set(pages)):
                    table.move(address, other, count * PAGE)
                    moved = {
                        target: model.pop(page) for page, target in zip(pages, targets, strict=True) if page in model
                    }
                    model.update(moved)
            assert dict(table.resident(0, TASK_SIZE)) == {
                page: number << 12 | bits | PTE_A | PTE_D for page, (number, bits) in model.items()
            }
            assert all(walk(space, page) == table.lookup(page) for page in _PAGES)
    finally:
        space.close()
