"""The console device with several ports (virtio 1.2 §5.3).

Port 0 has queues 0 and 1, the control queues are 2 and 3, port N has 2N+2 and 2N+3; the first of each pair carries what
the guest receives. The driver learns of the ports by control messages once it says that it is ready.

What the driver is to be told is a list without repetitions, and says how things are when it is sent: a guest that asks
again and again and takes no answers makes it no longer. So a close and an open in a row reach the guest as one
message if it makes no buffers available between them.

A driver without VIRTIO_CONSOLE_F_MULTIPORT has port 0, which is then open as long as the driver runs. Emergency writes
go to port 0. The size of the console goes as in §5.3.6.2, columns first; Linux from 2010 until 6.15 reads the rows
first. Not here: removing ports, VIRTIO_CONSOLE_PORT_REMOVE.
"""

from collections.abc import Sequence
from functools import partial
from typing import TypedDict

from pyvmm.devices.virtio.abi.virtio_config import VIRTIO_ID_CONSOLE
from pyvmm.devices.virtio.abi.virtio_console import (
    EMERG_WR,
    VIRTIO_CONSOLE_CONFIG,
    VIRTIO_CONSOLE_CONSOLE_PORT,
    VIRTIO_CONSOLE_CONTROL,
    VIRTIO_CONSOLE_DEVICE_READY,
    VIRTIO_CONSOLE_F_EMERG_WRITE,
    VIRTIO_CONSOLE_F_MULTIPORT,
    VIRTIO_CONSOLE_F_SIZE,
    VIRTIO_CONSOLE_PORT_ADD,
    VIRTIO_CONSOLE_PORT_NAME,
    VIRTIO_CONSOLE_PORT_OPEN,
    VIRTIO_CONSOLE_PORT_READY,
    VIRTIO_CONSOLE_RESIZE,
    VIRTIO_CONSOLE_RESIZE_SIZE,
)
from pyvmm.devices.virtio.mmio import VirtioMmio
from pyvmm.devices.virtio.port import ROUNDS, Port, PortState

__all__ = ["ConsoleState", "Port", "VirtioConsole"]

_PORTS_MAX = 31
_CONTROL_RECEIVEQ, _CONTROL_TRANSMITQ = 2, 3
#: Linux fills every receive queue with pages.
_QUEUE_SIZE, _CONTROL_QUEUE_SIZE = 128, 32


class ConsoleState(TypedDict):
    """The device as plain data."""

    driver_ready: bool
    columns: int
    rows: int
    messages: list[list[int]]
    violations: int
    ports: list[PortState]


