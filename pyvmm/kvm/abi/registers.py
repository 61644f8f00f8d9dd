"""The registers of a vCPU: general, special, debug, FPU, XSAVE and extended control (``asm/kvm.h``)."""

from ctypes import Array, c_uint8, c_uint16, c_uint32, c_uint64
from typing import Annotated

from pyvmm.kvm.abi.base import Struct, layout, u8, u16, u32, u64

KVM_NR_INTERRUPTS = 256
KVM_MAX_XCRS = 16

KVM_SREGS2_FLAGS_PDPTRS_VALID = 1


@layout
class KvmRegs(Struct):
    """General registers, KVM_GET_REGS and KVM_SET_REGS."""

    __slots__ = ()
    rax: u64
    rbx: u64
    rcx: u64
    rdx: u64
    rsi: u64
    rdi: u64
    rsp: u64
    rbp: u64
    r8: u64
    r9: u64
    r10: u64
    r11: u64
    r12: u64
    r13: u64
    r14: u64
    r15: u64
    rip: u64
    rflags: u64


@layout
class KvmSegment(Struct):
    """A segment register with its hidden part. ``limit`` is in bytes, whatever ``g`` says."""

    __slots__ = ()
    base: u64
    limit: u32
    selector: u16
    type: u8
    present: u8
    dpl: u8
    db: u8
    s: u8
    l: u8  # noqa: E741 - the header's name
    g: u8
    avl: u8
    unusable: u8
    padding: u8


@layout
class KvmDtable(Struct):
    """GDTR or IDTR."""

    __slots__ = ()
    base: u64
    limit: u16
    padding: Annotated[Array[c_uint16], c_uint16 * 3]


@layout
class KvmSregs(Struct):
    """Special registers, KVM_GET_SREGS and KVM_SET_SREGS. ``interrupt_bitmap`` holds at most one set bit."""

    __slots__ = ()
    cs: KvmSegment
    ds: KvmSegment
    es: KvmSegment
    fs: KvmSegment
    gs: KvmSegment
    ss: KvmSegment
    tr: KvmSegment
    ldt: KvmSegment
    gdt: KvmDtable
    idt: KvmDtable
    cr0: u64
    cr2: u64
    cr3: u64
    cr4: u64
    cr8: u64
    efer: u64
    apic_base: u64
    interrupt_bitmap: Annotated[Array[c_uint64], c_uint64 * ((KVM_NR_INTERRUPTS + 63) // 64)]


@layout
class KvmSregs2(Struct):
    """Special registers with the PAE page-directory pointers, KVM_GET_SREGS2 and KVM_SET_SREGS2."""

    __slots__ = ()
    cs: KvmSegment
    ds: KvmSegment
    es: KvmSegment
    fs: KvmSegment
    gs: KvmSegment
    ss: KvmSegment
    tr: KvmSegment
    ldt: KvmSegment
    gdt: KvmDtable
    idt: KvmDtable
    cr0: u64
    cr2: u64
    cr3: u64
    cr4: u64
    cr8: u64
    efer: u64
    apic_base: u64
    flags: u64
    pdptrs: Annotated[Array[c_uint64], c_uint64 * 4]


@layout
class KvmFpu(Struct):
    """x87 and SSE registers, KVM_GET_FPU and KVM_SET_FPU."""

    __slots__ = ()
    fpr: Annotated[Array[Array[c_uint8]], (c_uint8 * 16) * 8]
    fcw: u16
    fsw: u16
    ftwx: u8
    pad1: u8
    last_opcode: u16
    last_ip: u64
    last_dp: u64
    xmm: Annotated[Array[Array[c_uint8]], (c_uint8 * 16) * 16]
    mxcsr: u32
    pad2: u32


@layout
class KvmXsave(Struct):
    """The XSAVE area. With KVM_CAP_XSAVE2 the kernel may read and write more than this structure: ``extra``."""

    __slots__ = ()
    region: Annotated[Array[c_uint32], c_uint32 * 1024]
    extra: Annotated[Array[c_uint32], c_uint32 * 0]


@layout
class KvmXcr(Struct):
    """One extended control register."""

    __slots__ = ()
    xcr: u32
    reserved: u32
    value: u64


@layout
class KvmXcrs(Struct):
    """Extended control registers, KVM_GET_XCRS and KVM_SET_XCRS; ``nr_xcrs`` of ``xcrs`` are valid."""

    __slots__ = ()
    nr_xcrs: u32
    flags: u32
    xcrs: Annotated[Array[KvmXcr], KvmXcr * KVM_MAX_XCRS]
    padding: Annotated[Array[c_uint64], c_uint64 * 16]


@layout
class KvmDebugregs(Struct):
    """Debug registers, KVM_GET_DEBUGREGS and KVM_SET_DEBUGREGS."""

    __slots__ = ()
    db: Annotated[Array[c_uint64], c_uint64 * 4]
    dr6: u64
    dr7: u64
    flags: u64
    reserved: Annotated[Array[c_uint64], c_uint64 * 9]


@layout
class KvmTranslation(Struct):
    """A guest virtual address and where it leads, KVM_TRANSLATE."""

    __slots__ = ()
    linear_address: u64
    physical_address: u64
    valid: u8
    writeable: u8
    usermode: u8
    pad: Annotated[Array[c_uint8], c_uint8 * 5]
