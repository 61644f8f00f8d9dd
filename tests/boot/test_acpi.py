"""The ACPI tables, as the tools of ACPICA, which Linux's interpreter is part of, see them."""

import re
import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvmm.boot import acpi, aml, layout


def needs(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (package acpica-tools): the tables are not checked by it")


def tables(devices: int = layout.VIRTIO_LARGEST_COUNT) -> dict[str, bytes]:
    """The tables by signature, found as a kernel finds them: from the RSDP on."""
    data = acpi.tables(devices)

    def at(address: int) -> bytes:
        start = address - layout.ACPI_TABLES
        (length,) = struct.unpack_from("<I", data, start + 4)
        return data[start : start + length]

    xsdt = at(struct.unpack_from("<Q", data, 24)[0])
    found = {table[:4].decode(): table for table in map(at, struct.unpack("<2Q", xsdt[36:]))}
    return {**found, "XSDT": xsdt, "DSDT": at(struct.unpack_from("<Q", found["FACP"], 140)[0])}


def acpiexec(folder, *commands: str) -> str:
    needs("acpiexec")
    path = folder / "dsdt.aml"
    path.write_bytes(tables()["DSDT"])
    done = subprocess.run(
        ["acpiexec", str(path)], input="\n".join([*commands, "quit"]), capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


def test_the_rsdp_is_first_and_both_its_checksums_are_right():
    data = acpi.tables(0)
    assert data[:8] == b"RSD PTR " and data[15] == 2
    assert (sum(data[:20]) & 255, sum(data[:36]) & 255) == (0, 0)


@pytest.mark.parametrize("devices", range(layout.VIRTIO_LARGEST_COUNT + 1))
def test_every_checksum_is_right(devices):
    found = tables(devices)
    assert set(found) == {"XSDT", "FACP", "APIC", "DSDT"}
    assert all(sum(table) & 255 == 0 for table in found.values())


def test_all_tables_fit_into_their_place():
    assert len(acpi.tables(layout.VIRTIO_LARGEST_COUNT)) <= layout.ACPI_TABLES_END - layout.ACPI_TABLES


@pytest.mark.parametrize("devices", [-1, layout.VIRTIO_LARGEST_COUNT + 1])
def test_more_devices_than_there_is_room_for_are_refused(devices):
    with pytest.raises(ValueError, match="virtio devices"):
        acpi.tables(devices)


@pytest.mark.parametrize("signature", ["XSDT", "FACP", "APIC", "DSDT"])
def test_a_table_disassembles_and_compiles_to_itself(signature, tmp_path):
    needs("iasl")
    table = tables()[signature]
    source, compiled = tmp_path / "table.dsl", tmp_path / "again.aml"
    (tmp_path / "table.dat").write_bytes(table)
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True}
    said = subprocess.run(["iasl", "-d", "table.dat"], **options)
    assert not re.search("error|warning|invalid|incorrect", said.stdout + said.stderr + source.read_text(), re.I)
    # -oa: nothing is made shorter than it was written.
    said = subprocess.run(["iasl", "-oa", "-p", "again", "table.dsl"], **options)
    assert "0 Errors, 0 Warnings, 0 Remarks" in said.stdout
    # The compiler puts its own name and a new checksum into the header.
    again = compiled.read_bytes()
    assert (again[:9], again[10:28], again[36:]) == (table[:9], table[10:28], table[36:])


def test_an_interpreter_loads_the_devices(tmp_path):
    said = acpiexec(tmp_path, "namespace")
    assert "1 ACPI AML tables successfully acquired and loaded" in said
    assert "No outstanding allocations" in said
    for number in range(layout.VIRTIO_LARGEST_COUNT):
        assert f"VIO{number} Device" in said


def test_soft_off_is_the_value_that_ends_a_run(tmp_path):
    said = acpiexec(tmp_path, r"evaluate \_S5")
    assert re.findall(r"\[Integer\] = (\w+)", said) == [f"{value:016X}" for value in (layout.SLEEP_TYPE_S5, 0, 0, 0)]


def test_the_generation_counter_has_its_address(tmp_path):
    said = acpiexec(tmp_path, r"evaluate \_SB.VGEN.ADDR")
    assert re.findall(r"\[Integer\] = (\w+)", said) == [f"{layout.GENERATION_COUNTER:016X}", "0" * 16]


def test_the_event_devices_interrupt_notifies_the_generation_counter(tmp_path):
    said = acpiexec(tmp_path, rf"evaluate \_SB.GED._EVT {layout.GENERATION_IRQ}", r"resources \_SB.GED")
    assert re.search(r"Device Notify on \[VGEN\] \w+ Value 0x80", said)
    assert re.search(rf"Dword00 : {layout.GENERATION_IRQ:08X}", said)


@pytest.mark.parametrize("number", [0, layout.VIRTIO_LARGEST_COUNT - 1])
def test_a_virtio_device_has_its_registers_and_its_interrupt(number, tmp_path):
    said = acpiexec(tmp_path, rf"resources \_SB.VIO{number}", rf"evaluate \_SB.VIO{number}._HID")
    assert '"LNRO0005"' in said
    assert f"Address : {layout.VIRTIO + number * layout.VIRTIO_STRIDE:08X}" in said
    assert f"Address Length : {layout.VIRTIO_STRIDE:08X}" in said
    assert f"Dword00 : {layout.VIRTIO_IRQ + number:08X}" in said
    assert "Triggering : Edge" in said and "Polarity : ActiveHigh" in said


def test_com1_has_its_ports_and_its_interrupt(tmp_path):
    said = acpiexec(tmp_path, r"resources \_SB.COM1")
    assert f"Address Minimum : {layout.COM1:04X}" in said
    assert f"Dword00 : {layout.COM1_IRQ:08X}" in said


@given(st.integers(0, (1 << 64) - 1))
def test_an_integer_is_as_short_as_its_value_allows(value):
    data = aml.integer(value)
    assert int.from_bytes(data[1:] or data, "little") == value
    assert len(data) == (
        1 if value < 2 else 2 if value < 1 << 8 else 3 if value < 1 << 16 else 5 if value < 1 << 32 else 9
    )


@given(st.integers(0, 70000))
def test_the_length_of_a_package_counts_itself(size):
    data = aml.scope("ABCD", bytes(size))[1:]
    more = data[0] >> 6
    length = data[0] & 15 | int.from_bytes(data[1 : 1 + more], "little") << 4 if more else data[0]
    assert length == len(data)
    assert data[1 + more : 5 + more] == b"ABCD"


def test_a_package_too_long_for_its_length_is_refused():
    with pytest.raises(ValueError, match="an AML package of"):
        aml.scope("ABCD", bytes(1 << 28))


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("_HID", b"_HID"),
        ("GED", b"GED_"),
        ("\\_SB.VGEN", b"\\\x2e_SB_VGEN"),
        ("\\_SB.A.B", b"\\\x2f\x03_SB_A___B___"),
    ],
)
def test_a_name_is_of_segments_of_four(path, data):
    assert aml.name(path) == data
