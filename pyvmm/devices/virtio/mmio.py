"""The memory-mapped transport, register layout version 2 (virtio 1.2 §4.2), and the initialisation of a device (§3.1).

The registers of a device take ``WINDOW`` bytes. They are 32 bits wide: any other access to them reads 0 and writes
nothing. The same holds for registers that are not there, for reading what can only be written, and the other way round.

What the driver may write depends on the status. Features: between DRIVER and FEATURES_OK. The size and addresses of
queues: between FEATURES_OK and DRIVER_OK, while the queue is not ready; so nobody moves rings that are in use. A queue
that cannot be used, or an index in a ring that jumps, sets DEVICE_NEEDS_RESET: the device then does nothing until the
driver resets it. Everything else that a driver must not do is ignored and counted.

Not here: the legacy layout, shared memory regions, VIRTIO_F_RING_RESET, VIRTIO_F_NOTIFICATION_DATA.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypedDict

from pyvmm.devices.bus import IrqLine
from pyvmm.devices.virtio.abi.virtio_config import (
    VIRTIO_CONFIG_S_ACKNOWLEDGE,
    VIRTIO_CONFIG_S_DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
)
from pyvmm.devices.virtio.abi.virtio_mmio import (
    VIRTIO_MMIO_CONFIG,
    VIRTIO_MMIO_CONFIG_GENERATION,
    VIRTIO_MMIO_DEVICE_FEATURES,
    VIRTIO_MMIO_DEVICE_FEATURES_SEL,
    VIRTIO_MMIO_DEVICE_ID,
    VIRTIO_MMIO_DRIVER_FEATURES,
    VIRTIO_MMIO_DRIVER_FEATURES_SEL,
    VIRTIO_MMIO_INT_CONFIG,
    VIRTIO_MMIO_INT_VRING,
    VIRTIO_MMIO_INTERRUPT_ACK,
    VIRTIO_MMIO_INTERRUPT_STATUS,
    VIRTIO_MMIO_MAGIC_VALUE,
    VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
    VIRTIO_MMIO_QUEUE_AVAIL_LOW,
    VIRTIO_MMIO_QUEUE_DESC_HIGH,
    VIRTIO_MMIO_QUEUE_DESC_LOW,
    VIRTIO_MMIO_QUEUE_NOTIFY,
    VIRTIO_MMIO_QUEUE_NUM,
    VIRTIO_MMIO_QUEUE_NUM_MAX,
    VIRTIO_MMIO_QUEUE_READY,
    VIRTIO_MMIO_QUEUE_SEL,
    VIRTIO_MMIO_QUEUE_USED_HIGH,
    VIRTIO_MMIO_QUEUE_USED_LOW,
    VIRTIO_MMIO_SHM_BASE_HIGH,
    VIRTIO_MMIO_SHM_BASE_LOW,
    VIRTIO_MMIO_SHM_LEN_HIGH,
    VIRTIO_MMIO_SHM_LEN_LOW,
    VIRTIO_MMIO_STATUS,
    VIRTIO_MMIO_VENDOR_ID,
    VIRTIO_MMIO_VERSION,
)
from pyvmm.devices.virtio.abi.virtio_ring import VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC
from pyvmm.devices.virtio.queue import Queue, QueueState

__all__ = ["WINDOW", "MmioState", "VirtioDevice", "VirtioMmio"]

#: Bytes of address space: the registers, and as much for the configuration of the device.
WINDOW = 0x200

_MAGIC = int.from_bytes(b"virt", "little")
_VENDOR = int.from_bytes(b"pyvm", "little")
_TRANSPORT_FEATURES = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX

#: The steps of a driver; each needs all that are before it.
_STEPS = (
    VIRTIO_CONFIG_S_ACKNOWLEDGE,
    VIRTIO_CONFIG_S_DRIVER,
    VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_DRIVER_OK,
)
_STOPPED = VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED

#: Registers that hold half of a ring's address: attribute of the queue, and the shift of the half.
_ADDRESSES = {
    VIRTIO_MMIO_QUEUE_DESC_LOW: ("desc", 0),
    VIRTIO_MMIO_QUEUE_DESC_HIGH: ("desc", 32),
    VIRTIO_MMIO_QUEUE_AVAIL_LOW: ("avail", 0),
    VIRTIO_MMIO_QUEUE_AVAIL_HIGH: ("avail", 32),
    VIRTIO_MMIO_QUEUE_USED_LOW: ("used", 0),
    VIRTIO_MMIO_QUEUE_USED_HIGH: ("used", 32),
}


class MmioState(TypedDict):
    """The transport as plain data."""

    status: int
    driver_features: int
    device_features_sel: int
    driver_features_sel: int
    queue_sel: int
    interrupt_status: int
    config_generation: int
    queues: list[QueueState]
    unfinished: list[int]
    violations: int


class VirtioDevice(Protocol):
    """What a device is to its transport. Nothing that it is called with can be trusted, and it raises nothing."""

    #: VIRTIO_ID_*.
    device_id: int
    #: The device's own features, as bits.
    features: int

    @property
    def queue_sizes(self) -> Sequence[int]:
        """The largest size of each queue: powers of two."""

    def attach(self, transport: "VirtioMmio") -> None:
        """This is the transport; its status and queues may be in any state."""

    def start(self) -> None:
        """The driver is up: the transport is ``running`` from now on."""

    def notify(self, index: int) -> None:
        """The driver made buffers of a queue available; the transport is ``running``."""

    def reset(self) -> None:
        """The driver starts anew."""

    def read_config(self, offset: int, size: int) -> int:
        """Read ``size`` bytes of the configuration; those past its end are 0."""

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Write to the configuration; ignored where there is nothing to write."""


