"""The address space: mmap(2) and its family against a model, and the faults that follow."""

from collections.abc import Iterator
from errno import EEXIST, EFAULT, EINVAL, ENOMEM, EPERM

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pyvmm.linux import layout
from pyvmm.linux.abi.mman import (
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from pyvmm.linux.abi.signal import SIGBUS, SIGSEGV
from pyvmm.linux.errors import BadAccess, GuestError, OutOfMemory
from pyvmm.linux.layout import TASK_SIZE
from pyvmm.linux.pagetable import PTE_NX, PTE_P, PTE_W
from pyvmm.linux.vdso import map_into
from tests.linux.space import ANONYMOUS, FIXED, PAGE, Space

_RW = PROT_READ | PROT_WRITE
_BASE = 0x10_0000_0000


@pytest.fixture
def space() -> Iterator[Space]:
    made = Space()
    yield made
    made.check()
    made.close()


def errno_of(call, *arguments) -> int:
    with pytest.raises(GuestError) as caught:
        call(*arguments)
    return caught.value.errno


def read_byte(space: Space, address: int) -> int:
    return space.user.read(address, 1)[0]


# ------------------------------------------------------------------------------------------------------- single calls


def test_new_memory_reads_as_zero_and_keeps_what_is_written(space: Space) -> None:
    address = space.mm.map(0, 3 * PAGE, _RW, ANONYMOUS)
    assert space.user.read(address, 3 * PAGE) == bytes(3 * PAGE)
    space.user.write(address + PAGE - 2, b"abcd")
    assert space.user.read(address + PAGE - 3, 6) == b"\0abcd\0"


def test_a_mapping_costs_no_frame_until_it_is_touched(space: Space) -> None:
    before = space.frames.used
    space.mm.map(0, 1 << 40, _RW, ANONYMOUS | MAP_NORESERVE)
    assert space.frames.used == before


@pytest.mark.parametrize(
    ("address", "size", "flags", "errno"),
    [
        (_BASE, 0, FIXED, EINVAL),
        (_BASE + 1, PAGE, FIXED, EINVAL),
        (0, PAGE, FIXED, EPERM),
        (layout.MMAP_MIN_ADDR - PAGE, PAGE, FIXED, EPERM),
        (TASK_SIZE, PAGE, FIXED, ENOMEM),
        (TASK_SIZE - PAGE, 2 * PAGE, FIXED, ENOMEM),
        (2**64 - PAGE, PAGE, FIXED, ENOMEM),
        (2**64 - PAGE, 2 * PAGE, FIXED, ENOMEM),
        (0, 2**64 - 1, ANONYMOUS, ENOMEM),
        (0, TASK_SIZE, ANONYMOUS | MAP_NORESERVE, ENOMEM),
        (0, 1 << 46, ANONYMOUS, ENOMEM),
        (_BASE, PAGE, ANONYMOUS | MAP_FIXED_NOREPLACE, EEXIST),
    ],
    ids=[
        "empty", "odd address", "null page", "below the minimum", "monitor's pages", "into the monitor's pages",
        "last page", "wraps", "2^64-1", "all", "more than there is memory", "taken",
    ],
)  # fmt: skip
def test_a_mapping_that_cannot_be_is_refused(space: Space, address: int, size: int, flags: int, errno: int) -> None:
    space.mm.map(_BASE, PAGE, _RW, FIXED)
    assert errno_of(space.mm.map, address, size, _RW, flags) == errno


def test_a_hint_is_taken_when_it_is_free_and_not_when_it_is_not(space: Space) -> None:
    assert space.mm.map(_BASE + 5, PAGE, _RW, ANONYMOUS) == _BASE
    assert space.mm.map(_BASE, PAGE, _RW, ANONYMOUS) != _BASE


def test_the_address_space_can_be_full(space: Space) -> None:
    space.mm.map(layout.MMAP_MIN_ADDR, TASK_SIZE - layout.MMAP_MIN_ADDR, PROT_NONE, FIXED)
    assert errno_of(space.mm.map, 0, PAGE, PROT_NONE, ANONYMOUS) == ENOMEM


def test_a_freed_range_is_found_again(space: Space) -> None:
    first = space.mm.map(0, 4 * PAGE, _RW, ANONYMOUS)
    space.mm.map(0, PAGE, PROT_READ, ANONYMOUS)
    space.mm.unmap(first, 4 * PAGE)
    assert space.mm.map(0, 4 * PAGE, _RW, ANONYMOUS) == first


def test_protecting_a_hole_changes_what_lies_before_it(space: Space) -> None:
    space.mm.map(_BASE, PAGE, _RW, FIXED)
    assert errno_of(space.mm.protect, _BASE, 2 * PAGE, PROT_READ) == ENOMEM
    assert [area.prot for area in space.mm.maps()] == [PROT_READ]


def test_a_page_that_loses_a_right_wants_a_flush(space: Space) -> None:
    space.mm.map(_BASE, PAGE, _RW, FIXED)
    space.user.write(_BASE, b"x")
    space.mm.flush_needed = False
    space.mm.protect(_BASE, PAGE, PROT_READ)
    assert space.mm.flush_needed
    assert not space.mm.table.lookup(_BASE) & PTE_W


def test_none_keeps_contents_out_of_reach(space: Space) -> None:
    space.mm.map(_BASE, PAGE, _RW, FIXED)
    space.user.write(_BASE, b"kept")
    space.mm.protect(_BASE, PAGE, PROT_NONE)
    assert not space.mm.table.lookup(_BASE) & PTE_P
    assert errno_of(space.user.read, _BASE, 4) == EFAULT
    space.mm.protect(_BASE, PAGE, PROT_READ)
    assert space.user.read(_BASE, 4) == b"kept"


def test_only_executable_memory_may_be_executed(space: Space) -> None:
    space.mm.map(_BASE, PAGE, _RW, FIXED)
    with pytest.raises(BadAccess) as caught:
        space.mm.fault(_BASE, write=False, execute=True)
    assert caught.value.signo == SIGSEGV
    space.mm.map(_BASE, PAGE, PROT_EXEC, FIXED)
    space.mm.fault(_BASE, write=False, execute=True)
    assert not space.mm.table.lookup(_BASE) & PTE_NX


@pytest.mark.parametrize("address", [0, PAGE, TASK_SIZE, TASK_SIZE + 3 * PAGE, 1 << 47, 2**64 - 1])
def test_touching_what_is_not_mapped_is_a_segmentation_fault(space: Space, address: int) -> None:
    with pytest.raises(BadAccess) as caught:
        space.mm.fault(address, write=False)
    assert caught.value.signo == SIGSEGV


def test_the_break_grows_shrinks_and_never_runs_into_a_mapping(space: Space) -> None:
    mm = space.mm
    mm.brk_start = mm.brk = _BASE
    assert mm.set_brk(0) == _BASE
    assert mm.set_brk(_BASE + 3 * PAGE + 1) == _BASE + 3 * PAGE + 1
    space.user.write(_BASE + 3 * PAGE, b"heap")
    assert mm.set_brk(_BASE + PAGE) == _BASE + PAGE
    assert mm.set_brk(_BASE + 4 * PAGE) == _BASE + 4 * PAGE
    assert space.user.read(_BASE + 3 * PAGE, 4) == bytes(4)
    mm.map(_BASE + 6 * PAGE, PAGE, _RW, FIXED)
    assert mm.set_brk(_BASE + 7 * PAGE) == _BASE + 4 * PAGE
    for absurd in (1 << 40, TASK_SIZE + PAGE, 2**64 - 1):
        assert mm.set_brk(absurd) == _BASE + 4 * PAGE


def test_memory_ends_with_an_exception_of_its_own_and_not_later(space: Space) -> None:
    address = space.mm.map(0, 64 << 20, _RW, ANONYMOUS | MAP_NORESERVE)
    touched = 0
    with pytest.raises(OutOfMemory):
        for page in range(address, address + (64 << 20), PAGE):
            space.user.write(page, b"x")
            touched += 1
    assert touched * PAGE <= space.memory.limit
    assert touched * PAGE > space.memory.limit * 9 // 10


def test_scarce_memory_is_spent_only_on_what_is_touched(space: Space) -> None:
    filler = space.mm.map(0, 64 << 20, _RW, ANONYMOUS | MAP_NORESERVE)
    while space.frames.available > space.frames.limit >> 6:
        space.user.write(filler, b"x")
        filler += PAGE
    before = space.frames.used
    for index in range(8):
        space.user.write(space.mm.map(_BASE + (index << 22), 1 << 20, _RW, FIXED | MAP_NORESERVE), b"x")
    assert space.frames.used - before <= 8 * 2 + 4


# ----------------------------------------------------------------------------------------------------------- files


def test_a_private_mapping_shows_the_file_and_keeps_changes_to_itself(space: Space) -> None:
    ino = space.file(bytes(range(256)) * 32)
    space.mm.map(_BASE, 2 * PAGE, _RW, MAP_PRIVATE | MAP_FIXED, ino, 0)
    assert space.user.read(_BASE + 300, 4) == bytes([44, 45, 46, 47])
    space.user.write(_BASE, b"mine")
    assert bytes(space.files[ino].data[:4]) == b"\0\1\2\3"
    space.mm.discard(_BASE, PAGE)
    assert space.user.read(_BASE, 4) == b"\0\1\2\3"


def test_the_last_page_of_a_file_ends_in_zeros_and_the_next_is_a_bus_error(space: Space) -> None:
    ino = space.file(b"x" * (PAGE + 10))
    space.mm.map(_BASE, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, ino, 0)
    assert space.user.read(_BASE + PAGE, PAGE) == b"x" * 10 + bytes(PAGE - 10)
    with pytest.raises(BadAccess) as caught:
        space.mm.fault(_BASE + 2 * PAGE, write=False)
    assert caught.value.signo == SIGBUS


def test_shared_mappings_of_a_file_see_each_other_and_write_it_back(space: Space) -> None:
    ino = space.file(bytes(3 * PAGE))
    one = space.mm.map(0, 3 * PAGE, _RW, MAP_SHARED, ino, 0)
    other = space.mm.map(0, PAGE, _RW, MAP_SHARED, ino, PAGE)
    space.user.write(one + PAGE, b"shared")
    assert space.user.read(other, 6) == b"shared"
    space.mm.unmap(one, 3 * PAGE)
    space.user.write(other, b"S")
    space.check()
    space.mm.unmap(other, PAGE)
    assert bytes(space.files[ino].data[PAGE : PAGE + 6]) == b"Shared"
    assert space.held[ino] == 0


def test_a_moved_shared_mapping_is_still_shared(space: Space) -> None:
    ino = space.file(bytes(2 * PAGE))
    old = space.mm.map(_BASE, PAGE, _RW, MAP_SHARED | MAP_FIXED, ino, 0)
    space.mm.map(_BASE + PAGE, PAGE, _RW, FIXED)
    space.user.write(old, b"abc")
    new = space.mm.remap(old, PAGE, 2 * PAGE, True, None)
    assert new != old
    assert space.user.read(new, 3) == b"abc"
    space.mm.unmap(new, 2 * PAGE)
    assert bytes(space.files[ino].data[:3]) == b"abc"


def test_the_vdso_forgets_its_page_when_the_program_takes_it_away(space: Space) -> None:
    """Otherwise the clock would be written into a frame that is by then something else, a page table for example."""
    for take_away in (
        lambda at: space.mm.unmap(at, PAGE),
        lambda at: space.mm.discard(at, PAGE),
        lambda at: space.mm.map(at, PAGE, _RW, FIXED),
    ):
        vvar = map_into(space.mm) - PAGE
        take_away(vvar)
        frames = {entry >> 12 & 0xF_FFFF for _, entry in space.mm.table.resident(0, TASK_SIZE)}
        assert space.mm.vvar == 0 or space.mm.vvar >> 12 in frames


# ---------------------------------------------------------------------------------------------------------- a model

_PAGES = 24
_page = st.integers(0, _PAGES - 1)
_count = st.integers(1, 8)
_prot = st.sampled_from([PROT_NONE, PROT_READ, _RW, PROT_READ | PROT_EXEC, _RW | PROT_EXEC])
_byte = st.integers(1, 255)


class AddressSpaceModel(RuleBasedStateMachine):
    """An address space beside a dictionary: page number -> [protection, first byte, file page or None, shared]."""

    def __init__(self) -> None:
        super().__init__()
        self.space = Space()
        self.model: dict[int, list] = {}
        self.shared_bytes: dict[int, int] = {}

    @initialize()
    def make_file(self) -> None:
        data = bytearray(6 * PAGE)
        data[::PAGE] = bytes(range(201, 207))
        self.ino = self.space.file(bytes(data))
        self.shared_bytes = dict(enumerate(range(201, 207)))

    def at(self, page: int) -> int:
        return _BASE + page * PAGE

    def pages(self, page: int, count: int) -> range:
        return range(page, page + count)

    def byte(self, page: int) -> int:
        _, value, file_page, shared = self.model[page]
        return self.shared_bytes[file_page] if shared else value

    @rule(page=_page, count=_count, prot=_prot)
    def map_anonymous(self, page: int, count: int, prot: int) -> None:
        self.space.mm.map(self.at(page), count * PAGE, prot, FIXED)
        self.model.update((number, [prot, 0, None, False]) for number in self.pages(page, count))

    @rule(page=_page, first=st.integers(0, 5), count=_count, prot=_prot, shared=st.booleans())
    def map_file(self, page: int, first: int, count: int, prot: int, shared: bool) -> None:
        count = min(count, 6 - first)
        flags = (MAP_SHARED | 1 << 40 if shared else MAP_PRIVATE) | MAP_FIXED
        self.space.mm.map(self.at(page), count * PAGE, prot, flags, self.ino, first * PAGE)
        # What a private mapping shows depends on when its page is first touched, so it is not looked at here.
        for offset, number in enumerate(self.pages(page, count)):
            self.model[number] = [prot, None if not shared else 0, first + offset, shared]

    @rule(count=_count, prot=_prot)
    def map_anywhere_and_unmap(self, count: int, prot: int) -> None:
        address = self.space.mm.map(0, count * PAGE, prot, ANONYMOUS)
        assert not _BASE <= address < self.at(2 * _PAGES)
        self.space.mm.unmap(address, count * PAGE)

    @rule(page=_page, count=_count)
    def unmap(self, page: int, count: int) -> None:
        self.space.mm.unmap(self.at(page), count * PAGE)
        for number in self.pages(page, count):
            self.model.pop(number, None)

    @rule(page=_page, count=_count, prot=_prot)
    def protect(self, page: int, count: int, prot: int) -> None:
        reached = [number for number in self.pages(page, count) if number in self.model]
        hole = next((number for number in self.pages(page, count) if number not in self.model), None)
        try:
            self.space.mm.protect(self.at(page), count * PAGE, prot)
            assert hole is None
        except GuestError as error:
            assert error.errno == ENOMEM and hole is not None
        for number in reached:
            if hole is None or number < hole:
                self.model[number][0] = prot

    @rule(page=_page, count=_count)
    def discard(self, page: int, count: int) -> None:
        complete = all(number in self.model for number in self.pages(page, count))
        try:
            self.space.mm.discard(self.at(page), count * PAGE)
            assert complete
        except GuestError as error:
            assert error.errno == ENOMEM and not complete
        for number in self.pages(page, count):
            if number in self.model and not self.model[number][3]:
                self.model[number][1] = 0 if self.model[number][2] is None else None

    @rule(page=_page, count=_count, goal=st.integers(30, 40), new_count=_count)
    def remap_elsewhere(self, page: int, count: int, goal: int, new_count: int) -> None:
        area = self.space.mm.find(self.at(page))
        whole = area is not None and self.at(page + count) <= area.end
        try:
            self.space.mm.remap(self.at(page), count * PAGE, new_count * PAGE, True, self.at(goal))
            assert whole
        except GuestError as error:
            assert error.errno == EFAULT and not whole
            return
        moved = [self.model.pop(number) for number in self.pages(page, count)]
        for number in self.pages(goal, new_count):
            self.model.pop(number, None)
        for offset, number in enumerate(self.pages(goal, new_count)):
            if offset < count:
                self.model[number] = moved[offset]
            else:
                prot, _, file_page, shared = moved[0]
                self.model[number] = [prot, 0, None, False]
                if file_page is not None:
                    self.model[number] = [prot, None, file_page + offset, shared]
        for number, entry in list(self.model.items()):
            if entry[2] is not None and entry[2] >= 6:
                # Beyond the file: not what this model is about.
                self.space.mm.unmap(self.at(number), PAGE)
                del self.model[number]

    @rule(page=_page | st.integers(30, 45), value=_byte)
    def write(self, page: int, value: int) -> None:
        entry = self.model.get(page)
        try:
            self.space.user.write(self.at(page), bytes([value]))
            assert entry is not None and entry[0] & PROT_WRITE
        except GuestError as error:
            assert error.errno == EFAULT and (entry is None or not entry[0] & PROT_WRITE)
            return
        if entry[3]:
            self.shared_bytes[entry[2]] = value
        else:
            entry[1] = value

    @rule(page=_page | st.integers(30, 45))
    def read(self, page: int) -> None:
        entry = self.model.get(page)
        try:
            value = read_byte(self.space, self.at(page))
            assert entry is not None and entry[0]
        except GuestError as error:
            assert error.errno == EFAULT and (entry is None or not entry[0])
            return
        if entry[1] is not None or entry[3]:
            assert value == self.byte(page)

    @precondition(lambda self: self.model)
    @rule()
    def save_and_restore_areas(self) -> None:
        from pyvmm.linux.mm import FrozenSpace

        frozen = FrozenSpace(self.space.mm.save())
        before = list(self.space.mm.maps())
        self.space.mm.restore(frozen)
        assert list(self.space.mm.maps()) == before

    @invariant()
    def areas_are_what_the_model_has(self) -> None:
        self.space.check()
        seen = {
            (address - _BASE) // PAGE: area.prot
            for area in self.space.mm.maps()
            for address in range(area.start, area.end, PAGE)
        }
        assert seen == {number: entry[0] for number, entry in self.model.items()}
        for area in self.space.mm.maps():
            for _, entry in self.space.mm.table.resident(area.start, area.end):
                assert bool(entry & PTE_P) == bool(area.prot)
                assert bool(entry & PTE_W) == bool(area.prot & PROT_WRITE)
                assert bool(entry & PTE_NX) != bool(area.prot & PROT_EXEC)

    def teardown(self) -> None:
        self.space.close()


TestAddressSpaceModel = AddressSpaceModel.TestCase
TestAddressSpaceModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
