"""The vDSO of a process guest (vdso(7)): its image, assembled from ``vdso.S``, and where it goes.

``make vdso`` reassembles ``vdso.so``; a test checks that the bytes here are those that the source gives.
"""

from importlib import resources
from typing import TYPE_CHECKING

from pyvmm.linux.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE, PROT_EXEC, PROT_READ
from pyvmm.linux.layout import PAGE_SIZE

if TYPE_CHECKING:
    from pyvmm.linux.mm import AddressSpace

IMAGE = resources.files(__name__).joinpath("vdso.so").read_bytes()

#: RIP, relative to the image, after the system call by which the vDSO asks for calibration: the first ``syscall;
#: ret`` (symbol vdso_calibrate).
CALIBRATE_OFFSET = IMAGE.index(b"\x0f\x05\xc3") + 2


def map_into(mm: "AddressSpace") -> int:
    """Map the vvar page and the image; the image's address (AT_SYSINFO_EHDR). ``mm`` remembers where the vvar page
    is.
    """
    address = mm.map(0, 2 * PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, name=b"[vvar]")
    mm.unmap(address + PAGE_SIZE, PAGE_SIZE)
    mm.map(address + PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | 0x10, name=b"[vdso]")
    mm.vvar = mm.populate(address, b"")
    mm.populate(address + PAGE_SIZE, IMAGE)
    mm.vdso = address + PAGE_SIZE
    return address + PAGE_SIZE