class VirtioMmio:
    """The registers of one virtio device.

    ``ram``: all memory of the guest, from address 0. ``irq``: high while a reason for an interrupt stands; if one
    stands after the driver acknowledged others, the line goes low and high again, for those who wait for an edge.
    """

    def __init__(self, device: VirtioDevice, ram: memoryview, irq: IrqLine, state: MmioState | None = None) -> None:
        self._device = device
        self._irq = irq
        self._offered = device.features | _TRANSPORT_FEATURES
        self.queues = [Queue(ram, size, self.fail) for size in device.queue_sizes]
        self.status = 0
        #: What the driver accepted; final once FEATURES_OK is set.
        self.features = 0
        self._device_features_sel = self._driver_features_sel = self._queue_sel = 0
        self._interrupt_status = self._config_generation = 0
        #: Queues whose driver adds buffers faster than they are used: to be gone on with after the next interrupt.
        self._unfinished: list[int] = []
        #: What drivers did and must not.
        self.violations = 0
        #: Whether the device may touch its queues.
        self.running = False
        if state is not None:
            self._restore(state)
        self._readers: dict[int, Callable[[], int]] = self._make_readers()
        self._writers: dict[int, Callable[[int], None]] = self._make_writers()
        device.attach(self)

    def read(self, offset: int, size: int) -> int:
        """The guest reads a register or the configuration."""
        if offset >= VIRTIO_MMIO_CONFIG:
            return self._device.read_config(offset - VIRTIO_MMIO_CONFIG, size)
        reader = self._readers.get(offset)
        if reader is None or size != 4:
            self.violations += 1
            return 0
        return reader() & 0xFFFF_FFFF

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest writes a register or the configuration."""
        if offset >= VIRTIO_MMIO_CONFIG:
            self._device.write_config(offset - VIRTIO_MMIO_CONFIG, size, value)
            return
        writer = self._writers.get(offset)
        if writer is None or size != 4:
            self.violations += 1
            return
        writer(value)

    def interrupt(self, queue: Queue, before: int) -> None:
        """Tell the driver of the buffers used since the queue's index was ``before``, if it wants to know."""
        if queue.is_interrupt_wanted(before):
            self._raise(VIRTIO_MMIO_INT_VRING)

    def come_back(self, index: int) -> None:
        """Notify the device of this queue again when the driver has acknowledged an interrupt, which is raised now.

        So one notification takes bounded time even if another processor adds buffers all the while.
        """
        if index not in self._unfinished:
            self._unfinished.append(index)
        self._raise(VIRTIO_MMIO_INT_VRING)

    def config_changed(self) -> None:
        """The device changed its configuration (§4.2.2.1: the generation changes with it)."""
        self._config_generation = (self._config_generation + 1) & 0xFFFF_FFFF
        if self.running:
            self._raise(VIRTIO_MMIO_INT_CONFIG)

    def fail(self) -> None:
        """The device cannot go on until it is reset (§2.1.2)."""
        self.violations += 1
        self.running = False
        if not self.status & VIRTIO_CONFIG_S_NEEDS_RESET:
            self.status |= VIRTIO_CONFIG_S_NEEDS_RESET
            if self.status & VIRTIO_CONFIG_S_DRIVER_OK:
                self._raise(VIRTIO_MMIO_INT_CONFIG)

    def _raise(self, reason: int) -> None:
        was = self._interrupt_status
        self._interrupt_status = was | reason
        if not was:
            self._irq(True)

    def _make_readers(self) -> dict[int, Callable[[], int]]:
        return {
            VIRTIO_MMIO_MAGIC_VALUE: lambda: _MAGIC,
            VIRTIO_MMIO_VERSION: lambda: 2,
            VIRTIO_MMIO_DEVICE_ID: lambda: self._device.device_id,
            VIRTIO_MMIO_VENDOR_ID: lambda: _VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES: self._read_features,
            VIRTIO_MMIO_QUEUE_NUM_MAX: lambda: queue.size_max if (queue := self._selected()) else 0,
            VIRTIO_MMIO_QUEUE_READY: lambda: int(queue.ready) if (queue := self._selected()) else 0,
            VIRTIO_MMIO_INTERRUPT_STATUS: lambda: self._interrupt_status,
            VIRTIO_MMIO_STATUS: lambda: self.status,
            # No region of shared memory is there: -1 each (§4.2.2.1).
            VIRTIO_MMIO_SHM_LEN_LOW: lambda: -1,
            VIRTIO_MMIO_SHM_LEN_HIGH: lambda: -1,
            VIRTIO_MMIO_SHM_BASE_LOW: lambda: -1,
            VIRTIO_MMIO_SHM_BASE_HIGH: lambda: -1,
            VIRTIO_MMIO_CONFIG_GENERATION: lambda: self._config_generation,
        }

    def _make_writers(self) -> dict[int, Callable[[int], None]]:
        writers: dict[int, Callable[[int], None]] = {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL: lambda value: setattr(self, "_device_features_sel", value),
            VIRTIO_MMIO_DRIVER_FEATURES: self._write_features,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL: lambda value: setattr(self, "_driver_features_sel", value),
            VIRTIO_MMIO_QUEUE_SEL: lambda value: setattr(self, "_queue_sel", value),
            VIRTIO_MMIO_QUEUE_NUM: self._write_queue_num,
            VIRTIO_MMIO_QUEUE_READY: self._write_queue_ready,
            VIRTIO_MMIO_QUEUE_NOTIFY: self._notify,
            VIRTIO_MMIO_INTERRUPT_ACK: self._acknowledge,
            VIRTIO_MMIO_STATUS: self._write_status,
        }
        for register, (ring, shift) in _ADDRESSES.items():
            writers[register] = partial(self._write_address, ring, shift)
        return writers

    def _read_features(self) -> int:
        return self._offered >> 32 * self._device_features_sel if self._device_features_sel < 2 else 0

    def _write_features(self, value: int) -> None:
        settled = self.status & (VIRTIO_CONFIG_S_FEATURES_OK | _STOPPED)
        if settled or not self.status & VIRTIO_CONFIG_S_DRIVER or self._driver_features_sel > 1:
            self.violations += 1
            return
        shift = 32 * self._driver_features_sel
        self.features = self.features & ~(0xFFFF_FFFF << shift) | value << shift

    def _write_status(self, value: int) -> None:
        if not value:
            self._reset()
            return
        # A driver need not write DEVICE_NEEDS_RESET back; no other bit may be cleared.
        kept = self.status & ~VIRTIO_CONFIG_S_NEEDS_RESET
        if kept & ~value or self.status & VIRTIO_CONFIG_S_FAILED:
            self.violations += 1
            return
        status = self.status | value & VIRTIO_CONFIG_S_FAILED
        for step in _STEPS:
            if value & step and not status & step and not self._may_step(status, step):
                self.violations += 1
                break
            status |= value & step
        was, self.status = self.running, status
        self.running = bool(status & VIRTIO_CONFIG_S_DRIVER_OK) and not status & _STOPPED
        if self.running and not was:
            self._device.start()
            # A driver must not notify before (§3.1.1). One that does is heard now, or it would wait for ever.
            for index, queue in enumerate(self.queues):
                if queue.pending():
                    self._device.notify(index)

    def _may_step(self, status: int, step: int) -> bool:
        """Whether a driver whose device is in ``status`` may set ``step``."""
        before = sum(_STEPS[: _STEPS.index(step)])
        if status & before != before or status & _STOPPED:
            return False
        if step != VIRTIO_CONFIG_S_FEATURES_OK:
            return True
        return bool(self.features >> VIRTIO_F_VERSION_1 & 1) and not self.features & ~self._offered

    def _reset(self) -> None:
        self.status = self.features = 0
        self.running = False
        self._device_features_sel = self._driver_features_sel = self._queue_sel = 0
        for queue in self.queues:
            queue.reset()
        self._unfinished.clear()
        self._interrupt_status = 0
        self._irq(False)
        self._device.reset()

    def _selected(self) -> Queue | None:
        return self.queues[self._queue_sel] if self._queue_sel < len(self.queues) else None

    def _configurable(self) -> Queue | None:
        """The selected queue, if the driver may set it up now."""
        queue = self._selected()
        settled = self.status & (VIRTIO_CONFIG_S_DRIVER_OK | _STOPPED)
        if queue is None or queue.ready or settled or not self.status & VIRTIO_CONFIG_S_FEATURES_OK:
            self.violations += 1
            return None
        return queue

    def _write_queue_num(self, value: int) -> None:
        if queue := self._configurable():
            queue.size = value

    def _write_address(self, ring: str, shift: int, value: int) -> None:
        if queue := self._configurable():
            setattr(queue, ring, getattr(queue, ring) & ~(0xFFFF_FFFF << shift) | value << shift)

    def _write_queue_ready(self, value: int) -> None:
        if value == 1:
            if (queue := self._configurable()) and not self._start(queue):
                self.fail()
        elif value == 0 and (queue := self._selected()):
            # A driver may take a queue back at any time and reads 0 when the device let go of it (§4.2.2.2).
            queue.stop()
        else:
            self.violations += 1

    def _start(self, queue: Queue) -> bool:
        return queue.start(self._has(VIRTIO_RING_F_INDIRECT_DESC), self._has(VIRTIO_RING_F_EVENT_IDX))

    def _has(self, feature: int) -> bool:
        return bool(self.features >> feature & 1)

    def _notify(self, index: int) -> None:
        if index < len(self.queues) and self.running and self.queues[index].ready:
            self._device.notify(index)
        else:
            self.violations += 1

    def _acknowledge(self, reasons: int) -> None:
        was = self._interrupt_status
        self._interrupt_status = left = was & ~reasons
        if was:
            self._irq(False)
            if left:
                self._irq(True)
        if self._unfinished:
            queues, self._unfinished = self._unfinished, []
            for index in queues:
                if self.running and self.queues[index].ready:
                    self._device.notify(index)

    def save(self) -> MmioState:
        """The transport and its queues as plain data, without the device, which saves itself."""
        return {
            "status": self.status,
            "driver_features": self.features,
            "device_features_sel": self._device_features_sel,
            "driver_features_sel": self._driver_features_sel,
            "queue_sel": self._queue_sel,
            "interrupt_status": self._interrupt_status,
            "config_generation": self._config_generation,
            "queues": [queue.save() for queue in self.queues],
            "unfinished": list(self._unfinished),
            "violations": self.violations,
        }

    def _restore(self, state: MmioState) -> None:
        if len(state["queues"]) != len(self.queues):
            raise ValueError(f"a state of {len(state['queues'])} queues for a device of {len(self.queues)}")
        if any(index >= len(self.queues) for index in state["unfinished"]):
            raise ValueError("unfinished work on a queue that is not there")
        self.status, self.features = state["status"], state["driver_features"]
        self._device_features_sel, self._driver_features_sel = (
            state["device_features_sel"],
            state["driver_features_sel"],
        )
        self._queue_sel = state["queue_sel"]
        self._interrupt_status, self._config_generation = state["interrupt_status"], state["config_generation"]
        self._unfinished, self.violations = list(state["unfinished"]), state["violations"]
        for queue, saved in zip(self.queues, state["queues"], strict=True):
            queue.restore(saved, self._has(VIRTIO_RING_F_INDIRECT_DESC), self._has(VIRTIO_RING_F_EVENT_IDX))
        self.running = bool(self.status & VIRTIO_CONFIG_S_DRIVER_OK) and not self.status & _STOPPED
        if self._interrupt_status:
            self._irq(True)

    def __repr__(self) -> str:
        return f"<VirtioMmio of device {self._device.device_id}, status {self.status:#x}>"