class VirtioConsole:
    """A console device; ``ports`` are numbered in their order. ValueError if there are none or more than 31."""

    device_id = VIRTIO_ID_CONSOLE
    features = 1 << VIRTIO_CONSOLE_F_SIZE | 1 << VIRTIO_CONSOLE_F_MULTIPORT | 1 << VIRTIO_CONSOLE_F_EMERG_WRITE

    def __init__(
        self, ports: Sequence[Port], state: ConsoleState | None = None, *, columns: int = 80, rows: int = 25
    ) -> None:
        if not 0 < len(ports) <= _PORTS_MAX:
            raise ValueError(f"a console with {len(ports)} ports")
        self.ports = list(ports)
        self.queue_sizes = [_QUEUE_SIZE] * (2 * len(self.ports) + 2)
        self.queue_sizes[_CONTROL_RECEIVEQ] = self.queue_sizes[_CONTROL_TRANSMITQ] = _CONTROL_QUEUE_SIZE
        self._columns, self._rows = columns, rows
        self._driver_ready = False
        # What the driver is to be told: number of a port, event.
        self._messages: list[list[int]] = []
        #: Control messages and accesses that made no sense.
        self.violations = 0
        if state is not None:
            self._restore(state)

    def attach(self, transport: VirtioMmio) -> None:
        """See VirtioDevice."""
        self._transport = transport
        for number, port in enumerate(self.ports):
            first = 2 * number + 2 if number else 0
            port.attach(transport, first, first + 1, partial(self._tell, number, VIRTIO_CONSOLE_PORT_OPEN))

    def start(self) -> None:
        """See VirtioDevice."""
        if not self._is_multiport:
            self.ports[0].guest_opens()

    def notify(self, index: int) -> None:
        """See VirtioDevice."""
        if index < 2:
            port = self.ports[0]
        elif not self._is_multiport:
            self.violations += 1
            return
        elif index > _CONTROL_TRANSMITQ:
            port = self.ports[index // 2 - 1]
        elif index == _CONTROL_TRANSMITQ:
            self._listen()
            return
        else:
            self._flush()
            return
        if index & 1:
            port.drain()
        else:
            port.flush()

    def reset(self) -> None:
        """See VirtioDevice."""
        self._driver_ready = False
        self._messages.clear()
        for port in self.ports:
            port.reset()

    def resize(self, columns: int, rows: int) -> None:
        """The host's terminal has this many columns and rows now."""
        self._columns, self._rows = columns, rows
        for number, port in enumerate(self.ports):
            if port.is_console and port.guest_ready:
                self._tell(number, VIRTIO_CONSOLE_RESIZE)
        self._transport.config_changed()

    def read_config(self, offset: int, size: int) -> int:
        """See VirtioDevice."""
        config = VIRTIO_CONSOLE_CONFIG.pack(self._columns, self._rows, len(self.ports), 0)
        return int.from_bytes(config[offset : offset + size], "little")

    def write_config(self, offset: int, size: int, value: int) -> None:
        """See VirtioDevice. Works at any time: it is there for drivers that are not up (§5.3.4)."""
        if offset == EMERG_WR and size <= 4:
            self.ports[0].emergency(bytes([value & 0xFF]))
        else:
            self.violations += 1

    @property
    def _is_multiport(self) -> bool:
        return bool(self._transport.features >> VIRTIO_CONSOLE_F_MULTIPORT & 1)

    def _listen(self) -> None:
        """Do what the driver's control messages say."""
        transport = self._transport
        queue = transport.queues[_CONTROL_TRANSMITQ]
        before = queue.next
        queue.suppress_notifications()
        for _ in range(ROUNDS):
            for _ in range(queue.pending()):
                chain = queue.peek()
                message = b""
                if chain is not None and not chain.writable:
                    for piece in chain.readable:
                        message += piece[: VIRTIO_CONSOLE_CONTROL.size - len(message)]
                queue.complete(0)
                if len(message) < VIRTIO_CONSOLE_CONTROL.size or not self._obey(
                    *VIRTIO_CONSOLE_CONTROL.unpack(message)
                ):
                    self.violations += 1
            queue.request_notification()
            if not queue.pending():
                break
        else:
            transport.come_back(_CONTROL_TRANSMITQ)
        transport.interrupt(queue, before)

    def _obey(self, number: int, event: int, value: int) -> bool:
        """Whether the message is one that a driver may send now, and says that the driver succeeded."""
        if event == VIRTIO_CONSOLE_DEVICE_READY:
            self._driver_ready = value == 1
            for added in range(len(self.ports)):
                self._tell(added, VIRTIO_CONSOLE_PORT_ADD)
            return self._driver_ready
        if not self._driver_ready or number >= len(self.ports):
            return False
        port = self.ports[number]
        if event == VIRTIO_CONSOLE_PORT_READY:
            port.guest_ready = value == 1
            if port.guest_ready:
                self._introduce(number, port)
            return port.guest_ready
        if event == VIRTIO_CONSOLE_PORT_OPEN and port.guest_ready and value < 2:
            if value:
                port.guest_opens()
            else:
                port.guest_closes()
            return True
        return False

    def _introduce(self, number: int, port: Port) -> None:
        """Tell the driver what it has to know of a port."""
        if port.is_console:
            self._tell(number, VIRTIO_CONSOLE_CONSOLE_PORT)
            if self._transport.features >> VIRTIO_CONSOLE_F_SIZE & 1:
                self._tell(number, VIRTIO_CONSOLE_RESIZE)
        if port.name:
            self._tell(number, VIRTIO_CONSOLE_PORT_NAME)
        if port.host_open:
            self._tell(number, VIRTIO_CONSOLE_PORT_OPEN)

    def _tell(self, number: int, event: int) -> None:
        """Let the driver know, now or when it can hear."""
        known = self._driver_ready and (event == VIRTIO_CONSOLE_PORT_ADD or self.ports[number].guest_ready)
        if known and [number, event] not in self._messages:
            self._messages.append([number, event])
            self._flush()

    def _message(self, number: int, event: int) -> bytes:
        port, value, more = self.ports[number], 1, b""
        if event == VIRTIO_CONSOLE_PORT_OPEN:
            value = int(port.host_open)
        elif event == VIRTIO_CONSOLE_PORT_NAME:
            more = port.name.encode()
        elif event == VIRTIO_CONSOLE_RESIZE:
            more = VIRTIO_CONSOLE_RESIZE_SIZE.pack(self._columns, self._rows)
        return VIRTIO_CONSOLE_CONTROL.pack(number, event, value) + more

    def _flush(self) -> None:
        """Send what the driver is to be told, as far as it has buffers; one that is too small stays unused."""
        transport, messages = self._transport, self._messages
        if not transport.running:
            return
        queue = transport.queues[_CONTROL_RECEIVEQ]
        before = queue.next
        for _ in range(ROUNDS):
            for _ in range(queue.pending() if messages else 0):
                if not messages:
                    break
                chain = queue.peek()
                data = memoryview(self._message(*messages[0]))
                if chain is None or chain.readable or sum(map(len, chain.writable)) < len(data):
                    self.violations += 1
                    queue.complete(0)
                    continue
                queue.complete(chain.fill(data))
                del messages[0]
            if not messages:
                queue.suppress_notifications()
                break
            queue.request_notification()
            if not queue.pending():
                break
        else:
            transport.come_back(_CONTROL_RECEIVEQ)
        transport.interrupt(queue, before)

    def save(self) -> ConsoleState:
        """The device and its ports as plain data; the transport saves itself."""
        return {
            "driver_ready": self._driver_ready,
            "columns": self._columns,
            "rows": self._rows,
            "messages": [list(message) for message in self._messages],
            "violations": self.violations,
            "ports": [port.save() for port in self.ports],
        }

    def _restore(self, state: ConsoleState) -> None:
        if len(state["ports"]) != len(self.ports):
            raise ValueError(f"a state of {len(state['ports'])} ports for a console with {len(self.ports)}")
        if any(number >= len(self.ports) for number, _ in state["messages"]):
            raise ValueError("a message about a port that is not there")
        self._driver_ready, self.violations = state["driver_ready"], state["violations"]
        self._columns, self._rows = state["columns"], state["rows"]
        self._messages = [list(message) for message in state["messages"]]
        for port, saved in zip(self.ports, state["ports"], strict=True):
            port.restore(saved)

    def __repr__(self) -> str:
        return f"<VirtioConsole: {', '.join(map(repr, self.ports))}>"
