"""The I/O APIC turns lines into messages as the 82093AA's data sheet, Intel's manual and Linux's driver want it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvmm.devices.ioapic import (
    ACTIVE_LOW,
    DELIVERY_STATUS,
    DESTINATION_SHIFT,
    EOI,
    IOAPICARB,
    IOAPICID,
    IOAPICVER,
    IOREDTBL,
    IOREGSEL,
    IOWIN,
    LENGTH,
    LEVEL,
    LOGICAL,
    MASKED,
    PINS,
    REMOTE_IRR,
    IoApic,
)

PIN, VECTOR = 4, 0x31


class Fabric:
    """An I/O APIC, the messages that it has sent, and how often its table changed."""

    def __init__(self, state: dict | None = None) -> None:
        self.sent: list[tuple[int, int]] = []
        self.changes = 0
        self.ioapic = IoApic(lambda address, data: self.sent.append((address, data)), self._changed, state)

    def _changed(self) -> None:
        self.changes += 1

    def read(self, register: int) -> int:
        self.ioapic.write(IOREGSEL, 4, register)
        return self.ioapic.read(IOWIN, 4)

    def write(self, register: int, value: int) -> None:
        self.ioapic.write(IOREGSEL, 4, register)
        self.ioapic.write(IOWIN, 4, value)

    def entry(self, pin: int = PIN) -> int:
        return self.read(IOREDTBL + 2 * pin + 1) << 32 | self.read(IOREDTBL + 2 * pin)

    def redirect(self, entry: int, pin: int = PIN) -> None:
        self.write(IOREDTBL + 2 * pin + 1, entry >> 32)
        self.write(IOREDTBL + 2 * pin, entry & 0xFFFF_FFFF)

    def line(self, level: bool, pin: int = PIN) -> None:
        self.ioapic.line(pin)(level)


@pytest.fixture
def fabric() -> Fabric:
    return Fabric()


# Registers


def test_it_says_its_version_and_how_many_lines_it_has(fabric: Fabric) -> None:
    assert fabric.read(IOAPICVER) == 23 << 16 | 0x20


def test_the_version_cannot_be_written(fabric: Fabric) -> None:
    fabric.write(IOAPICVER, 0)
    assert fabric.read(IOAPICVER) == 23 << 16 | 0x20


def test_its_id_has_four_bits_and_is_its_arbitration_id_too(fabric: Fabric) -> None:
    fabric.write(IOAPICID, 0xFFFF_FFFF)
    assert fabric.read(IOAPICID) == fabric.read(IOAPICARB) == 0x0F00_0000


def test_every_line_is_masked_at_first(fabric: Fabric) -> None:
    assert [fabric.entry(pin) for pin in range(PINS)] == [MASKED] * PINS


def test_an_entry_keeps_what_can_be_written_and_nothing_else(fabric: Fabric) -> None:
    fabric.redirect((1 << 64) - 1)
    assert fabric.entry() == 0xFF00_0000_0001_AFFF


def test_registers_that_are_not_there_read_all_ones_and_take_nothing(fabric: Fabric) -> None:
    before = fabric.ioapic.save()
    for register in (3, 0xF, IOREDTBL + 2 * PINS, 0xFF):
        fabric.write(register, 0)
        assert fabric.read(register) == 0xFFFF_FFFF
    assert fabric.ioapic.save() | {"ioregsel": 0} == before


def test_there_is_no_line_24(fabric: Fabric) -> None:
    with pytest.raises(IndexError, match="0 to 23"):
        fabric.ioapic.line(PINS)


# Edges


def test_an_edge_sends_one_message(fabric: Fabric) -> None:
    fabric.redirect(VECTOR)
    fabric.line(True)
    fabric.line(True)
    assert fabric.sent == [(0xFEE0_0000, VECTOR)]


def test_each_edge_sends_a_message_and_needs_no_end(fabric: Fabric) -> None:
    fabric.redirect(VECTOR)
    for level in (True, False, True, False):
        fabric.line(level)
    assert len(fabric.sent) == 2
    assert not fabric.entry() & (REMOTE_IRR | DELIVERY_STATUS)


def test_an_edge_on_a_masked_line_is_lost(fabric: Fabric) -> None:
    fabric.redirect(VECTOR | MASKED)
    fabric.line(True)
    fabric.redirect(VECTOR)
    assert fabric.sent == []
    fabric.line(False)
    fabric.line(True)
    assert len(fabric.sent) == 1


# Levels


def test_a_level_sends_one_message_until_it_is_ended(fabric: Fabric) -> None:
    fabric.redirect(VECTOR | LEVEL)
    fabric.line(True)
    fabric.line(False)
    fabric.line(True)
    assert fabric.sent == [(0xFEE0_0000, 0xC000 | VECTOR)]
    assert fabric.entry() & REMOTE_IRR


def test_a_level_that_still_stands_is_sent_again_when_it_is_ended(fabric: Fabric) -> None:
    fabric.redirect(VECTOR | LEVEL)
    fabric.line(True)
    fabric.ioapic.end_of_interrupt(VECTOR)
    assert len(fabric.sent) == 2
    fabric.line(False)
    fabric.ioapic.end_of_interrupt(VECTOR)
    assert len(fabric.sent) == 2
    assert not fabric.entry() & REMOTE_IRR


def test_the_end_of_another_vector_ends_nothing(fabric: Fabric) -> None:
    fabric.redirect(VECTOR | LEVEL)
    fabric.line(True)
    fabric.ioapic.end_of_interrupt(VECTOR + 1)
    assert fabric.entry() & REMOTE_IRR


def test_the_eoi_register_ends_an_interrupt(fabric: Fabric) -> None:
    fabric.redirect(VECTOR | LEVEL)
    fabric.line(True)
    fabric.line(False)
    fabric.ioapic.write(EOI, 4, VECTOR)
    assert not fabric.entry() & REMOTE_IRR


def test_the_end_reaches_all_lines_that_share_the_vector(fabric: Fabric) -> None:
    for pin in (5, 6):
        fabric.redirect(VECTOR | LEVEL, pin)
        fabric.line(True, pin)
    fabric.ioapic.end_of_interrupt(VECTOR)
    assert len(fabric.sent) == 4


def test_making_a_line_edge_triggered_ends_its_interrupt(fabric: Fabric) -> None:
    fabric.redirect(VECTOR | LEVEL)
    fabric.line(True)
    fabric.redirect(VECTOR | MASKED)
    fabric.redirect(VECTOR | LEVEL | MASKED)
    assert not fabric.entry() & REMOTE_IRR


def test_a_line_masked_before_the_end_stays_quiet_after_it_until_it_is_unmasked(fabric: Fabric) -> None:
    fabric.redirect(VECTOR | LEVEL)
    fabric.line(True)
    fabric.redirect(VECTOR | LEVEL | MASKED)
    fabric.ioapic.end_of_interrupt(VECTOR)
    assert len(fabric.sent) == 1
    fabric.redirect(VECTOR | LEVEL)
    assert len(fabric.sent) == 2


def test_a_level_that_went_while_masked_is_not_sent(fabric: Fabric) -> None:
    fabric.redirect(VECTOR | LEVEL | MASKED)
    fabric.line(True)
    fabric.line(False)
    fabric.redirect(VECTOR | LEVEL)
    assert fabric.sent == []


def test_polarity_is_kept_and_changes_nothing(fabric: Fabric) -> None:
    fabric.redirect(VECTOR | LEVEL | ACTIVE_LOW)
    assert fabric.sent == []
    fabric.line(True)
    assert len(fabric.sent) == 1
    assert fabric.entry() & ACTIVE_LOW


# Messages


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (VECTOR, (0xFEE0_0000, VECTOR)),
        (3 << DESTINATION_SHIFT | VECTOR, (0xFEE0_3000, VECTOR)),
        (0xFF << DESTINATION_SHIFT | LOGICAL | VECTOR, (0xFEEF_F004, VECTOR)),
        (1 << DESTINATION_SHIFT | LOGICAL | 1 << 8 | VECTOR, (0xFEE0_1004, 0x100 | VECTOR)),
        (LEVEL | VECTOR, (0xFEE0_0000, 0xC000 | VECTOR)),
        (4 << 8, (0xFEE0_0000, 0x400)),
    ],
    ids=["physical", "cpu 3", "logical", "lowest priority", "level", "nmi"],
)
def test_an_entry_is_a_message(fabric: Fabric, entry: int, message: tuple[int, int]) -> None:
    fabric.redirect(entry)
    assert fabric.ioapic.route(PIN) == (*message, False)
    fabric.line(True)
    assert fabric.sent == [message]


def test_a_masked_line_has_a_route_all_the_same(fabric: Fabric) -> None:
    fabric.redirect(VECTOR | LEVEL | MASKED)
    assert fabric.ioapic.route(PIN) == (0xFEE0_0000, 0xC000 | VECTOR, True)


def test_changes_of_routes_are_told_and_other_writes_are_not(fabric: Fabric) -> None:
    fabric.redirect(VECTOR)
    assert fabric.changes == 1  # the destination stayed 0
    fabric.redirect(VECTOR)
    fabric.redirect(VECTOR | ACTIVE_LOW)
    fabric.write(IOAPICID, 1 << 24)
    assert fabric.changes == 1


# Snapshots


def test_a_copy_goes_on_where_the_original_was(fabric: Fabric) -> None:
    fabric.redirect(VECTOR | LEVEL)
    fabric.line(True)
    copy = Fabric(fabric.ioapic.save())
    copy.line(True)  # the device raises its line again
    assert copy.sent == []
    copy.ioapic.end_of_interrupt(VECTOR)
    assert copy.sent == [(0xFEE0_0000, 0xC000 | VECTOR)]


def test_an_edge_that_was_sent_before_the_snapshot_is_not_sent_again(fabric: Fabric) -> None:
    fabric.redirect(VECTOR)
    fabric.line(True)
    copy = Fabric(fabric.ioapic.save())
    copy.line(True)
    assert copy.sent == []


def test_what_a_copy_does_leaves_the_saved_state_alone(fabric: Fabric) -> None:
    saved = fabric.ioapic.save()
    Fabric(saved).redirect(VECTOR)
    assert saved == fabric.ioapic.save()


# Whatever comes

_ACCESS = st.tuples(
    st.sampled_from(["read", "write"]),
    st.sampled_from([IOREGSEL, IOWIN, EOI]) | st.integers(0, LENGTH - 8),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, (1 << 64) - 1) | st.integers(0, IOREDTBL + 2 * PINS),
)
_LINE = st.tuples(st.just("line"), st.integers(0, PINS - 1), st.booleans(), st.none())
_END = st.tuples(st.just("end"), st.integers(0, 255), st.none(), st.none())


@given(st.lists(_ACCESS | _LINE | _END, max_size=60))
def test_any_sequence_of_accesses_leaves_values_within_their_registers(steps: list[tuple]) -> None:
    fabric = Fabric()
    for kind, first, second, value in steps:
        sent = len(fabric.sent)
        if kind == "read":
            assert 0 <= fabric.ioapic.read(first, second) < 1 << 8 * second
        elif kind == "write":
            fabric.ioapic.write(first, second, value & (1 << 8 * second) - 1)
        elif kind == "line":
            fabric.line(second, first)
        else:
            fabric.ioapic.end_of_interrupt(first)
        assert len(fabric.sent) - sent <= PINS
    saved = fabric.ioapic.save()
    for pin, entry in enumerate(saved["redirection"]):
        assert entry & ~(0xFF << DESTINATION_SHIFT | 0x1FFFF) == 0
        assert not entry & DELIVERY_STATUS
        assert not entry & REMOTE_IRR or entry & LEVEL
        address, data, masked = fabric.ioapic.route(pin)
        assert address & ~0xF_F004 == 0xFEE0_0000
        assert data & ~0xC7FF == 0
        assert masked == bool(entry & MASKED)
        # A level that stands is never forgotten: it was sent, or is masked.
        assert not (entry & LEVEL and saved["lines"] >> pin & 1) or entry & (REMOTE_IRR | MASKED)
    assert IoApic(lambda *_: None, lambda: None, saved).save() == saved
