"""How a kernel guest ends, and the ports by which it does so itself."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from pyvmm.boot import layout

__all__ = ["Ending", "How", "PowerPort", "TwinPort", "power_ports"]


class How(Enum):
    """The ways in which a guest ends."""

    EXIT = "exit"  #: it wrote an exit code
    POWER_OFF = "power-off"
    RESET = "reset"
    HALTED = "halted"  #: it sleeps, and nothing can wake it
    CRASHED = "crashed"  #: its processor cannot go on: a triple fault, an instruction that KVM cannot execute
    OUTPUT_LIMIT = "output limit"
    TIMEOUT = "timeout"
    STOPPED = "stopped"  #: by the host


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended: ``code`` is 0 for a guest that ended as it should, else what it wrote, or 1; ``message`` is for a
    reader who wants to know more.
    """

    how: How
    code: int
    message: str = ""


End = Callable[[Ending], None]


def power_ports(end: End) -> list[tuple[int, int, "PowerPort"]]:
    """Power-off and reset as the ACPI tables describe them, the keyboard controller's reset line, and the port for
    exit codes: (first port, how many, device) for the bus. ``end`` is called with what the guest asks for.
    """

    def acpi(offset: int, value: int) -> None:
        port = layout.SLEEP_CONTROL_PORT + offset
        if port == layout.SLEEP_CONTROL_PORT and value & layout.SLEEP_ENABLE:
            # SLP_TYPx is in bits 2 to 4 (ACPI 6.4, 4.8.3.7); no state but S5 is offered.
            if value >> 2 & 7 == layout.SLEEP_TYPE_S5:
                end(Ending(How.POWER_OFF, 0))
        elif port == layout.RESET_PORT and value == layout.RESET:
            end(Ending(How.RESET, 0))

    def keyboard_controller(_: int, value: int) -> None:
        if value == layout.KEYBOARD_RESET:
            end(Ending(How.RESET, 0))

    def exit_code(_: int, value: int) -> None:
        end(Ending(How.EXIT, value))

    return [
        (layout.SLEEP_CONTROL_PORT, 3, PowerPort("acpi", acpi)),
        (layout.KEYBOARD_RESET_PORT, 1, PowerPort("keyboard controller", keyboard_controller)),
        (layout.EXIT_PORT, 1, PowerPort("exit code", exit_code)),
    ]


class PowerPort:
    """One of them: reads give 0, of a write each byte counts."""

    def __init__(self, name: str, write: Callable[[int, int], None]) -> None:
        self._name, self._write = name, write

    def read(self, offset: int, size: int) -> int:
        """Nothing to say: not busy, no event."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Byte by byte."""
        for index in range(size):
            self._write(offset + index, value >> (8 * index) & 0xFF)

    def __repr__(self) -> str:
        return f"<PowerPort {self._name}>"


class TwinPort:
    """By this port a guest says that now is a good time for a snapshot, and hears which of its forks it is: 0 is the
    guest that was booted.
    """

    def __init__(self, announced: Callable[[], None], number: int) -> None:
        self._announced = announced
        self.number = number

    def read(self, offset: int, size: int) -> int:
        """The number of the fork."""
        return self.number & (1 << (8 * size)) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Any value will do."""
        self._announced()

    def __repr__(self) -> str:
        return f"<TwinPort {self.number}>"
