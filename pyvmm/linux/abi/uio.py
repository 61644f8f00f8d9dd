"""``linux/uio.h``: buffers in several pieces."""

import struct

#: ``struct iovec``: base, length.
IOVEC = struct.Struct("<QQ")
