"""The board: what surrounds the processor of a kernel guest, and what answers its exits.

::

    KVM_EXIT_IO ──> port bus ──┬ COM1 ─────────────────┐ line 4
                               └ power, exit, twin     ├──> I/O APIC ──> KVM_SIGNAL_MSI ──> local APIC (in KVM)
    KVM_EXIT_MMIO ─> memory bus┬ virtio consoles ──────┘ lines 5, 6, …
                               └ I/O APIC  <── KVM_EXIT_IOAPIC_EOI

Only the thread that runs the machine touches the devices. Others give it work with :meth:`Board.call`.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

from pyvmm.board.failures import explain
from pyvmm.board.power import Ending, How, TwinPort, power_ports
from pyvmm.board.state import BoardState
from pyvmm.boot import layout
from pyvmm.devices import ioapic, serial
from pyvmm.devices.bus import Bus
from pyvmm.devices.ioapic import IoApic
from pyvmm.devices.serial import Serial
from pyvmm.devices.virtio.console import VirtioConsole
from pyvmm.devices.virtio.mmio import WINDOW, VirtioMmio
from pyvmm.devices.virtio.port import Port
from pyvmm.host import Host
from pyvmm.kvm import KvmError
from pyvmm.kvm.abi.exits import (
    KVM_EXIT_INTR,
    KVM_EXIT_IO,
    KVM_EXIT_IO_OUT,
    KVM_EXIT_IOAPIC_EOI,
    KVM_EXIT_MMIO,
)
from pyvmm.kvm.abi.interrupts import KVM_IRQ_ROUTING_MSI, KvmIrqRoutingEntry
from pyvmm.kvm.abi.run import RUN_EXIT
from pyvmm.kvm.abi.vcpu import KVM_MP_STATE_HALTED
from pyvmm.machine import Machine

__all__ = ["Board"]

_IO = Struct("<BBHIQ")  # direction, size, port, count, data_offset
_MMIO = Struct("<QQIB")  # phys_addr, data, len, is_write
_MMIO_DATA = RUN_EXIT + 8
_FLAGS_IF = 1 << 9
#: Nanoseconds between looks at whether the guest sleeps for ever.
_LOOK = 250_000_000


class Board:
    """The devices of one machine.

    :param output: takes what the guest writes to COM1.
    :param consoles: the ports of each virtio console.
    :param twin: which fork this is; 0 for what was booted.
    :param state: what ``save`` gave of a board with the same consoles; ValueError if it was another.
    """

    def __init__(
        self,
        host: Host,
        machine: Machine,
        output: Callable[[bytes], object],
        consoles: Sequence[Sequence[Port]] = (),
        twin: int = 0,
        state: BoardState | None = None,
    ) -> None:
        if state is not None and len(state["virtio"]) != len(consoles):
            raise ValueError(f"a state of {len(state['virtio'])} virtio devices for a board with {len(consoles)}")
        self._host, self._machine = host, machine
        #: How the guest ended; None while it goes on.
        self.ending: Ending | None = None
        #: Exits served so far.
        self.exits = 0
        #: Those of them that the host caused, by its timer or a signal.
        self.interruptions = 0
        #: Called when the guest says that now is a good time for a snapshot.
        self.on_announcement: Callable[[], None] = lambda: None
        self._paused = False
        self._calls: deque[Callable[[], None]] = deque()
        #: What COM1 has yet to take, and whom to tell.
        self._input: deque[tuple[memoryview, Callable[[], None]]] = deque()
        self._routes_stale = self._has_routes = False
        self._page = machine.vcpu.run_page
        self.io_apic = IoApic(self._signal, self._reroute, dict(state["ioapic"]) if state else None)
        line = self.io_apic.line(layout.COM1_IRQ)
        self.serial = Serial(line, output, dict(state["serial"]) if state else None)
        self.virtio: list[VirtioMmio] = []
        self.consoles: list[VirtioConsole] = []
        for number, ports in enumerate(consoles):
            of_console, of_transport = state["virtio"][number] if state else (None, None)
            console = VirtioConsole(ports, of_console)
            line = self.io_apic.line(layout.VIRTIO_IRQ + number)
            self.consoles.append(console)
            self.virtio.append(VirtioMmio(console, machine.memory.view, line, of_transport))
        self.twin = TwinPort(lambda: self.on_announcement(), twin)
        self.ports, self.mmio = self._buses()
        self._routes_stale = state is not None

    def _buses(self) -> tuple[Bus, Bus]:
        ports, mmio = Bus("ports"), Bus("memory")
        ports.add(layout.COM1, serial.LENGTH, self.serial)
        ports.add(layout.TWIN_PORT, 1, self.twin)
        for start, length, device in power_ports(self.end):
            ports.add(start, length, device)
        mmio.add(layout.IOAPIC, ioapic.LENGTH, self.io_apic)
        for number, transport in enumerate(self.virtio):
            mmio.add(layout.VIRTIO + number * layout.VIRTIO_STRIDE, WINDOW, transport)
        return ports, mmio

    def save(self) -> dict[str, Any]:
        """The devices as plain data; no exit may be half served."""
        virtio = [
            (console.save(), transport.save()) for console, transport in zip(self.consoles, self.virtio, strict=True)
        ]
        return {"ioapic": self.io_apic.save(), "serial": self.serial.save(), "virtio": virtio}

    def end(self, ending: Ending) -> None:
        """The guest has ended; the first ending counts."""
        if self.ending is None:
            self.ending = ending

    def pause(self) -> None:
        """Let the machine's run end after this exit. Called in the midst of one."""
        self._paused = True

    def call(self, work: Callable[[], None]) -> None:
        """Have ``work`` done by the thread that runs the machine, soon; from any thread."""
        self._calls.append(work)
        self._machine.interrupt()

    def receive(self, data: bytes, taken: Callable[[], None]) -> None:
        """Input for COM1. ``taken`` is called when the UART has all of it; who sends more before fills the host's
        memory.
        """
        self._input.append((memoryview(data), taken))
        self._feed()

    def close(self) -> None:
        """The guest's memory is about to go: no device touches it any more."""
        for transport in self.virtio:
            transport.running = False

    # The machine's side

    def begin(self) -> None:
        """To be called before each run."""
        self._paused = False
        self._look_again()
        self._work()
        # In a fork the guest may be about to end an interrupt: KVM has to know by then that somebody wants to hear.
        if self._routes_stale:
            self._set_routes()

    def handle_exit(self, reason: int) -> bool:
        """Serve one exit."""
        self.exits += 1
        if reason == KVM_EXIT_MMIO:
            self._access_memory()
        elif reason == KVM_EXIT_IO:
            self._access_port()
        elif reason == KVM_EXIT_IOAPIC_EOI:
            self.io_apic.end_of_interrupt(self._page[RUN_EXIT])
        elif reason == KVM_EXIT_INTR:
            self._interrupted()
        else:
            self.fail(explain(reason, self._machine.vcpu, self._host))
        if self._input:
            self._feed()
        if self._routes_stale:
            self._set_routes()
        return self.ending is None and not self._paused

    def fail(self, message: str) -> None:
        """The processor cannot go on."""
        self.end(Ending(How.CRASHED, 1, message))

    def _access_port(self) -> None:
        page = self._page
        direction, size, port, count, start = _IO.unpack_from(page, RUN_EXIT)
        if count == size == 1:  # nearly all of them
            if direction == KVM_EXIT_IO_OUT:
                self.ports.write(port, 1, page[start])
            else:
                page[start] = self.ports.read(port, 1)
            return
        for offset in range(start, start + size * count, size):
            # INS and OUTS move several items in one exit.
            if direction == KVM_EXIT_IO_OUT:
                self.ports.write(port, size, int.from_bytes(page[offset : offset + size], "little"))
            else:
                page[offset : offset + size] = self.ports.read(port, size).to_bytes(size, "little")

    def _access_memory(self) -> None:
        address, data, size, is_write = _MMIO.unpack_from(self._page, RUN_EXIT)
        if is_write:
            self.mmio.write(address, size, data & (1 << 8 * size) - 1)
        else:
            data = self.mmio.read(address, size).to_bytes(size, "little")
            self._page[_MMIO_DATA : _MMIO_DATA + size] = data

    def _interrupted(self) -> None:
        self.interruptions += 1
        self._work()
        vcpu = self._machine.vcpu
        if vcpu.get_mp_state() == KVM_MP_STATE_HALTED and not vcpu.get_regs().rflags & _FLAGS_IF:
            self.end(Ending(How.HALTED, 0, "the guest halted with interrupts off: nothing can wake it"))
        self._look_again()

    def _look_again(self) -> None:
        self._machine.set_alarm(time.monotonic_ns() + _LOOK)

    def _work(self) -> None:
        while self._calls:
            self._calls.popleft()()

    def _feed(self) -> None:
        while self._input:
            data, taken = self._input.popleft()
            rest = data[self.serial.receive(data) :]
            if rest:
                self._input.appendleft((rest, taken))
                return
            taken()

    # Interrupts

    def _signal(self, address: int, data: int) -> None:
        try:
            self._machine.vm.signal_msi(address, data)
        except KvmError:
            pass  # EPERM: no local APIC takes it, as they are off. On hardware it is lost as well.

    def _reroute(self) -> None:
        self._routes_stale = True

    def _level_routes(self) -> list[tuple[int, int, int]]:
        """Line, address and data of the level-triggered lines: KVM has to know their vectors to tell of their end."""
        routes = ((line, *self.io_apic.route(line)) for line in range(ioapic.PINS))
        return [(line, address, data) for line, address, data, _ in routes if data & ioapic.MSI_LEVEL]

    def _set_routes(self) -> None:
        self._routes_stale = False
        entries = []
        for line, address, data in self._level_routes():
            entry = KvmIrqRoutingEntry(gsi=line, type=KVM_IRQ_ROUTING_MSI)
            entry.u.msi.address_lo, entry.u.msi.data = address, data
            entries.append(entry)
        if entries or self._has_routes:
            self._machine.vm.set_gsi_routing(entries)
            self._has_routes = bool(entries)

    def __repr__(self) -> str:
        return f"<Board {self.ports!r} {self.mmio!r} {self.exits} exits>"
