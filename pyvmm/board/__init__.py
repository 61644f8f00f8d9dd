"""The machine of a kernel guest: devices on their buses, interrupts, power, and the guest made of them."""
