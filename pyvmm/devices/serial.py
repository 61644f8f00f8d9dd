"""A 16550A UART (National Semiconductor PC16550D data sheet; ``linux/serial_reg.h`` for the names).

Not emulated: time. A byte that is written is on the line at once, so the transmitter is always empty again, and a byte
that was received has always waited long enough for the time-out interrupt. The divisor, word length and parity are kept
and have no effect. OUT2 does not gate the interrupt, as in other emulators.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pyvmm.devices.bus import IrqLine

#: Bytes of I/O space.
LENGTH = 8

UART_RX = UART_TX = UART_DLL = 0
UART_IER = UART_DLM = 1
UART_IIR = UART_FCR = 2
UART_LCR, UART_MCR, UART_LSR, UART_MSR, UART_SCR = 3, 4, 5, 6, 7

UART_IER_RDI, UART_IER_THRI, UART_IER_RLSI, UART_IER_MSI = 1, 2, 4, 8
UART_IIR_NO_INT, UART_IIR_MSI, UART_IIR_THRI, UART_IIR_RDI = 0x01, 0x00, 0x02, 0x04
UART_IIR_RLSI, UART_IIR_RX_TIMEOUT, UART_IIR_FIFO_ENABLED = 0x06, 0x0C, 0xC0
UART_FCR_ENABLE_FIFO, UART_FCR_CLEAR_RCVR, UART_FCR_CLEAR_XMIT = 1, 2, 4
UART_LCR_SBC, UART_LCR_DLAB = 0x40, 0x80
UART_MCR_DTR, UART_MCR_RTS, UART_MCR_OUT1, UART_MCR_OUT2, UART_MCR_LOOP = 1, 2, 4, 8, 0x10
UART_LSR_DR, UART_LSR_OE, UART_LSR_PE, UART_LSR_FE, UART_LSR_BI = 1, 2, 4, 8, 0x10
UART_LSR_THRE, UART_LSR_TEMT, UART_LSR_FIFOE = 0x20, 0x40, 0x80
UART_MSR_TERI, UART_MSR_CTS, UART_MSR_DSR, UART_MSR_RI, UART_MSR_DCD = 0x04, 0x10, 0x20, 0x40, 0x80

_LSR_ERRORS = UART_LSR_OE | UART_LSR_PE | UART_LSR_FE | UART_LSR_BI
_TRIGGERS = (1, 4, 8, 14)
_FIFO_SIZE = 16
#: Bytes from the host that wait for room in the FIFO. Whoever sends more has to wait himself.
_BACKLOG = 4096
_BYTES = [bytes([value]) for value in range(256)]


@dataclass(slots=True)
class SerialState:
    """The registers; ``fifo`` holds (byte, LSR error bits), ``backlog`` what has yet to come into it."""

    ier: int = 0
    lcr: int = 3
    mcr: int = UART_MCR_OUT2
    fcr: int = 0
    scr: int = 0
    divisor: int = 12
    overrun: bool = False
    #: The transmitter became empty, and the guest has not been told.
    thre_pending: bool = False
    msr_delta: int = 0
    fifo: list[tuple[int, int]] | None = None
    backlog: bytes = b""


class Serial:
    """One UART.

    :param irq: its interrupt line.
    :param output: is given what the guest writes. It must take everything, and bound what it keeps.
    """

    def __init__(self, irq: IrqLine, output: Callable[[bytes], object], state: dict[str, Any] | None = None) -> None:
        self._irq, self._output = irq, output
        self._state = SerialState(**state) if state else SerialState()
        self._fifo = [(byte, error) for byte, error in self._state.fifo or ()]
        self._backlog = bytearray(self._state.backlog)
        self._level = False
        self._update()

    def save(self) -> dict[str, Any]:
        """The state, as plain data."""
        self._state.fifo, self._state.backlog = list(self._fifo), bytes(self._backlog)
        return asdict(self._state)

    def receive(self, data: bytes | memoryview) -> int:
        """Bytes from the other end of the line; how many of them were taken."""
        taken = data[: _BACKLOG - len(self._backlog)]
        self._backlog += taken
        self._fill()
        self._update()
        return len(taken)

    def receive_break(self) -> None:
        """The other end sends a break."""
        self._push(0, UART_LSR_BI)
        self._update()

    # The guest's side

    def read(self, offset: int, size: int) -> int:
        """A register, or several one after the other."""
        if size > 1:
            return sum(self.read(offset + index, 1) << (8 * index) for index in range(size))
        state = self._state
        if offset < UART_IIR and state.lcr & UART_LCR_DLAB:
            return state.divisor >> (8 * offset) & 0xFF
        if offset == UART_RX:
            return self._read_byte()
        if offset == UART_IER:
            return state.ier
        if offset == UART_IIR:
            return self._read_iir()
        if offset == UART_LCR:
            return state.lcr
        if offset == UART_MCR:
            return state.mcr
        if offset == UART_LSR:
            return self._read_lsr()
        if offset == UART_MSR:
            return self._read_msr()
        return state.scr

    def write(self, offset: int, size: int, value: int) -> None:
        """A register, or several one after the other."""
        if size > 1:
            for index in range(size):
                self.write(offset + index, 1, value >> (8 * index) & 0xFF)
            return
        state = self._state
        if offset < UART_IIR and state.lcr & UART_LCR_DLAB:
            shift = 8 * offset
            state.divisor = state.divisor & ~(0xFF << shift) | value << shift
        elif offset == UART_TX:
            self._transmit(value)
        elif offset == UART_IER:
            # The transmitter is empty: who wants to hear of that hears it at once.
            if value & ~state.ier & UART_IER_THRI:
                state.thre_pending = True
            state.ier = value & 0x0F
        elif offset == UART_FCR:
            self._write_fcr(value)
        elif offset == UART_LCR:
            if state.mcr & UART_MCR_LOOP and value & ~state.lcr & UART_LCR_SBC:
                self._push(0, UART_LSR_BI)
            state.lcr = value
        elif offset == UART_MCR:
            before = self._modem_lines()
            state.mcr = value & 0x1F
            after = self._modem_lines()
            # RI tells of its falling edge only (TERI).
            state.msr_delta |= (before ^ after) >> 4 & 0x0B | (before & ~after & UART_MSR_RI) >> 4
            self._fill()
        elif offset == UART_SCR:
            state.scr = value
        self._update()

    def _read_byte(self) -> int:
        if not self._fifo:
            return 0
        value, _ = self._fifo.pop(0)
        self._fill()
        self._update()
        return value

    def _read_iir(self) -> int:
        cause = self._cause()
        if cause == UART_IIR_THRI:
            self._state.thre_pending = False
            self._update()
        return cause | (UART_IIR_FIFO_ENABLED if self._state.fcr & UART_FCR_ENABLE_FIFO else 0)

    def _lsr(self) -> int:
        value = UART_LSR_THRE | UART_LSR_TEMT
        if self._fifo:
            value |= UART_LSR_DR | self._fifo[0][1]
            if self._state.fcr & UART_FCR_ENABLE_FIFO and any(error for _, error in self._fifo):
                value |= UART_LSR_FIFOE
        return value | (UART_LSR_OE if self._state.overrun else 0)

    def _read_lsr(self) -> int:
        value = self._lsr()
        if value & _LSR_ERRORS:
            self._state.overrun = False
            if self._fifo:
                self._fifo[0] = (self._fifo[0][0], 0)
            self._update()
        return value

    def _modem_lines(self) -> int:
        mcr = self._state.mcr
        if not mcr & UART_MCR_LOOP:
            return UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD
        return (
            (UART_MSR_DSR if mcr & UART_MCR_DTR else 0)
            | (UART_MSR_CTS if mcr & UART_MCR_RTS else 0)
            | (UART_MSR_RI if mcr & UART_MCR_OUT1 else 0)
            | (UART_MSR_DCD if mcr & UART_MCR_OUT2 else 0)
        )

    def _read_msr(self) -> int:
        value = self._modem_lines() | self._state.msr_delta
        self._state.msr_delta = 0
        self._update()
        return value

    def _write_fcr(self, value: int) -> None:
        state = self._state
        if (value ^ state.fcr) & UART_FCR_ENABLE_FIFO:
            value |= UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT
        state.fcr = value & 0xC9
        if value & UART_FCR_CLEAR_RCVR:
            self._fifo.clear()
            self._fill()
        if value & UART_FCR_CLEAR_XMIT and state.ier & UART_IER_THRI:
            state.thre_pending = True

    def _transmit(self, value: int) -> None:
        if self._state.mcr & UART_MCR_LOOP:
            self._push(value, 0)
        else:
            self._output(_BYTES[value])
        self._state.thre_pending = True

    # The receiver

    def _capacity(self) -> int:
        return _FIFO_SIZE if self._state.fcr & UART_FCR_ENABLE_FIFO else 1

    def _push(self, value: int, error: int) -> None:
        """A byte comes in now, whether there is room or not."""
        capacity = self._capacity()
        if len(self._fifo) >= capacity:
            self._state.overrun = True
            if capacity > 1:
                return  # the FIFO keeps what it has; the shift register is overwritten
            self._fifo.clear()
        self._fifo.append((value, error))

    def _fill(self) -> None:
        """Bytes that waited come in; none do so while the guest tests itself in loopback."""
        room = self._capacity() - len(self._fifo)
        if room > 0 and self._backlog and not self._state.mcr & UART_MCR_LOOP:
            self._fifo += [(byte, 0) for byte in self._backlog[:room]]
            del self._backlog[:room]

    # Interrupts

    def _cause(self) -> int:
        """What IIR names: of the causes that are enabled, the one that comes first."""
        state = self._state
        ier = state.ier
        if ier & UART_IER_RLSI and self._lsr() & _LSR_ERRORS:
            return UART_IIR_RLSI
        if ier & UART_IER_RDI and self._fifo:
            if not state.fcr & UART_FCR_ENABLE_FIFO or len(self._fifo) >= _TRIGGERS[state.fcr >> 6]:
                return UART_IIR_RDI
            return UART_IIR_RX_TIMEOUT
        if ier & UART_IER_THRI and state.thre_pending:
            return UART_IIR_THRI
        if ier & UART_IER_MSI and state.msr_delta:
            return UART_IIR_MSI
        return UART_IIR_NO_INT

    def _update(self) -> None:
        level = self._cause() != UART_IIR_NO_INT
        if level != self._level:
            self._level = level
            self._irq(level)

    def __repr__(self) -> str:
        return f"<Serial received={len(self._fifo)}+{len(self._backlog)} ier={self._state.ier:#x}>"
