"""An I/O APIC (Intel 82093AA data sheet, and its successors' version 0x20 with an EOI register): 24 interrupt lines
that become messages to local APICs (Intel SDM 3A, 11.11).

The local APICs are elsewhere: ``send`` takes a message as KVM_SIGNAL_MSI does, and who has them calls
:meth:`IoApic.end_of_interrupt` when a processor has ended an interrupt that a level-triggered line caused. With KVM's
split interrupt controller that is KVM_EXIT_IOAPIC_EOI. KVM gives this exit only for vectors that it finds in its
routing table, as level-triggered messages of the lines 0 to 23, so the table has to follow :meth:`IoApic.route`.

As in KVM, the polarity is kept and has no effect: a device says that it asserts its line, not which voltage that is.
A message is delivered at once, so the delivery status always reads idle. There is no APIC bus, and no arbitration.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from pyvmm.devices.bus import IrqLine

__all__ = ["LENGTH", "MSI_LEVEL", "PINS", "IoApic"]

#: Bytes of address space, and interrupt lines.
LENGTH, PINS = 0x1000, 24

# Registers in memory, and those that IOREGSEL selects.
IOREGSEL, IOWIN, EOI = 0x00, 0x10, 0x40
IOAPICID, IOAPICVER, IOAPICARB, IOREDTBL = 0x00, 0x01, 0x02, 0x10

#: 0x11 is the 82093AA; from 0x20 on there is the EOI register, which Linux then uses.
VERSION = 0x20

# An entry of the redirection table. The vector is in bits 0 to 7, the delivery mode in 8 to 10.
LOGICAL, DELIVERY_STATUS, ACTIVE_LOW, REMOTE_IRR, LEVEL, MASKED = 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16
DESTINATION_SHIFT = 56
_VECTOR, _DELIVERY_MODE = 0xFF, 7 << 8
_WRITABLE = 0xFF << DESTINATION_SHIFT | MASKED | LEVEL | ACTIVE_LOW | LOGICAL | _DELIVERY_MODE | _VECTOR

# A message (SDM 3A 11.11.1 and 11.11.2).
_MSI_ADDRESS, _MSI_DESTINATION_SHIFT, _MSI_LOGICAL = 0xFEE0_0000, 12, 1 << 2
MSI_LEVEL, _MSI_ASSERTED = 1 << 15, 1 << 14

_ALL_ONES = 0xFFFF_FFFF


@dataclass(slots=True)
class IoApicState:
    """The registers; bit n of ``lines`` is the level of line n."""

    ioregsel: int = 0
    id: int = 0
    redirection: list[int] = field(default_factory=lambda: [MASKED] * PINS)
    lines: int = 0


class IoApic:
    """One I/O APIC.

    :param send: delivers a message: address and data.
    :param changed: is called when what :meth:`route` says of some line has changed. It should only take a note, since
        an operating system changes every entry several times: the routing has to be right when the processor goes on.
    """

    def __init__(
        self,
        send: Callable[[int, int], object],
        changed: Callable[[], object],
        state: dict[str, Any] | None = None,
    ) -> None:
        self._send, self._changed = send, changed
        self._state = IoApicState(**state) if state else IoApicState()
        # What the lines had to say is already with the local APICs: nothing is sent again.
        self._table = list(self._state.redirection)

    def save(self) -> dict[str, Any]:
        """The state, as plain data."""
        self._state.redirection = list(self._table)
        return asdict(self._state)

    # The devices' side, and that of the local APICs

    def line(self, number: int) -> IrqLine:
        """The line ``number``, for a device to set; IndexError if there is none."""
        if not 0 <= number < PINS:
            raise IndexError(f"an I/O APIC has the lines 0 to {PINS - 1}, not {number}")
        return partial(self._set, number)

    def end_of_interrupt(self, vector: int) -> None:
        """A processor has ended the interrupt ``vector``. Lines that still ask for it get it again."""
        for number, entry in enumerate(self._table):
            if entry & REMOTE_IRR and entry & _VECTOR == vector:
                self._table[number] = entry & ~REMOTE_IRR
                self._service(number)

    def route(self, number: int) -> tuple[int, int, bool]:
        """The message of a line: address, data, and whether it is masked.

        The routing table needs masked lines as well: Linux masks a line before it ends its interrupt, and without the
        route nobody would hear of that end.
        """
        entry = self._table[number]
        address = _MSI_ADDRESS | entry >> DESTINATION_SHIFT << _MSI_DESTINATION_SHIFT
        if entry & LOGICAL:
            address |= _MSI_LOGICAL
        data = entry & (_DELIVERY_MODE | _VECTOR)
        if entry & LEVEL:
            data |= MSI_LEVEL | _MSI_ASSERTED
        return address, data, bool(entry & MASKED)

    def _set(self, number: int, level: bool) -> None:
        state, bit = self._state, 1 << number
        if not level:
            state.lines &= ~bit
            return
        rises = not state.lines & bit
        state.lines |= bit
        # An edge on a masked line is lost, as the data sheet has it (and KVM): Linux masks edges only in software.
        if rises or self._table[number] & LEVEL:
            self._service(number)

    def _service(self, number: int) -> None:
        """Send the message of a line that asks for it, unless it is masked, or was sent and has not been ended."""
        entry = self._table[number]
        if entry & (MASKED | REMOTE_IRR) or not self._state.lines >> number & 1:
            return
        if entry & LEVEL:
            self._table[number] = entry | REMOTE_IRR
        address, data, _ = self.route(number)
        self._send(address, data)

    # The guest's side

    def read(self, offset: int, size: int) -> int:
        """A register. They are 32 bits wide; what lies between them reads 0."""
        if offset == IOREGSEL:
            value = self._state.ioregsel
        elif offset == IOWIN:
            value = self._read_selected()
        else:
            value = 0
        return value & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """A register; of wide accesses the low 32 bits count."""
        if offset == IOREGSEL:
            self._state.ioregsel = value & 0xFF
        elif offset == IOWIN:
            self._write_selected(value & _ALL_ONES)
        elif offset == EOI:
            self.end_of_interrupt(value & _VECTOR)

    def _read_selected(self) -> int:
        selected = self._state.ioregsel
        number, high = divmod(selected - IOREDTBL, 2)
        if 0 <= number < PINS:
            return self._table[number] >> (32 if high else 0) & _ALL_ONES
        if selected == IOAPICVER:
            return (PINS - 1) << 16 | VERSION
        if selected in (IOAPICID, IOAPICARB):
            return self._state.id << 24
        return _ALL_ONES

    def _write_selected(self, value: int) -> None:
        selected = self._state.ioregsel
        number, high = divmod(selected - IOREDTBL, 2)
        if 0 <= number < PINS:
            shift = 32 if high else 0
            self._redirect(number, self._table[number] & ~(_ALL_ONES << shift) | value << shift)
        elif selected == IOAPICID:
            self._state.id = value >> 24 & 0xF

    def _redirect(self, number: int, entry: int) -> None:
        """The guest writes an entry of the redirection table."""
        before = self._table[number]
        entry = entry & _WRITABLE | before & REMOTE_IRR
        if not entry & LEVEL:
            # Linux ends an interrupt by making it edge-triggered for a moment, where there is no EOI register.
            entry &= ~REMOTE_IRR
        self._table[number] = entry
        if (before ^ entry) & ~(REMOTE_IRR | ACTIVE_LOW):
            self._changed()
        if entry & LEVEL:
            self._service(number)

    def __repr__(self) -> str:
        unmasked = [number for number, entry in enumerate(self._table) if not entry & MASKED]
        return f"<IoApic unmasked={unmasked} lines={self._state.lines:#x}>"
