"""The map of a kernel guest's machine: physical addresses, ports and interrupt lines.

::

    physical address
    0x0000_0000  ┬ real-mode vectors
    0x0000_0500  │ GDT of the entry state
    0x0000_7000  │ boot_params ("zero page"), or PVH's hvm_start_info; below it a stack
    0x0000_7c00  │ a flat real-mode program, which has the rest of low memory for itself
    0x0000_9000  │ page tables of the entry state: one to one, the first 4 GiB
    0x0002_0000  │ command line
    0x0009_fc00  ┼ generation counter of the VM, reserved
    0x000a_0000  ┼ hole (VGA, option ROMs)
    0x000e_0000  ┼ ACPI tables, RSDP first
    0x000f_fff0  │ what a jump to the firmware's start finds: a reset
    0x0010_0000  ┼ kernel, and the initramfs at the end of memory
    memory size  ┼ nothing; all ones are read
    0xd000_0000  ┼ virtio-mmio devices, one to a page
    0xfec0_0000  ┼ I/O APIC
    0xfee0_0000  ┼ local APIC (in KVM)
    0x1_0000_0000┴

    port            interrupt line (input of the I/O APIC)
    0x0f4   exit    4   COM1
    0x0f5   twin    5…  virtio devices, in their order
    0x3f8   COM1    20  generation counter
    0x600   power

Memory lies in one piece from address 0, so a physical address is an offset into it. At port ``0x600`` are the registers
that the FADT of a hardware-reduced ACPI names: sleep control, sleep status, reset.
"""

__all__ = [
    "ACPI_TABLES",
    "ACPI_TABLES_END",
    "BOOT_GDT",
    "BOOT_PAGE_TABLES",
    "BOOT_PARAMS",
    "COM1",
    "COM1_IRQ",
    "COMMAND_LINE",
    "COMMAND_LINE_SIZE",
    "EXIT_PORT",
    "FLAT_PROGRAM",
    "GENERATION_COUNTER",
    "GENERATION_IRQ",
    "HIGH_MEMORY",
    "IOAPIC",
    "IOAPIC_PINS",
    "IOAPIC_SIZE",
    "KEYBOARD_RESET",
    "KEYBOARD_RESET_PORT",
    "LAPIC",
    "LARGEST_MEMORY",
    "LOW_MEMORY_END",
    "RESET",
    "RESET_PORT",
    "RESET_VECTOR",
    "SLEEP_CONTROL_PORT",
    "SLEEP_ENABLE",
    "SLEEP_STATUS_PORT",
    "SLEEP_TYPE_S5",
    "TWIN_PORT",
    "VIRTIO",
    "VIRTIO_IRQ",
    "VIRTIO_LARGEST_COUNT",
    "VIRTIO_STRIDE",
]

BOOT_GDT = 0x500
BOOT_PARAMS = 0x7000
FLAT_PROGRAM = 0x7C00
BOOT_PAGE_TABLES = 0x9000
COMMAND_LINE, COMMAND_LINE_SIZE = 0x20000, 2048
#: 16 bytes that change with every fork (Microsoft, "Virtual Machine Generation ID").
GENERATION_COUNTER = 0x9FC00
LOW_MEMORY_END = 0xA0000
ACPI_TABLES, ACPI_TABLES_END = 0xE0000, 0xFFFF0
#: f000:fff0, where the firmware of a PC begins.
RESET_VECTOR = 0xFFFF0
HIGH_MEMORY = 0x100000
#: Bytes of memory a guest can have: it ends where the devices begin.
LARGEST_MEMORY = 3 << 30

VIRTIO, VIRTIO_STRIDE, VIRTIO_IRQ, VIRTIO_LARGEST_COUNT = 0xD000_0000, 0x1000, 5, 8
IOAPIC, IOAPIC_SIZE, IOAPIC_PINS = 0xFEC0_0000, 0x1000, 24
LAPIC = 0xFEE0_0000

COM1, COM1_IRQ = 0x3F8, 4
GENERATION_IRQ = 20

#: A byte written here ends the run; it is the exit code. For programs that know nothing of ACPI.
EXIT_PORT = 0xF4
#: A byte written here says that now is a good time for a snapshot; a read gives the number of the fork, 0 in what was
#: booted.
TWIN_PORT = 0xF5
#: The 8042's command "pulse the reset line", which is what a PC without ACPI is reset by.
KEYBOARD_RESET_PORT, KEYBOARD_RESET = 0x64, 0xFE
#: Registers of ACPI 6.4, 4.8.3.7, and the value for the state S5, "soft off", as ``_S5`` in the DSDT has it.
SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT, RESET_PORT = 0x600, 0x601, 0x602
SLEEP_ENABLE, SLEEP_TYPE_S5 = 1 << 5, 5
RESET = 1
