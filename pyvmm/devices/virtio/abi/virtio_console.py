"""``linux/virtio_console.h``: virtio 1.2 §5.3."""

import struct

#: Numbers of bits.
VIRTIO_CONSOLE_F_SIZE = 0
VIRTIO_CONSOLE_F_MULTIPORT = 1
VIRTIO_CONSOLE_F_EMERG_WRITE = 2

VIRTIO_CONSOLE_BAD_ID = 0xFFFF_FFFF

#: ``struct virtio_console_config``: cols, rows, max_nr_ports, emerg_wr.
VIRTIO_CONSOLE_CONFIG = struct.Struct("<HHII")
#: Where ``emerg_wr`` is in it.
EMERG_WR = 8

#: ``struct virtio_console_control``: id, event, value.
VIRTIO_CONSOLE_CONTROL = struct.Struct("<IHH")
#: ``struct virtio_console_resize``: cols, rows.
VIRTIO_CONSOLE_RESIZE_SIZE = struct.Struct("<HH")

VIRTIO_CONSOLE_DEVICE_READY = 0
VIRTIO_CONSOLE_PORT_ADD = 1
VIRTIO_CONSOLE_PORT_REMOVE = 2
VIRTIO_CONSOLE_PORT_READY = 3
VIRTIO_CONSOLE_CONSOLE_PORT = 4
VIRTIO_CONSOLE_RESIZE = 5
VIRTIO_CONSOLE_PORT_OPEN = 6
VIRTIO_CONSOLE_PORT_NAME = 7
