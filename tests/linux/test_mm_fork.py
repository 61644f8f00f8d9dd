"""fork(2) of an address space: pages are shared until one of the two writes, and nobody sees the other's writes."""

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from pyvmm.linux.abi.mman import MAP_FIXED, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE
from pyvmm.linux.areas import MAP_DONTFORK, MAP_WIPEONFORK
from pyvmm.linux.errors import GuestError
from pyvmm.linux.mm import AddressSpace
from pyvmm.linux.pagetable import PTE_FRAME
from pyvmm.linux.usermem import UserMemory
from tests.linux.space import FIXED, PAGE, Space

_BASE = 0x10_0000
_PAGES = 24
_READ_WRITE = PROT_READ | PROT_WRITE


@pytest.fixture
def space() -> Iterator[Space]:
    made = Space()
    made.mm.map(_BASE, _PAGES * PAGE, _READ_WRITE, FIXED)
    yield made
    made.close()


def child_of(space: Space, mm: AddressSpace | None = None) -> tuple[AddressSpace, UserMemory]:
    child = (mm or space.mm).fork()
    return child, UserMemory(child, space.memory.view, space.memory.words)


def test_a_child_sees_what_was_written_before_and_nothing_after(space: Space) -> None:
    space.user.write(_BASE, b"before")
    _, child = child_of(space)
    space.user.write(_BASE, b"parent")
    assert child.read(_BASE, 6) == b"before"
    child.write(_BASE, b"child!")
    assert (space.user.read(_BASE, 6), child.read(_BASE, 6)) == (b"parent", b"child!")


def test_a_fork_takes_no_frames_but_for_page_tables(space: Space) -> None:
    space.user.write(_BASE, bytes(_PAGES * PAGE))
    before = space.frames.used
    child_of(space)
    assert space.frames.used - before <= 8


def test_a_child_that_ends_gives_back_all_it_had(space: Space) -> None:
    space.user.write(_BASE, b"x" * PAGE * 4)
    before = space.frames.used
    for _ in range(5):
        mm, child = child_of(space)
        child.write(_BASE, b"y" * PAGE * 2)
        mm.close()
    assert space.frames.used - before <= 8  # one set of page tables, which is used again
    assert not space.frames.shared
    assert space.user.read(_BASE, 2 * PAGE) == b"x" * 2 * PAGE


def test_when_the_parent_ends_first_the_child_keeps_its_pages(space: Space) -> None:
    space.user.write(_BASE, b"kept")
    mm, child = child_of(space)
    space.mm.close()
    assert child.read(_BASE, 4) == b"kept"
    child.write(_BASE, b"mine")
    assert child.read(_BASE, 4) == b"mine" and not space.frames.shared
    mm.close()


def test_zeros_are_read_after_discarding_a_shared_page_and_the_other_keeps_it(space: Space) -> None:
    space.user.write(_BASE, b"x" * PAGE)
    mm, child = child_of(space)
    mm.discard(_BASE, PAGE)
    assert child.read(_BASE, PAGE) == bytes(PAGE)
    assert space.user.read(_BASE, PAGE) == b"x" * PAGE


def test_protection_given_back_does_not_make_a_shared_page_writable_for_both(space: Space) -> None:
    space.user.write(_BASE, b"x")
    mm, child = child_of(space)
    mm.protect(_BASE, PAGE, PROT_READ)
    mm.protect(_BASE, PAGE, _READ_WRITE)
    child.write(_BASE, b"y")
    assert space.user.read(_BASE, 1) == b"x"


def test_a_shared_file_is_the_same_file_in_both(space: Space) -> None:
    ino = space.file(b"f" * 2 * PAGE)
    space.mm.map(0x40_0000, 2 * PAGE, _READ_WRITE, MAP_SHARED | MAP_FIXED, ino)
    space.user.write(0x40_0000, b"one")
    mm, child = child_of(space)
    child.write(0x40_0000 + PAGE, b"two")
    space.user.write(0x40_0000, b"ONE")
    assert child.read(0x40_0000, 3) == b"ONE" and space.user.read(0x40_0000 + PAGE, 3) == b"two"
    mm.close()
    space.mm.unmap(0x40_0000, 2 * PAGE)
    assert bytes(space.files[ino].data[:3]) == b"ONE" and bytes(space.files[ino].data[PAGE : PAGE + 3]) == b"two"


