"""The UART does what a 16550A does, as its data sheet and the bugs of others' UARTs tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvmm.devices.serial import (
    UART_DLL,
    UART_DLM,
    UART_FCR,
    UART_IER,
    UART_IIR,
    UART_LCR,
    UART_LSR,
    UART_MCR,
    UART_MSR,
    UART_RX,
    UART_SCR,
    UART_TX,
    Serial,
)


class Line:
    """A UART with what is at its ends: what was sent, and the level of its interrupt line with its rising edges."""

    def __init__(self, state: dict | None = None) -> None:
        self.sent = bytearray()
        self.level, self.edges = False, 0
        self.uart = Serial(self._irq, self.sent.extend, state)

    def _irq(self, level: bool) -> None:
        self.edges += level and not self.level
        self.level = level

    def read(self, register: int) -> int:
        return self.uart.read(register, 1)

    def write(self, register: int, value: int) -> None:
        self.uart.write(register, 1, value)

    def read_all(self) -> bytes:
        data = bytearray()
        while self.read(UART_LSR) & 1:
            data.append(self.read(UART_RX))
        return bytes(data)


@pytest.fixture
def line() -> Line:
    return Line()


def test_what_the_guest_writes_goes_out(line: Line) -> None:
    for byte in b"hello":
        assert line.read(UART_LSR) & 0x60 == 0x60
        line.write(UART_TX, byte)
    assert line.sent == b"hello"


def test_input_is_read_in_order_and_then_the_receiver_is_empty(line: Line) -> None:
    assert line.uart.receive(b"abc") == 3
    assert line.read_all() == b"abc"
    assert line.read(UART_RX) == 0


def test_input_without_bound_is_not_taken(line: Line) -> None:
    data = bytes(range(256)) * 40
    taken = line.uart.receive(data)
    assert taken < 5000
    rest = data[taken:]
    assert line.uart.receive(rest) <= 1
    assert line.uart.receive(rest) == 0
    assert line.read_all()[:taken] == data[:taken]


def test_the_scratch_register_keeps_a_byte(line: Line) -> None:
    line.write(UART_SCR, 0x5A)
    assert line.read(UART_SCR) == 0x5A


def test_the_divisor_latch_hides_data_and_interrupt_registers(line: Line) -> None:
    line.write(UART_IER, 0x05)
    line.write(UART_LCR, 0x83)
    line.write(UART_DLL, 0x01)
    line.write(UART_DLM, 0x02)
    assert (line.read(UART_DLL), line.read(UART_DLM)) == (1, 2)
    line.write(UART_LCR, 0x03)
    assert line.read(UART_IER) == 0x05
    assert line.sent == b""


def test_iir_tells_of_fifos_only_when_they_are_on(line: Line) -> None:
    assert line.read(UART_IIR) == 0x01
    line.write(UART_FCR, 0x01)
    assert line.read(UART_IIR) == 0xC1


def test_received_data_raises_the_interrupt_until_it_is_read(line: Line) -> None:
    line.write(UART_IER, 0x01)
    line.uart.receive(b"x")
    assert line.level
    assert line.read(UART_IIR) == 0x04
    line.read(UART_RX)
    assert not line.level
    assert line.read(UART_IIR) == 0x01


def test_below_its_trigger_the_fifo_gives_a_time_out(line: Line) -> None:
    line.write(UART_FCR, 0x81)
    line.write(UART_IER, 0x01)
    line.uart.receive(b"1234567")
    assert line.read(UART_IIR) == 0xCC
    line.uart.receive(b"8")
    assert line.read(UART_IIR) == 0xC4


def test_bytes_that_came_while_interrupts_were_masked_are_told_of_later(line: Line) -> None:
    line.write(UART_IER, 0x01)
    line.write(UART_IER, 0x00)
    line.uart.receive(b"x")
    assert not line.level
    line.write(UART_IER, 0x01)
    assert line.level
    assert line.read_all() == b"x"


def test_an_empty_transmitter_interrupts_when_that_is_enabled_and_after_each_byte(line: Line) -> None:
    line.write(UART_IER, 0x02)
    assert line.level
    assert line.read(UART_IIR) == 0x02
    assert not line.level
    for count in range(40):
        line.write(UART_TX, count)
        assert line.level
        assert line.read(UART_IIR) == 0x02
        assert line.read(UART_IIR) == 0x01


def test_writing_the_enable_bit_again_does_not_interrupt_again(line: Line) -> None:
    line.write(UART_IER, 0x02)
    line.read(UART_IIR)
    line.write(UART_IER, 0x03)
    assert line.read(UART_IIR) == 0x01


def test_reading_iir_leaves_a_transmitter_interrupt_that_it_did_not_name(line: Line) -> None:
    line.write(UART_IER, 0x03)
    line.uart.receive(b"x")
    assert line.read(UART_IIR) == 0x04
    line.read(UART_RX)
    assert line.read(UART_IIR) == 0x02


def test_clearing_the_receiver_drops_what_it_holds(line: Line) -> None:
    line.write(UART_FCR, 0x01)
    line.uart.receive(b"0123456789abcdef")
    line.write(UART_FCR, 0x03)
    assert not line.read(UART_LSR) & 1


def test_switching_fifos_off_and_on_clears_them(line: Line) -> None:
    line.write(UART_FCR, 0x01)
    line.uart.receive(b"0123456789abcdef")
    line.write(UART_FCR, 0x00)
    assert not line.read(UART_LSR) & 1


def test_loopback_gives_bytes_back_and_sends_none(line: Line) -> None:
    line.write(UART_MCR, 0x10)
    line.write(UART_TX, 0xAE)
    assert line.read(UART_LSR) & 1
    assert line.read(UART_RX) == 0xAE
    assert line.sent == b""


@pytest.mark.parametrize(("mcr", "msr"), [(0x1A, 0x90), (0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80)])
def test_loopback_connects_the_modem_lines(line: Line, mcr: int, msr: int) -> None:
    line.write(UART_MCR, mcr)
    assert line.read(UART_MSR) & 0xF0 == msr


def test_modem_lines_that_change_are_told_once(line: Line) -> None:
    line.write(UART_IER, 0x08)
    line.write(UART_MCR, 0x10)
    assert line.level
    assert line.read(UART_IIR) == 0x00
    assert line.read(UART_MSR) == 0x0B
    assert not line.level
    assert line.read(UART_MSR) == 0x00


def test_host_input_waits_while_the_guest_tests_itself(line: Line) -> None:
    line.write(UART_MCR, 0x10)
    line.uart.receive(b"x")
    assert not line.read(UART_LSR) & 1
    line.write(UART_IER, 0x01)
    line.write(UART_MCR, 0x00)
    assert line.level
    assert line.read_all() == b"x"


def test_a_receiver_that_is_full_overruns(line: Line) -> None:
    line.write(UART_FCR, 0x01)
    line.write(UART_IER, 0x04)
    line.write(UART_MCR, 0x10)
    for byte in range(17):
        line.write(UART_TX, byte)
    assert line.read(UART_IIR) == 0xC6
    assert line.read(UART_LSR) & 0x03 == 0x03
    assert not line.read(UART_LSR) & 0x02
    assert line.read_all() == bytes(range(16))


def test_without_fifo_an_overrun_keeps_the_newest_byte(line: Line) -> None:
    line.write(UART_MCR, 0x10)
    line.write(UART_TX, 1)
    line.write(UART_TX, 2)
    assert line.read(UART_LSR) & 0x03 == 0x03
    assert line.read(UART_RX) == 2


def test_a_break_is_a_zero_with_its_own_bit(line: Line) -> None:
    line.write(UART_IER, 0x04)
    line.uart.receive_break()
    assert line.read(UART_IIR) == 0x06
    assert line.read(UART_LSR) & 0x11 == 0x11
    assert not line.level
    assert line.read(UART_RX) == 0


def test_a_break_of_the_guest_comes_back_in_loopback(line: Line) -> None:
    line.write(UART_MCR, 0x10)
    line.write(UART_LCR, 0x43)
    assert line.read(UART_LSR) & 0x10


def test_a_wide_access_is_several_narrow_ones(line: Line) -> None:
    line.uart.write(UART_LCR, 4, 0x00_00_1A_03)
    assert line.uart.read(UART_LCR, 2) == 0x1A03


def test_a_snapshot_in_the_middle_of_sending_still_owes_the_interrupt(line: Line) -> None:
    line.write(UART_IER, 0x02)
    line.read(UART_IIR)
    line.write(UART_TX, 0x41)
    copy = Line(line.uart.save())
    assert copy.level
    assert copy.read(UART_IIR) == 0x02


registers = st.integers(0, 7)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), registers, st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1)),
        st.tuples(st.just("read"), registers, st.sampled_from([1, 2, 4, 8]), st.just(0)),
        st.tuples(st.just("receive"), st.just(0), st.just(0), st.integers(0, 40)),
    ),
    max_size=60,
)


def play(line: Line, actions: list[tuple[str, int, int, int]]) -> list[object]:
    """Do ``actions``; what each gave, and the line after it."""
    seen: list[object] = []
    for action, register, size, value in actions:
        size = min(size, 1 << (8 - register).bit_length() - 1)
        if action == "write":
            line.uart.write(register, size, value & (1 << 8 * size) - 1)
        elif action == "read":
            seen.append(line.uart.read(register, size))
        else:
            seen.append(line.uart.receive(bytes(value)))
        seen.append(line.level)
    return seen


@given(steps, steps)
def test_a_saved_uart_goes_on_as_if_nothing_had_been(before: list, after: list) -> None:
    line = Line()
    play(line, before)
    state = line.uart.save()
    copy = Line(state)
    assert copy.uart.save() == state
    assert copy.level == line.level
    line.sent.clear()
    assert play(copy, after) == play(line, after)
    assert copy.sent == line.sent


@given(steps)
def test_every_register_read_is_a_byte_and_little_is_kept(actions: list) -> None:
    line = Line()
    play(line, actions)
    assert all(0 <= line.read(register) <= 0xFF for register in range(8))
    state = line.uart.save()
    assert len(state["fifo"]) <= 16
    assert len(state["backlog"]) <= 4096
