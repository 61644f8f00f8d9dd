"""Where things are: the map of a process guest's memory.

Virtual addresses (48 bits, lower half; the upper half is empty)::

    0x0000_0000_0001_0000   lowest mapping (vm.mmap_min_addr)
    0x0000_5555_5555_4000   position-independent executables, then the heap (brk)
    ...
    0x0000_7fff_f7ff_f000   mmap area, growing downwards from here
    0x0000_7fff_ff7f_f000   top of the stack, 8 MiB
    0x0000_7fff_ffe0_0000   TASK_SIZE: user mappings end here
    0x0000_7fff_ffe0_0000   the monitor's own pages (SYSTEM_*), one page table of them
    0x0000_8000_0000_0000   end of the lower half

The monitor's pages; ``U`` marks what ring 3 can see (and nothing of them can ring 3 write)::

    SYSTEM_BASE + 0x0000   GDT and TSS
                + 0x1000   IDT
                + 0x2000   exception stack (IST1)
                + 0x3000   stub code       U  read, execute
                + 0x4000   return frame    U  read: what the stub's IRETQ pops
                + 0x5000   exception handlers

Physical memory is a plain array of frames handed out by :mod:`pyvmm.linux.frames`; the monitor's pages are the
first ones.
"""

PAGE_SIZE = 4096
PAGE_SHIFT = 12
PAGE_MASK = 0xFFF

MMAP_MIN_ADDR = 0x1_0000
EXEC_BASE = 0x5555_5555_4000
INTERPRETER_BASE = 0x7FFF_F7E0_0000
MMAP_TOP = 0x7FFF_F7FF_F000
STACK_TOP = 0x7FFF_FF7F_F000
STACK_SIZE = 8 << 20
TASK_SIZE = 0x7FFF_FFE0_0000

SYSTEM_BASE = TASK_SIZE
GDT_ADDRESS = SYSTEM_BASE
TSS_ADDRESS = SYSTEM_BASE + 0x800
IDT_ADDRESS = SYSTEM_BASE + 0x1000
EXCEPTION_STACK_TOP = SYSTEM_BASE + 0x3000
STUB_ADDRESS = SYSTEM_BASE + 0x3000
RETURN_FRAME_ADDRESS = SYSTEM_BASE + 0x4000
HANDLERS_ADDRESS = SYSTEM_BASE + 0x5000

#: Physical addresses of the same pages.
GDT_FRAME = 0x0000
IDT_FRAME = 0x1000
EXCEPTION_STACK_FRAME = 0x2000
STUB_FRAME = 0x3000
RETURN_FRAME_FRAME = 0x4000
HANDLERS_FRAME = 0x5000
SYSTEM_FRAMES = 6


def page_down(address: int) -> int:
    """``address`` rounded down to a page."""
    return address & ~PAGE_MASK


def page_up(address: int) -> int:
    """``address`` rounded up to a page."""
    return (address + PAGE_MASK) & ~PAGE_MASK