def test_what_is_not_for_children_is_missing_or_zero_in_them(space: Space) -> None:
    space.user.write(_BASE, b"x" * 3 * PAGE)
    space.mm.advise(_BASE, PAGE, MAP_DONTFORK, 0)
    space.mm.advise(_BASE + PAGE, PAGE, MAP_WIPEONFORK, 0)
    _, child = child_of(space)
    with pytest.raises(GuestError):
        child.read(_BASE, 1)
    assert child.read(_BASE + PAGE, PAGE) == bytes(PAGE)
    assert child.read(_BASE + 2 * PAGE, PAGE) == b"x" * PAGE
    assert space.user.read(_BASE, 2 * PAGE) == b"x" * 2 * PAGE


class Family(RuleBasedStateMachine):
    """Processes that fork, write, discard, protect and end, against bytes that are copied at once."""

    processes = Bundle("processes")

    def __init__(self) -> None:
        super().__init__()
        self.space = Space()
        self.alive: dict[int, tuple[AddressSpace, UserMemory, bytearray, set[int]]] = {}

    @initialize(target=processes)
    def begin(self) -> int:
        self.space.mm.map(_BASE, _PAGES * PAGE, _READ_WRITE, FIXED)
        self.alive[0] = (self.space.mm, self.space.user, bytearray(_PAGES * PAGE), set())
        return 0

    @rule(target=processes, process=processes)
    def fork(self, process: int) -> object:
        if process not in self.alive or len(self.alive) > 5:
            return multiple()
        mm, _, data, forbidden = self.alive[process]
        child, user = child_of(self.space, mm)
        number = max(self.alive) + 1
        self.alive[number] = (child, user, bytearray(data), set(forbidden))
        return number

    @rule(process=processes, page=st.integers(0, _PAGES - 1), count=st.integers(1, 3), byte=st.integers(1, 255))
    def write(self, process: int, page: int, count: int, byte: int) -> None:
        if process not in self.alive:
            return
        _, user, data, forbidden = self.alive[process]
        end = min(page + count, _PAGES)
        if forbidden & set(range(page, end)):
            return
        piece = bytes([byte]) * ((end - page) * PAGE)
        user.write(_BASE + page * PAGE, piece)
        data[page * PAGE : end * PAGE] = piece

    @rule(process=processes, page=st.integers(0, _PAGES - 1))
    def discard(self, process: int, page: int) -> None:
        if process in self.alive:
            mm, _, data, _ = self.alive[process]
            mm.discard(_BASE + page * PAGE, PAGE)
            data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)

    @rule(process=processes, page=st.integers(0, _PAGES - 1), prot=st.sampled_from([PROT_NONE, PROT_READ, _READ_WRITE]))
    def protect(self, process: int, page: int, prot: int) -> None:
        if process in self.alive:
            mm, _, _, forbidden = self.alive[process]
            mm.protect(_BASE + page * PAGE, PAGE, prot)
            (forbidden.discard if prot == _READ_WRITE else forbidden.add)(page)

    @rule(process=processes)
    def end(self, process: int) -> None:
        if process in self.alive and len(self.alive) > 1:
            self.alive.pop(process)[0].close()

    @invariant()
    def everybody_reads_what_he_wrote(self) -> None:
        for mm, user, data, forbidden in self.alive.values():
            for page in range(_PAGES):
                if page not in forbidden and mm.table.lookup(_BASE + page * PAGE):
                    assert user.read(_BASE + page * PAGE, PAGE) == data[page * PAGE : (page + 1) * PAGE]

    @invariant()
    def frames_are_counted_as_often_as_they_are_mapped(self) -> None:
        users: dict[int, int] = {}
        for mm, *_ in self.alive.values():
            for _, entry in mm.table.resident(_BASE, _BASE + _PAGES * PAGE):
                frame = (entry & PTE_FRAME) >> 12
                users[frame] = users.get(frame, 0) + 1
        assert {frame: count for frame, count in users.items() if count > 1} == self.space.frames.shared
        free = {frame for first, count in self.space.frames._free for frame in range(first, first + count)}
        assert not free & users.keys(), "a frame that is mapped is free as well"

    def teardown(self) -> None:
        self.space.close()


TestFamily = Family.TestCase
TestFamily.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
