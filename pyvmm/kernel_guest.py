"""A kernel guest: booted from an image or forked from a snapshot, run, and saved.

::

    with Host() as host, KernelGuest.boot(host, image, console=sys.stdout.buffer.write) as guest:
        print(guest.run(timeout=5))
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from pyvmm.board.board import Board
from pyvmm.board.power import Ending, How
from pyvmm.board.record import ConsoleRecord, Sink
from pyvmm.board.state import BoardState, guest_state
from pyvmm.boot import layout
from pyvmm.boot.entry import set_registers
from pyvmm.boot.loader import SMALLEST_MEMORY, load
from pyvmm.devices.virtio.port import Port
from pyvmm.errors import SnapshotError
from pyvmm.fork import fork
from pyvmm.host import Host
from pyvmm.machine import Machine
from pyvmm.memory import GuestMemory
from pyvmm.snapshot import Snapshot, write

__all__ = ["KIND", "OUTPUT_LIMIT", "KernelGuest"]

#: What a snapshot's manifest says.
KIND = "kernel"
#: Bytes that a guest may write to its consoles.
OUTPUT_LIMIT = 64 << 20
#: Seconds, a hundred years: as an absolute time it fits into what timers take.
_FOREVER = 3.2e9


class KernelGuest:
    """One such guest and its machine. Only one thread may run it; :meth:`stop` and :meth:`send` are for others too.

    It has COM1 and a virtio console, whose port 0 is ``/dev/hvc0``; ``console`` takes what is written to either.
    Further ``ports`` are the caller's, ``/dev/virtio-ports/NAME`` in the guest.
    """

    def __init__(
        self,
        host: Host,
        machine: Machine,
        console: Sink | None,
        ports: Sequence[Port],
        output_limit: int,
        twin: int = 0,
        state: BoardState | None = None,
    ) -> None:
        self._host, self.machine = host, machine
        self.record = ConsoleRecord(output_limit, console, self._too_much_output)
        self._output_limit = output_limit
        self.hvc0 = Port("", self.record.write, is_console=True)
        self.ports = [self.hvc0, *ports]
        self.board = Board(host, machine, self.record.write, [self.ports], twin, state)

    @classmethod
    def boot(
        cls,
        host: Host,
        image: bytes,
        *,
        memory: int = 128 << 20,
        command_line: str = "",
        initramfs: bytes = b"",
        console: Sink | None = None,
        ports: Sequence[Port] = (),
        output_limit: int = OUTPUT_LIMIT,
    ) -> Self:
        """A guest that stands before the first instruction of ``image``: a flat real-mode program, an ELF64 kernel or
        a Linux bzImage.

        :param memory: bytes, a multiple of the page size.
        :raises BootError: the image cannot be booted; the message says why.
        :raises KvmError: KVM refuses.
        """
        machine = Machine(host, GuestMemory(memory, memory), has_apic=True)
        try:
            entry = load(machine.memory.view, image, command_line=command_line, initramfs=initramfs, virtio_devices=1)
            regs, sregs = machine.vcpu.get_regs(), machine.vcpu.get_sregs()
            set_registers(entry, regs, sregs)
            machine.vcpu.set_sregs(sregs)
            machine.vcpu.set_regs(regs)
            return cls(host, machine, console, ports, output_limit)
        except BaseException:
            machine.close()
            raise

    @classmethod
    def fork(
        cls,
        host: Host,
        snapshot: Snapshot,
        *,
        twin: int = 1,
        console: Sink | None = None,
        ports: Sequence[Port] = (),
        output_limit: int = OUTPUT_LIMIT,
    ) -> Self:
        """A guest that goes on where the snapshot was taken, and is told that it is another one.

        :param twin: what it reads from the port of that name.
        :raises SnapshotError: the snapshot is of another kind of guest, or of one with other ports, or makes no sense.
        :raises KvmError: KVM refuses.
        """
        if snapshot.manifest.kind != KIND:
            raise SnapshotError(f"{snapshot.path}: a guest of kind {snapshot.manifest.kind!r}, not a kernel guest")
        names = [port.name for port in ports]
        try:
            state = guest_state(snapshot.guest)
        except ValueError as error:
            raise _damaged(snapshot, error) from error
        if state["ports"] != names:
            raise SnapshotError(f"{snapshot.path}: a guest with the ports {state['ports']}, not {names}")
        if snapshot.vcpu.system is None or snapshot.manifest.memory_size < SMALLEST_MEMORY:
            raise SnapshotError(f"{snapshot.path}: not the processor and memory of a kernel guest")
        machine = fork(host, snapshot)
        try:
            guest = cls(host, machine, console, ports, output_limit, twin, state["board"])
            guest._change_generation()
            return guest
        except ValueError as error:
            machine.close()
            raise _damaged(snapshot, error) from error
        except BaseException:
            machine.close()
            raise

    def run(self, timeout: float | None = None) -> Ending | None:
        """Run until the guest ends, for at most ``timeout`` seconds; None if the board was paused, so that it can go on
        with another call.
        """
        if self.board.ending is not None:
            return self.board.ending
        limit = timeout if timeout is not None and timeout < _FOREVER else _FOREVER
        deadline = time.monotonic_ns() + int(limit * 1e9)
        self.board.begin()
        if not self.machine.run(self.board, deadline):
            if self.machine.stopped:
                return Ending(How.STOPPED, 1, "stopped by the host")
            return Ending(How.TIMEOUT, 1, f"not ended after {timeout:g} s")
        return self.board.ending

    def send(self, data: bytes, taken: Callable[[], None] = lambda: None) -> None:
        """Type ``data`` at COM1; from any thread. ``taken`` is called when the UART has it: only then should more come,
        as what waits is kept on the host.
        """
        data = bytes(data)  # what is no bytes is an error here, and not in the thread that runs the guest
        self.board.call(lambda: self.board.receive(data, taken))

    def pause_when_announced(self) -> None:
        """Let :meth:`run` return None when the guest says that now is a good time for a snapshot."""
        self.board.on_announcement = self.board.pause

    def ignore_announcements(self) -> None:
        """Take back :meth:`pause_when_announced`."""
        self.board.on_announcement = lambda: None

    def save(self, path: Path, facts: dict[str, Any] | None = None) -> None:
        """Write a snapshot into the existing folder ``path``. Not while it runs.

        :raises KvmError: the processor's state cannot be read.
        """
        machine = self.machine
        machine.settle(self.board)
        write(
            path,
            kind=KIND,
            processor=self._host.processor,
            memory_limit=machine.memory.limit,
            memory=machine.memory.view,
            hot_size=0,
            vcpu=machine.save_vcpu(),
            guest={"board": self.board.save(), "ports": [port.name for port in self.ports[1:]]},
            facts=facts or {},
        )

    def stop(self) -> None:
        """End the run at once; from any thread."""
        self.machine.stop()

    def close(self) -> None:
        """Destroy the VM; twice is fine."""
        self.board.close()
        self.machine.close()

    def _change_generation(self) -> None:
        memory = self.machine.memory.view
        memory[layout.GENERATION_COUNTER : layout.GENERATION_COUNTER + 16] = os.urandom(16)
        line = self.board.io_apic.line(layout.GENERATION_IRQ)
        line(True)
        line(False)

    def _too_much_output(self) -> None:
        self.board.end(
            Ending(How.OUTPUT_LIMIT, 1, f"it wrote more than {self._output_limit / (1 << 20):g} MiB to its consoles")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<KernelGuest {self.machine!r}>"


def _damaged(snapshot: Snapshot, error: ValueError) -> SnapshotError:
    return SnapshotError(f"{snapshot.path}: the state of its devices makes no sense: {error}")
