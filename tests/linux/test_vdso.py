"""The vDSO: its bytes are those of its source, its symbols are found, its pages are where they should be."""

import io
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from pyvmm.linux import vdso
from pyvmm.linux.abi.mman import PROT_EXEC, PROT_READ
from pyvmm.linux.clock import Clock
from tests.linux.space import PAGE, Space

_SYMBOLS = {"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time"}


def test_programs_find_the_functions_that_linux_has() -> None:
    image = ELFFile(io.BytesIO(vdso.IMAGE))
    symbols = {symbol.name for symbol in image.get_section_by_name(".dynsym").iter_symbols()}
    assert symbols >= _SYMBOLS
    assert image.header.e_type == "ET_DYN" and image.header.e_machine == "EM_X86_64"


def test_the_image_fits_one_page_and_has_one_place_that_calibrates() -> None:
    assert len(vdso.IMAGE) <= PAGE
    assert vdso.IMAGE[vdso.CALIBRATE_OFFSET - 2 : vdso.CALIBRATE_OFFSET] == b"\x0f\x05"


def test_the_image_is_what_its_source_gives(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this host")
    for name in ("vdso.S", "vdso.lds"):
        (tmp_path / name).write_bytes(resources.files(vdso).joinpath(name).read_bytes())
    linker = "-Wl,-T,vdso.lds -Wl,-soname,linux-vdso.so.1 -Wl,--hash-style=both -Wl,--build-id=none"
    command = f"gcc -nostdlib -shared -s {linker} -o vdso.so vdso.S"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    built, kept = (
        [ELFFile(io.BytesIO(data)).get_section_by_name(name).data() for name in (".text", ".dynsym", ".dynstr")]
        for data in ((tmp_path / "vdso.so").read_bytes(), vdso.IMAGE)
    )
    assert built == kept


def test_the_pages_are_mapped_side_by_side_and_not_for_writing() -> None:
    space = Space()
    address = vdso.map_into(space.mm)
    assert space.mm.find(address).prot == PROT_READ | PROT_EXEC  # type: ignore[union-attr]
    assert space.mm.find(address - PAGE).prot == PROT_READ  # type: ignore[union-attr]
    assert space.user.read(address, len(vdso.IMAGE)) == vdso.IMAGE
    assert space.mm.vdso == address
    space.close()


def test_calibrated_time_never_steps_back() -> None:
    view = memoryview(bytearray(4096))
    clock = Clock(0, 2_000_000)
    tsc, last = 1_000_000, 0
    for _ in range(50):
        clock.calibrate(view, 0, tsc)
        words = view[:48].cast("Q")
        base, monotonic, mult = words[0], words[2], words[3]
        assert base == tsc
        assert monotonic >= last
        # A reading ten seconds on by a counter that runs far too fast.
        tsc += 20_000_000_000
        last = monotonic + (20_000_000_000 * mult >> 32)


def test_the_first_reading_in_a_fork_asks() -> None:
    view = memoryview(bytearray(b"\xff" * 4096))
    Clock(0, 2_000_000).empty(view, 0)
    assert not any(view[:48])


@pytest.mark.parametrize("tsc", [0, 1, 2**63, 2**64 - 1])
def test_any_counter_that_a_program_claims_is_taken(tsc: int) -> None:
    view = memoryview(bytearray(4096))
    clock = Clock(0, 2_000_000)
    for claimed in (5, tsc, 2**64 - 1, 0):
        clock.calibrate(view, 0, claimed)
