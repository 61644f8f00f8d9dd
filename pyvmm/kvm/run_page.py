"""The mapping that a vCPU shares with its VMM, and ``KVM_RUN`` bound to it.

Views of the mapping (the memoryview, the structure, slices of either) may outlive the vCPU: someone holds a ``kvm_run``
while another thread closes the fork. Unmapping under such a view would make its next use a segmentation fault. So the
mapping lives as long as the ctypes array at its bottom, to which every view holds a reference. And since a mapping that
stays would keep the vCPU and its whole VM alive in the kernel, ``release()`` replaces what is mapped by zero pages: a
late reader sees zeros, and the VM goes at once.
"""

import ctypes
import errno
import weakref
from collections.abc import Callable
from functools import lru_cache

from pyvmm.kvm import libc
from pyvmm.kvm.abi.exits import KVM_EXIT_INTR
from pyvmm.kvm.abi.run import RUN_EXIT_REASON, KvmRun
from pyvmm.kvm.errors import KvmError
from pyvmm.kvm.ioctls import KVM_RUN

__all__ = ["RunPage", "bind_run"]


@lru_cache(maxsize=8)
def _mapping_type(size: int) -> type[ctypes.Array[ctypes.c_uint8]]:
    """The type of an array that unmaps itself when the last reference to it goes."""
    munmap, addressof = libc.munmap, ctypes.addressof

    class Mapping(ctypes.Array[ctypes.c_uint8]):
        _type_ = ctypes.c_uint8
        _length_ = size

        def __del__(self) -> None:
            munmap(addressof(self), size)

    return Mapping


class RunPage:
    """The mapping of one vCPU: ``view`` (bytes, all of it) and ``kvm_run`` (its first structure)."""

    __slots__ = ("_address", "_mapping", "_size", "kvm_run", "view")

    def __init__(self, fd: int, size: int) -> None:
        try:
            address = libc.map_descriptor(fd, size)
        except OSError as error:
            raise KvmError("mmap", error.errno or errno.EINVAL, "mapping the vCPU's kvm_run") from None
        mapping = _mapping_type(size).from_address(address)
        self._mapping = weakref.ref(mapping)
        self._address = address
        self._size = size
        self.view = memoryview(mapping).cast("B")
        self.kvm_run = KvmRun.from_buffer(mapping)

    def release(self) -> None:
        """Let go of the vCPU: unmap, or, while someone still holds a view, put zeros in its place."""
        del self.view, self.kvm_run
        # Held here, so that it cannot be unmapped (and its addresses reused) before the zeros are in place.
        mapping = self._mapping()
        if mapping is not None:
            libc.overlay_with_zeros(self._address, self._size)


def bind_run(fd: int, view: memoryview) -> tuple[Callable[[], int], Callable[[], None]]:
    """``KVM_RUN`` with everything that it needs bound: the function that runs, and the one that unbinds it.

    The descriptor is a variable of the closure, not an argument or an attribute, so that ``unbind`` reaches callers
    that keep the function: after it they get EBADF, not whatever took over the descriptor's number.
    """
    ioctl = libc.ioctl
    get_errno = libc.get_errno
    request = KVM_RUN.request
    words = view.cast("I")
    index = RUN_EXIT_REASON // 4
    interrupted = (errno.EINTR, errno.EAGAIN)

    def run() -> int:
        """Run the guest until it needs its VMM; see ``Vcpu.run``."""
        if ioctl(fd, request, None) == 0:
            return words[index]
        number = get_errno()
        if number in interrupted:
            return KVM_EXIT_INTR
        raise KvmError("KVM_RUN", number)

    def unbind() -> None:
        nonlocal fd
        fd = -1

    return run, unbind
