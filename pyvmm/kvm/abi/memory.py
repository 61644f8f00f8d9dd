"""Memory slots and their dirty logs (``linux/kvm.h``)."""

from ctypes import c_uint64, c_void_p
from typing import TYPE_CHECKING, Annotated

from pyvmm.kvm.abi.base import Struct, Union, layout, u32, u64

KVM_MEM_LOG_DIRTY_PAGES = 1 << 0
KVM_MEM_READONLY = 1 << 1

KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1 << 0
KVM_DIRTY_LOG_INITIALLY_SET = 1 << 1


@layout
class KvmUserspaceMemoryRegion(Struct):
    """A piece of guest physical memory and the host memory behind it, KVM_SET_USER_MEMORY_REGION."""

    __slots__ = ()
    slot: u32
    flags: u32
    guest_phys_addr: u64
    memory_size: u64
    userspace_addr: u64


@layout
class DirtyBitmap(Union):
    """Where the bitmap is, in host memory."""

    __slots__ = ()
    dirty_bitmap: Annotated[int | None, c_void_p]
    padding2: Annotated[int, c_uint64]


@layout
class KvmDirtyLog(Struct):
    """Which pages of a slot were written, KVM_GET_DIRTY_LOG."""

    __slots__ = ()
    _anonymous_ = ("bitmap",)
    slot: u32
    padding1: u32
    bitmap: DirtyBitmap
    if TYPE_CHECKING:
        dirty_bitmap: int | None


@layout
class KvmClearDirtyLog(Struct):
    """Pages of a slot whose dirty bits go, KVM_CLEAR_DIRTY_LOG."""

    __slots__ = ()
    _anonymous_ = ("bitmap",)
    slot: u32
    num_pages: u32
    first_page: u64
    bitmap: DirtyBitmap
    if TYPE_CHECKING:
        dirty_bitmap: int | None
