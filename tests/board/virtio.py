"""A driver of the virtio console's port 0: the test lays the rings out, straight code of the guest turns them on."""

import struct
from collections.abc import Sequence

from pyvmm.boot import layout
from pyvmm.devices.virtio.abi import virtio_mmio as mm
from pyvmm.kernel_guest import KernelGuest
from tests.board.programs import poke

QUEUE_SIZE = 8
RECEIVE, TRANSMIT, BUFFERS = 0x500000, 0x501000, 0x510000
DESCRIPTORS, AVAILABLE, USED = 0x000, 0x100, 0x200
NOTIFY = layout.VIRTIO + mm.VIRTIO_MMIO_QUEUE_NOTIFY


def _register(register: int, value: int) -> bytes:
    return poke(layout.VIRTIO + register, value)


def _queue(number: int, page: int) -> bytes:
    return b"".join(
        _register(register, value)
        for register, value in (
            (mm.VIRTIO_MMIO_QUEUE_SEL, number),
            (mm.VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE),
            (mm.VIRTIO_MMIO_QUEUE_DESC_LOW, page + DESCRIPTORS),
            (mm.VIRTIO_MMIO_QUEUE_AVAIL_LOW, page + AVAILABLE),
            (mm.VIRTIO_MMIO_QUEUE_USED_LOW, page + USED),
            (mm.VIRTIO_MMIO_QUEUE_READY, 1),
        )
    )


def console_program() -> bytes:
    """Bring the device up with both queues of port 0 and no features but VERSION_1 (virtio 1.2, 3.1.1)."""
    return b"".join(
        (
            _register(mm.VIRTIO_MMIO_STATUS, 3),
            _register(mm.VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
            _register(mm.VIRTIO_MMIO_DRIVER_FEATURES, 1),
            _register(mm.VIRTIO_MMIO_STATUS, 11),
            _queue(0, RECEIVE),
            _queue(1, TRANSMIT),
            _register(mm.VIRTIO_MMIO_STATUS, 15),
        )
    )


def ring(guest: KernelGuest, buffers: Sequence[tuple[int, int]], page: int = TRANSMIT, available: bool = True) -> None:
    """Lay out descriptors for these buffers (address, bytes), the device's to write in RECEIVE, in that order."""
    memory = guest.machine.memory.view
    flags = 2 if page == RECEIVE else 0
    for number, (address, size) in enumerate(buffers):
        struct.pack_into("<QIHH", memory, page + DESCRIPTORS + 16 * number, address, size, flags, 0)
        struct.pack_into("<H", memory, page + AVAILABLE + 4 + 2 * number, number)
    struct.pack_into("<HH", memory, page + AVAILABLE, 0, len(buffers) if available else 0)
