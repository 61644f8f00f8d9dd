"""The C library functions that this package calls."""

import ctypes
import mmap as _mmap
from ctypes import c_int, c_long, c_size_t, c_ulong, c_void_p

__all__ = ["get_errno", "ioctl", "map_descriptor", "munmap", "overlay_with_zeros"]

# CDLL, not PyDLL: the GIL is released while the kernel works, above all while a guest runs.
_libc = ctypes.CDLL(None, use_errno=True)

get_errno = ctypes.get_errno

ioctl = _libc.ioctl
ioctl.argtypes = (c_int, c_ulong, c_void_p)
ioctl.restype = c_int

munmap = _libc.munmap
munmap.argtypes = (c_void_p, c_size_t)
munmap.restype = c_int

# Python's own mmap module duplicates the descriptor for as long as the mapping lives: one more for each VM.
_libc_mmap = _libc.mmap
_libc_mmap.argtypes = (c_void_p, c_size_t, c_int, c_int, c_int, c_long)
_libc_mmap.restype = c_void_p

_READ_WRITE = _mmap.PROT_READ | _mmap.PROT_WRITE
_MAP_FIXED = 0x10
_MAP_FAILED = c_void_p(-1).value


def map_descriptor(descriptor: int, size: int) -> int:
    """Map the first ``size`` bytes behind a descriptor, shared, for reading and writing.

    Returns the address; raises OSError.
    """
    address: int = _libc_mmap(None, size, _READ_WRITE, _mmap.MAP_SHARED, descriptor, 0)
    if address == _MAP_FAILED:
        errno = get_errno()
        raise OSError(errno, "mmap failed")
    return address


def overlay_with_zeros(address: int, size: int) -> None:
    """Put private zero pages over a mapping; what was mapped there is let go."""
    flags = _mmap.MAP_PRIVATE | _mmap.MAP_ANONYMOUS | _MAP_FIXED
    if _libc_mmap(address, size, _READ_WRITE, flags, -1, 0) == _MAP_FAILED:
        errno = get_errno()
        raise OSError(errno, "mmap failed")
