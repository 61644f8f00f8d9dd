"""``linux/virtio_config.h``, ``linux/virtio_ids.h``: device status, features of all devices, device types."""

VIRTIO_CONFIG_S_ACKNOWLEDGE = 1
VIRTIO_CONFIG_S_DRIVER = 2
VIRTIO_CONFIG_S_DRIVER_OK = 4
VIRTIO_CONFIG_S_FEATURES_OK = 8
VIRTIO_CONFIG_S_NEEDS_RESET = 0x40
VIRTIO_CONFIG_S_FAILED = 0x80

#: Numbers of bits.
VIRTIO_F_VERSION_1 = 32

VIRTIO_ID_CONSOLE = 3
