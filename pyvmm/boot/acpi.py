r"""The ACPI tables of a kernel guest's machine, ACPI 6.4: RSDP, XSDT, FADT, MADT and DSDT.

It is a hardware-reduced machine: no PM timer, no power-management ports but those for sleep and reset, no 8259, no
PCI. Everything that a kernel could otherwise only guess is named in the DSDT: COM1, the virtio devices, and the
generation counter, which tells a kernel that it has been forked.

These tables are the same for all machines with the same number of virtio devices.
"""

import struct

from pyvmm.boot import aml
from pyvmm.boot.layout import (
    ACPI_TABLES,
    ACPI_TABLES_END,
    COM1,
    COM1_IRQ,
    GENERATION_COUNTER,
    GENERATION_IRQ,
    IOAPIC,
    LAPIC,
    RESET,
    RESET_PORT,
    SLEEP_CONTROL_PORT,
    SLEEP_STATUS_PORT,
    SLEEP_TYPE_S5,
    VIRTIO,
    VIRTIO_IRQ,
    VIRTIO_LARGEST_COUNT,
    VIRTIO_STRIDE,
)

_OEM_ID, _OEM_TABLE_ID, _CREATOR_ID = b"PYVMM ", b"PYVMMTAB", b"PYVM"
#: Signature, length, revision, checksum, OEM ID, OEM table ID, OEM revision, creator ID, creator revision.
_HEADER = struct.Struct("<4sIBB6s8sI4sI")
_CHECKSUM = 9

# FADT flags (5.2.9, "Fixed ACPI Description Table Fixed Feature Flags"), by their names in ACPICA's actbl.h.
_ACPI_FADT_WBINVD = 1 << 0
_ACPI_FADT_C1_SUPPORTED = 1 << 2
#: Buttons and alarms are devices of the DSDT, of which there are none.
_ACPI_FADT_POWER_BUTTON, _ACPI_FADT_SLEEP_BUTTON, _ACPI_FADT_FIXED_RTC = 1 << 4, 1 << 5, 1 << 6
_ACPI_FADT_RESET_REGISTER = 1 << 10
_ACPI_FADT_HW_REDUCED = 1 << 20
# IAPC_BOOT_ARCH (5.2.9.3). The 8042 is absent because its bit is clear.
_ACPI_FADT_NO_VGA, _ACPI_FADT_NO_CMOS_RTC = 1 << 2, 1 << 5

_SYSTEM_IO, _BYTE_ACCESS = 1, 1


def tables(virtio_devices: int) -> bytes:
    """What is to lie at ``layout.ACPI_TABLES``, for a machine with so many virtio devices; the RSDP comes first."""
    if not 0 <= virtio_devices <= VIRTIO_LARGEST_COUNT:
        raise ValueError(f"{virtio_devices} virtio devices; there can be {VIRTIO_LARGEST_COUNT}")
    placed = _Placed(ACPI_TABLES + 64)
    dsdt = placed.put(_dsdt(virtio_devices))
    fadt = placed.put(_fadt(dsdt))
    madt = placed.put(_madt())
    xsdt = placed.put(_table(b"XSDT", 1, struct.pack("<QQ", fadt, madt)))
    return _rsdp(xsdt).ljust(64, b"\0") + placed.data


class _Placed:
    """Tables one after the other in memory, each at a multiple of 16."""

    def __init__(self, address: int) -> None:
        self._address = address
        self.data = b""

    def put(self, table: bytes) -> int:
        """Add a table; returns its physical address."""
        address = self._address + len(self.data)
        self.data += table.ljust((len(table) + 15) & ~15, b"\0")
        if address + len(table) > ACPI_TABLES_END:
            raise ValueError("the ACPI tables do not fit into their place")
        return address


def _checksum(data: bytes | bytearray) -> int:
    """The byte that makes the sum of all a multiple of 256."""
    return -sum(data) & 255


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    """A table with its header (5.2.6)."""
    length = _HEADER.size + len(body)
    table = bytearray(_HEADER.pack(signature, length, revision, 0, _OEM_ID, _OEM_TABLE_ID, 1, _CREATOR_ID, 1) + body)
    table[_CHECKSUM] = _checksum(table)
    return bytes(table)


def _rsdp(xsdt: int) -> bytes:
    """The Root System Description Pointer (5.2.5.3). It has two checksums: of the part that ACPI 1.0 knew, and of all;
    there is no RSDT.
    """
    rsdp = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, _OEM_ID, 2, 0, 36, xsdt, 0))
    rsdp[8] = _checksum(rsdp[:20])
    rsdp[32] = _checksum(rsdp)
    return bytes(rsdp)


