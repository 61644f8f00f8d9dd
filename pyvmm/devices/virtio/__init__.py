"""Virtio devices (Virtual I/O Device version 1.2) on the memory-mapped transport.

``queue`` are split virtqueues, ``mmio`` the registers that a driver sees, ``console`` a device with its ports. A device
knows its queues and its configuration space; the transport knows status, features and the interrupt.
"""
