"""``linux/virtio_ring.h``: split virtqueues; virtio 1.2 §2.7.

Structures are in the host's byte order, which on x86 is the little-endian one of virtio: ``struct`` then moves each
field with one instruction, so that a 16-bit index which another processor writes is never read in halves.
"""

import struct

VRING_DESC_F_NEXT = 1
VRING_DESC_F_WRITE = 2
VRING_DESC_F_INDIRECT = 4

VRING_USED_F_NO_NOTIFY = 1
VRING_AVAIL_F_NO_INTERRUPT = 1

#: Numbers of bits.
VIRTIO_RING_F_INDIRECT_DESC = 28
VIRTIO_RING_F_EVENT_IDX = 29

VRING_DESC_ALIGN_SIZE = 16
VRING_AVAIL_ALIGN_SIZE = 2
VRING_USED_ALIGN_SIZE = 4

#: ``struct vring_desc``: addr, len, flags, next.
VRING_DESC = struct.Struct("QIHH")
