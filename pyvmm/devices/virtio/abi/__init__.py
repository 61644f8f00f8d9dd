"""Numbers and structures of virtio, by the kernel header that defines them."""
