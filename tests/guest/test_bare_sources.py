"""The teaching guests as they are shipped: bytes from their sources, headers that tell, constants that agree."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from pyvmm.board.teaching import find, teaching_guests
from pyvmm.boot import layout
from pyvmm.devices.virtio.abi import virtio_console, virtio_mmio

BARE = Path(__file__).parents[2] / "guest" / "bare"
NAMES = sorted(source.stem for source in BARE.glob("*.s"))
TOOLS = ("make", "as", "ld")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the sources assemble to here."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"assembling needs GNU make and binutils; missing: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run(["make", "-C", BARE, f"OUT={folder}"], check=True, capture_output=True)
    return folder


def program(file: Path) -> object:
    """What of an image runs. The rest of an ELF file may differ between versions of the linker."""
    if file.suffix == ".bin":
        return file.read_bytes()
    with file.open("rb") as stream:
        elf = ELFFile(stream)
        segments = [
            (segment["p_paddr"], segment["p_memsz"], segment.data())
            for segment in elf.iter_segments("PT_LOAD")
        ]  # fmt: skip
        return elf["e_entry"], segments


def shipped(name: str) -> Path:
    (file,) = [file for suffix in (".elf", ".bin") if (file := BARE / f"{name}{suffix}").exists()]
    return file


@pytest.mark.parametrize("name", NAMES)
def test_the_shipped_bytes_are_what_the_source_assembles_to(built: Path, name: str) -> None:
    file = shipped(name)
    assert program(built / file.name) == program(file), "run `make guests` and commit what it made"


@pytest.mark.parametrize("name", NAMES)
def test_the_listing_is_that_of_the_source(name: str) -> None:
    listing = (BARE / f"{name}.lst").read_text()
    for line in (BARE / f"{name}.s").read_text().splitlines():
        assert line.expandtabs() in listing.expandtabs(), "run `make guests` and commit what it made"


@pytest.mark.parametrize("name", NAMES)
def test_the_header_tells_what_it_is_and_what_to_expect(name: str) -> None:
    guest = find(name)
    assert guest is not None
    assert guest.title and guest.what
    assert guest.needs == "" or guest.needs.startswith("hardware KVM, because ")
    assert re.search(r"^# expect: .+", (BARE / f"{name}.s").read_text(), re.MULTILINE)


def test_all_sources_are_offered() -> None:
    assert [guest.name for guest in teaching_guests()] == NAMES


def constants(name: str) -> dict[str, int]:
    """The ``.set NAME, VALUE`` of an include file whose value is a number."""
    text = (BARE / name).read_text()
    found = re.findall(r"^ +\.set (\w+), (0x[0-9a-f]+|\d+)(?: << (\d+))?(?: +#.*)?$", text, re.MULTILINE)
    return {name: int(value, 0) << int(shift or 0) for name, value, shift in found}


def test_the_map_of_the_machine_is_that_of_the_monitor() -> None:
    sources = constants("machine.inc") | constants("virtio.inc")
    shared = {name: value for name, value in sources.items() if hasattr(layout, name)}
    assert len(shared) >= 20
    assert shared == {name: getattr(layout, name) for name in shared}


@pytest.mark.parametrize("header", [virtio_mmio, virtio_console])
def test_registers_have_the_numbers_of_their_header(header: object) -> None:
    shared = {name: value for name, value in constants("virtio.inc").items() if hasattr(header, name)}
    for name, value in shared.items():
        number = getattr(header, name)
        assert value == (1 << number if "_F_" in name else number), name
    assert shared
