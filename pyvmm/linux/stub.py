"""The monitor's code and tables inside a process guest: how its system calls and exceptions come out, and how it
goes on.

Linux's own selectors are used, so that a program that looks at CS and SS sees what it expects. The stub has no
privileged instruction but ``OUT``, because ``SYSCALL`` arrives at LSTAR in ring 0 on hardware and still in ring 3
on ``kvm_pvm``:

* system call:  ``LSTAR: out PORT_SYSCALL, al ; iretq``
* exception v:  ``HANDLERS_ADDRESS + 4 v: out PORT_EXCEPTION, al``   (ring 0, on IST1: the processor has pushed the
  frame)

In ring 3 the ``out`` is allowed by the I/O permission bitmap of the TSS, which opens PORT_SYSCALL and nothing else.
Hardware does not look at it in the stub (ring 0 may use any port); a program's own ``out`` is an exit on both, or
#GP, and a SIGSEGV either way.

The monitor tells the two, and a program's own ``OUT``, apart by RIP alone; ring 3 cannot jump to the handlers,
their page is not its own. To go on it writes an IRETQ frame into the return-frame page, points RSP there, and lets
the ``iretq`` after the ``out`` pop it; that is one path for system calls, faults, signals and ``execve``. A program
can read that page and the stub but write neither, and the stub touches no stack of the program's.

Sources: AMD64 Architecture Programmer's Manual volume 2, 8.9 (interrupts in long mode) and 12.2.5 (TSS); Intel SDM
volume 3, 6.14.
"""

import struct

from pyvmm.linux import layout
from pyvmm.linux.pagetable import PTE_NX, PTE_P, PTE_U, PTE_W, PageTable

KERNEL_CS = 0x10
KERNEL_SS = 0x18
USER_SS = 0x2B
USER_CS = 0x33
TSS_SELECTOR = 0x40

#: RFLAGS that a program may have: CF PF AF ZF SF TF DF OF NT AC ID. IOPL, VM, VIF, VIP and RF are not its own.
USER_RFLAGS = 0x0024_4DD5
#: RFLAGS that are always set while a program runs: IF and the reserved bit 1.
FIXED_RFLAGS = 0x202

STAR = ((USER_CS - 0x10) << 48) | (KERNEL_CS << 32)
LSTAR = layout.STUB_ADDRESS
#: What SYSCALL clears, as Linux has it (``syscall_init``): nothing a program has set may act inside the stub.
SYSCALL_MASK = 0x0025_7FD5

CR0 = 0x8005_0033  # PG AM WP NE ET MP PE
CR4 = 0x0000_0620  # OSXMMEXCPT OSFXSR PAE
CR4_OSXSAVE = 0x0004_0000
EFER = 0x0000_0D01  # NXE LMA LME SCE

#: A 64-bit TSS, its I/O permission bitmap for the ports below 0x58, and the byte of ones that must follow.
_TSS_SIZE, _TSS_IO_BITMAP_BASE = 0x68, 0x66
TSS_LIMIT = _TSS_SIZE + 0x58 // 8

_PORT_SYSCALL = 0x50
_PORT_EXCEPTION = 0x51

SYSCALL_OUT = layout.STUB_ADDRESS
IRETQ_ADDRESS = layout.STUB_ADDRESS + 2

#: Exceptions that push an error code (AMD64 APM volume 2, table 8-1).
WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})
#: Exceptions that a program may raise with INT n: #BP and #OF, as on Linux.
_USER_GATES = frozenset({3, 4})


def write_system_pages(view: memoryview) -> None:
    """Write GDT, TSS, IDT and the stub to their frames in guest memory."""
    gdt = [0] * 16
    gdt[KERNEL_CS >> 3] = 0x00AF_9B00_0000_FFFF
    gdt[KERNEL_SS >> 3] = 0x00CF_9300_0000_FFFF
    gdt[USER_SS >> 3] = 0x00CF_F300_0000_FFFF
    gdt[USER_CS >> 3] = 0x00AF_FB00_0000_FFFF
    base, limit = layout.TSS_ADDRESS, TSS_LIMIT
    gdt[TSS_SELECTOR >> 3] = (
        limit | (base & 0xFF_FFFF) << 16 | 0x8B << 40 | (base >> 24 & 0xFF) << 56  # type 11: 64-bit TSS, busy
    )
    gdt[(TSS_SELECTOR >> 3) + 1] = base >> 32
    struct.pack_into("<16Q", view, layout.GDT_FRAME, *gdt)

    # RSP0, IST1, and the I/O permission bitmap: of the ports up to its end one is open, those beyond are closed.
    tss = bytearray(TSS_LIMIT + 1)
    struct.pack_into("<IQQQQQ", tss, 0, 0, layout.EXCEPTION_STACK_TOP, 0, 0, 0, layout.EXCEPTION_STACK_TOP)
    struct.pack_into("<H", tss, _TSS_IO_BITMAP_BASE, _TSS_SIZE)
    tss[_TSS_SIZE:] = b"\xff" * (len(tss) - _TSS_SIZE)
    tss[_TSS_SIZE + (_PORT_SYSCALL >> 3)] &= ~(1 << (_PORT_SYSCALL & 7))
    offset = layout.GDT_FRAME + layout.TSS_ADDRESS - layout.GDT_ADDRESS
    view[offset : offset + len(tss)] = tss

    for vector in range(256):
        handler = layout.HANDLERS_ADDRESS + 4 * vector
        gate = 0x8E | (0x60 if vector in _USER_GATES else 0)  # present, 64-bit interrupt gate, DPL
        low = (handler & 0xFFFF) | KERNEL_CS << 16 | 1 << 32 | gate << 40 | (handler >> 16 & 0xFFFF) << 48
        struct.pack_into("<QQ", view, layout.IDT_FRAME + 16 * vector, low, handler >> 32)

    code = bytes((0xE6, _PORT_SYSCALL, 0x48, 0xCF))  # out imm8, al; iretq
    view[layout.STUB_FRAME : layout.STUB_FRAME + len(code)] = code
    code = bytes((0xE6, _PORT_EXCEPTION, 0x0F, 0x0B)) * 256  # out imm8, al; ud2, never reached
    view[layout.HANDLERS_FRAME : layout.HANDLERS_FRAME + len(code)] = code


def map_system_pages(table: PageTable) -> None:
    """Enter the monitor's pages into an address space."""
    kernel, kernel_code = PTE_P | PTE_W | PTE_NX, PTE_P
    user_code, user_data = PTE_P | PTE_U, PTE_P | PTE_U | PTE_NX
    table.map(layout.GDT_ADDRESS, layout.GDT_FRAME >> 12, 3, kernel)
    table.map(layout.STUB_ADDRESS, layout.STUB_FRAME >> 12, 1, user_code)
    table.map(layout.RETURN_FRAME_ADDRESS, layout.RETURN_FRAME_FRAME >> 12, 1, user_data)
    table.map(layout.HANDLERS_ADDRESS, layout.HANDLERS_FRAME >> 12, 1, kernel_code)


def vector_at(rip: int) -> int | None:
    """The exception vector whose handler's ``out`` lies at ``rip``, or None.

    An ``out`` that is emulated leaves RIP behind it, one that is not leaves it there.
    """
    offset = rip - layout.HANDLERS_ADDRESS
    return offset >> 2 if 0 <= offset < 1024 else None