def _register(port: int) -> bytes:
    """A Generic Address Structure (5.2.3.2) for a port of one byte."""
    return struct.pack("<BBBBQ", _SYSTEM_IO, 8, 0, _BYTE_ACCESS, port)


def _fadt(dsdt: int) -> bytes:
    """The Fixed ACPI Description Table (5.2.9), revision 6.4. Offsets are from the start of the table."""
    fadt = bytearray(276)
    flags = (
        _ACPI_FADT_WBINVD
        | _ACPI_FADT_C1_SUPPORTED
        | _ACPI_FADT_POWER_BUTTON
        | _ACPI_FADT_SLEEP_BUTTON
        | _ACPI_FADT_FIXED_RTC
        | _ACPI_FADT_RESET_REGISTER
        | _ACPI_FADT_HW_REDUCED
    )
    struct.pack_into("<H", fadt, 109, _ACPI_FADT_NO_VGA | _ACPI_FADT_NO_CMOS_RTC)
    struct.pack_into("<I", fadt, 112, flags)
    fadt[116:128] = _register(RESET_PORT)
    fadt[128] = RESET
    fadt[131] = 4  # minor version
    struct.pack_into("<Q", fadt, 140, dsdt)
    fadt[244:256] = _register(SLEEP_CONTROL_PORT)
    fadt[256:268] = _register(SLEEP_STATUS_PORT)
    fadt[268:276] = b"PYVMM".ljust(8, b"\0")  # hypervisor vendor identity
    return _table(b"FACP", 6, bytes(fadt[_HEADER.size :]))


def _madt() -> bytes:
    """The Multiple APIC Description Table (5.2.12): one processor, one I/O APIC from interrupt 0 on. PCAT_COMPAT is
    clear: no 8259.
    """
    local_apic = struct.pack("<BBBBI", 0, 8, 0, 0, 1)
    io_apic = struct.pack("<BBBBII", 1, 12, 0, 0, IOAPIC, 0)
    return _table(b"APIC", 5, struct.pack("<II", LAPIC, 0) + local_apic + io_apic)


def _dsdt(virtio_devices: int) -> bytes:
    r"""The Differentiated System Description Table: the devices, and ``\_S5``, soft off."""
    devices = [_com1(), _generation_counter(), _event_device()]
    devices += [_virtio(number) for number in range(virtio_devices)]
    power_off = aml.named("\\_S5", aml.package(aml.integer(SLEEP_TYPE_S5), *[aml.integer(0)] * 3))
    return _table(b"DSDT", 2, power_off + aml.scope("\\_SB", *devices))


def _com1() -> bytes:
    return aml.device(
        "COM1",
        aml.named("_HID", aml.string("PNP0501")),
        aml.named("_UID", aml.integer(0)),
        aml.named("_CRS", aml.resources(aml.io(COM1, 8), aml.interrupt(COM1_IRQ))),
    )


def _virtio(number: int) -> bytes:
    registers = aml.memory32_fixed(VIRTIO + number * VIRTIO_STRIDE, VIRTIO_STRIDE)
    return aml.device(
        f"VIO{number}",
        aml.named("_HID", aml.string("LNRO0005")),
        aml.named("_UID", aml.integer(number)),
        aml.named("_CRS", aml.resources(registers, aml.interrupt(VIRTIO_IRQ + number))),
    )


def _generation_counter() -> bytes:
    """Microsoft, "Virtual Machine Generation ID": ADDR is the address of the 16 bytes, its low half first."""
    low, high = GENERATION_COUNTER & 0xFFFF_FFFF, GENERATION_COUNTER >> 32
    return aml.device(
        "VGEN",
        aml.named("_HID", aml.string("PYVM0001")),
        aml.named("_CID", aml.string("VM_Gen_Counter")),
        aml.named("_DDN", aml.string("VM_Gen_Counter")),
        aml.named("ADDR", aml.package(aml.integer(low), aml.integer(high))),
    )


def _event_device() -> bytes:
    """The Generic Event Device (5.6.9) that says of its one interrupt: the generation counter has changed."""
    return aml.device(
        "GED",
        aml.named("_HID", aml.string("ACPI0013")),
        aml.named("_UID", aml.integer(0)),
        aml.named("_CRS", aml.resources(aml.interrupt(GENERATION_IRQ))),
        aml.method("_EVT", 1, aml.notify("\\_SB.VGEN", 0x80)),
    )
