"""CPUID leaves and model-specific registers (``asm/kvm.h``)."""

from collections.abc import Mapping
from ctypes import Array, c_uint32
from typing import Annotated, ClassVar, Self

from pyvmm.kvm.abi.base import FlexibleStruct, Struct, layout, u32, u64

KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1 << 0
"""The leaf has subleaves: ``index`` (ECX) counts. (The kernel's spelling.)"""
KVM_CPUID_FLAG_STATEFUL_FUNC = 1 << 1
KVM_CPUID_FLAG_STATE_READ_NEXT = 1 << 2


@layout
class KvmCpuidEntry2(Struct):
    """One CPUID leaf (``function`` is EAX, ``index`` ECX) and what it answers."""

    __slots__ = ()
    function: u32
    index: u32
    flags: u32
    eax: u32
    ebx: u32
    ecx: u32
    edx: u32
    padding: Annotated[Array[c_uint32], c_uint32 * 3]


@layout
class KvmCpuid2(FlexibleStruct):
    """The CPUID leaves of a vCPU, KVM_SET_CPUID2; may be given to any number of vCPUs."""

    __slots__ = ()
    _count_: ClassVar[str] = "nent"
    nent: u32
    padding: u32
    entries: Annotated[Array[KvmCpuidEntry2], KvmCpuidEntry2 * 0]


@layout
class KvmMsrEntry(Struct):
    """A model-specific register: its number and its value."""

    __slots__ = ()
    index: u32
    reserved: u32
    data: u64


@layout
class KvmMsrs(FlexibleStruct):
    """Model-specific registers, KVM_GET_MSRS and KVM_SET_MSRS; may be given to any number of vCPUs."""

    __slots__ = ()
    _count_: ClassVar[str] = "nmsrs"
    nmsrs: u32
    pad: u32
    entries: Annotated[Array[KvmMsrEntry], KvmMsrEntry * 0]

    @classmethod
    def from_values(cls, values: Mapping[int, int]) -> Self:
        """From ``{index: value}``, in the order of the mapping (the kernel sets them one after the other)."""
        return cls.from_entries(KvmMsrEntry(index, 0, value) for index, value in values.items())

    def values(self) -> dict[int, int]:
        """As ``{index: value}``."""
        return {entry.index: entry.data for entry in self.entries}


@layout
class KvmMsrList(FlexibleStruct):
    """Numbers of model-specific registers, KVM_GET_MSR_INDEX_LIST."""

    __slots__ = ()
    _count_: ClassVar[str] = "nmsrs"
    nmsrs: u32
    indices: Annotated[Array[c_uint32], c_uint32 * 0]
