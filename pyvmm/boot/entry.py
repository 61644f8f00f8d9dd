"""The state in which a kernel guest's processor begins.

Three modes, each as its convention has it: flat real mode as a PC's firmware enters a boot sector, 32-bit protected
mode as PVH (Xen ``docs/misc/pvh.pandoc``), 64-bit long mode as Linux's 64-bit boot protocol
(``Documentation/arch/x86/boot.rst``). Registers that these leave open are zero, but for the stack pointer: below what
the kernel is told lies a stack of some 26 KiB.
"""

import struct
from dataclasses import dataclass
from enum import Enum

from pyvmm.boot.layout import BOOT_GDT, BOOT_PAGE_TABLES, BOOT_PARAMS, FLAT_PROGRAM
from pyvmm.kvm.abi.registers import KvmDtable, KvmRegs, KvmSegment, KvmSregs

CR0_PE, CR0_ET, CR0_NE, CR0_PG = 1 << 0, 1 << 4, 1 << 5, 1 << 31
CR4_PAE = 1 << 5
EFER_LME, EFER_LMA = 1 << 8, 1 << 10
RFLAGS_FIXED = 1 << 1

#: Linux's selectors (``arch/x86/include/asm/segment.h``): the second and third descriptor. The fourth is a TSS.
BOOT_CS, BOOT_DS, BOOT_TSS = 0x10, 0x18, 0x20
_CODE, _DATA, _BUSY_TSS = 11, 3, 11
_TSS_LIMIT = 0x67

_PRESENT, _WRITABLE, _LARGE = 1 << 0, 1 << 1, 1 << 7
_GIBIBYTES = 4


class Mode(Enum):
    """What the processor is in at the first instruction."""

    REAL = "16-bit real mode"
    PROTECTED = "32-bit protected mode"
    LONG = "64-bit long mode"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a guest begins: the physical address of its first instruction, and the mode."""

    mode: Mode
    address: int


def set_registers(entry: Entry, regs: KvmRegs, sregs: KvmSregs) -> None:
    """Give ``regs`` and ``sregs``, which are those of a vCPU after its reset, the state for ``entry``.

    What belongs to the machine (``apic_base``) stays.
    """
    stack = FLAT_PROGRAM if entry.mode is Mode.REAL else BOOT_PARAMS
    # Linux looks for boot_params in RSI, PVH for hvm_start_info in EBX.
    rsi, rbx = {Mode.REAL: (0, 0), Mode.PROTECTED: (0, BOOT_PARAMS), Mode.LONG: (BOOT_PARAMS, 0)}[entry.mode]
    for name, *_ in KvmRegs._fields_:
        setattr(regs, name, 0)
    regs.rip, regs.rsp, regs.rflags, regs.rsi, regs.rbx = entry.address, stack, RFLAGS_FIXED, rsi, rbx
    if entry.mode is Mode.REAL:
        # After a reset CS's base is 0xffff0000; the other segments begin at 0 already.
        sregs.cs.selector, sregs.cs.base = 0, 0
        return
    long = entry.mode is Mode.LONG
    sregs.cs = _flat(BOOT_CS, _CODE, long=long)
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = _flat(BOOT_DS, _DATA, long=False)
    # Entering a guest in protected mode wants a task register that could be one; nothing uses it.
    sregs.tr = KvmSegment(selector=BOOT_TSS, limit=_TSS_LIMIT, type=_BUSY_TSS, present=1)
    sregs.gdt = KvmDtable(base=BOOT_GDT, limit=len(_gdt(long)) - 1)
    sregs.idt = KvmDtable(base=0, limit=0)
    sregs.cr0 = CR0_PE | CR0_ET | CR0_NE
    sregs.cr4 = sregs.efer = sregs.cr3 = 0
    if long:
        sregs.cr0 |= CR0_PG
        sregs.cr3, sregs.cr4, sregs.efer = BOOT_PAGE_TABLES, CR4_PAE, EFER_LME | EFER_LMA


def write_tables(memory: memoryview, mode: Mode) -> None:
    """Put what the state refers to into guest memory: the GDT, and for long mode the page tables."""
    if mode is Mode.REAL:
        return
    gdt = _gdt(mode is Mode.LONG)
    memory[BOOT_GDT : BOOT_GDT + len(gdt)] = gdt
    if mode is Mode.LONG:
        tables = _identity()
        memory[BOOT_PAGE_TABLES : BOOT_PAGE_TABLES + len(tables)] = tables


def _flat(selector: int, type_: int, *, long: bool) -> KvmSegment:
    """A segment of 4 GiB from address 0."""
    return KvmSegment(
        selector=selector,
        base=0,
        limit=0xFFFF_FFFF,
        type=type_,
        present=1,
        s=1,
        db=not long,
        l=long,
        g=1,
    )


def _gdt(long: bool) -> bytes:
    """Descriptors that say the same as the segments' hidden parts."""
    code = 0x00AF_9B00_0000_FFFF if long else 0x00CF_9B00_0000_FFFF
    data = 0x00CF_9300_0000_FFFF
    # In long mode a TSS takes two.
    return struct.pack("<6Q", 0, 0, code, data, 0x0000_8B00_0000_0000 | _TSS_LIMIT, 0)


def _identity() -> bytes:
    """PML4, PDPT and page directories that map the first 4 GiB onto themselves by 2 MiB pages."""
    table = BOOT_PAGE_TABLES
    flags = _PRESENT | _WRITABLE
    pml4 = struct.pack("<Q", table + 0x1000 | flags).ljust(4096, b"\0")
    directories = [table + 0x2000 + 0x1000 * number | flags for number in range(_GIBIBYTES)]
    pdpt = struct.pack(f"<{_GIBIBYTES}Q", *directories).ljust(4096, b"\0")
    pages = range(0, _GIBIBYTES << 30, 2 << 20)
    return pml4 + pdpt + struct.pack(f"<{len(pages)}Q", *(page | flags | _LARGE for page in pages))
