"""The frame allocator: zeroed frames, never one twice, never more than the limit."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvmm.linux.errors import OutOfMemory
from pyvmm.linux.frames import FrameAllocator
from pyvmm.memory import GuestMemory

_PAGE = 4096


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    made = GuestMemory(64 * _PAGE, 8 * _PAGE)
    yield made
    made.close()


def test_frames_come_zeroed_again_after_they_were_written_and_freed(memory: GuestMemory) -> None:
    frames = FrameAllocator(memory, 0)
    first, count = frames.allocate(4)
    memory.view[first * _PAGE : (first + count) * _PAGE] = b"x" * (count * _PAGE)
    frames.free([(first, count)])
    again, _ = frames.allocate(4)
    assert again == first
    assert not any(memory.view[first * _PAGE : (first + count) * _PAGE])


def test_a_freed_frame_of_the_image_does_not_show_the_image_to_its_next_user() -> None:
    fd = os.memfd_create("image")
    os.write(fd, b"s" * 4 * _PAGE)
    memory = GuestMemory(16 * _PAGE, 8 * _PAGE, fd, 4 * _PAGE)
    os.close(fd)
    try:
        frames = FrameAllocator(memory, 4)
        frames.free([(1, 2)])
        first, count = frames.allocate(2)
        assert (first, count) == (1, 2)
        assert not any(memory.view[first * _PAGE : (first + count) * _PAGE])
    finally:
        memory.close()


def test_the_limit_is_reached_and_not_passed(memory: GuestMemory) -> None:
    frames = FrameAllocator(memory, 6)
    taken = 0
    while frames.available:
        taken += frames.allocate(7)[1]
    assert taken == 64 - 6
    with pytest.raises(OutOfMemory):
        frames.allocate()
    assert memory.in_use == memory.limit


def test_memory_beyond_the_first_slot_is_added_when_it_is_needed(memory: GuestMemory) -> None:
    slots: list[tuple[int, int, int, int]] = []
    memory.attach(lambda *slot: slots.append(slot))
    frames = FrameAllocator(memory, 0)
    frames.allocate(8)
    assert len(slots) == 1
    frames.allocate(1)
    assert slots[1][:2] == (1, 8 * _PAGE)
    assert sum(slot[2] for slot in slots) == memory.in_use


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=60))
def test_no_frame_is_handed_out_twice_and_none_is_lost(steps: list[tuple[bool, int]]) -> None:
    memory = GuestMemory(64 * _PAGE, 8 * _PAGE)
    try:
        frames = FrameAllocator(memory, 3)
        owned: list[tuple[int, int]] = []
        for wants, number in steps:
            if wants and frames.available:
                run = frames.allocate(number)
                assert 1 <= run[1] <= number
                owned.append(run)
            elif owned:
                frames.free([owned.pop(number % len(owned))])
            held = [frame for first, count in owned for frame in range(first, first + count)]
            assert len(held) == len(set(held)) and all(3 <= frame < 64 for frame in held)
            assert frames.used == len(held) + 3
            assert frames.available == 64 - 3 - len(held)
    finally:
        memory.close()


def test_a_saved_allocator_goes_on_where_it_was(memory: GuestMemory) -> None:
    frames = FrameAllocator(memory, 6)
    frames.allocate(10)
    frames.free([(8, 3)])
    restored = FrameAllocator(memory, 0)
    restored.restore(frames.save())
    assert (restored.used, restored.available) == (frames.used, frames.available)
    assert restored.allocate(3) == (8, 3)
    assert restored.allocate(1) == (16, 1)
