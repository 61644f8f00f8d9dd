"""Guests of a few bytes in long mode: the instructions that these tests need, as bytes, and where things are in memory.

The whole of the first 4 GiB is mapped one to one, so devices can be reached by a 32-bit address.
"""

import struct
from collections.abc import Iterable

from pyvmm.kernel_guest import KernelGuest
from pyvmm.kvm.abi.registers import KvmDtable
from tests.boot.images import elf

#: Where a program puts what it wants to be looked at, and where its interrupt descriptor table is.
RESULTS, IDT, HANDLERS = 0x300000, 0x310000, 0x320000
MEMORY = 16 << 20

_REGISTERS = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
NOP, CLI, STI, HLT, CLD, UD2, IRETQ = b"\x90", b"\xfa", b"\xfb", b"\xf4", b"\xfc", b"\x0f\x0b", b"\x48\xcf"
SPIN = b"\xeb\xfe"  # jmp $
SLEEP = STI + HLT + b"\xeb\xfd"  # sti; l: hlt; jmp l
PUSH_RAX, POP_RAX = b"\x50", b"\x58"
OUT_DX = {1: b"\xee", 2: b"\x66\xef", 4: b"\xef"}
IN_DX = {1: b"\xec", 2: b"\x66\xed", 4: b"\xed"}
#: mov [rdi], al/ax/eax/rax and mov al/ax/eax/rax, [rsi]
STORE = {1: b"\x88\x07", 2: b"\x66\x89\x07", 4: b"\x89\x07", 8: b"\x48\x89\x07"}
LOAD = {1: b"\x8a\x06", 2: b"\x66\x8b\x06", 4: b"\x8b\x06", 8: b"\x48\x8b\x06"}
REP_OUTS = {1: b"\xf3\x6e", 2: b"\x66\xf3\x6f", 4: b"\xf3\x6f"}
REP_INS = {1: b"\xf3\x6c", 2: b"\x66\xf3\x6d", 4: b"\xf3\x6d"}
#: mov [rdi], ...; add rdi, 8
KEEP = b"\x48\x89\x07\x48\x83\xc7\x08"
RDTSC = b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0"  # rdtsc; shl rdx, 32; or rax, rdx
WRMSR = b"\x0f\x30"

LAPIC, IOAPIC = 0xFEE00000, 0xFEC00000
APIC_EOI, APIC_SPIV, APIC_LVTT, APIC_TMICT, APIC_TDCR = 0xB0, 0xF0, 0x320, 0x380, 0x3E0


def mov(register: str, value: int) -> bytes:
    """The register gets a 32-bit value; its upper half is zero."""
    return bytes([0xB8 + _REGISTERS.index(register)]) + struct.pack("<I", value)


def mov_rax(value: int) -> bytes:
    return b"\x48\xb8" + struct.pack("<Q", value)


def poke(address: int, value: int) -> bytes:
    """Write 32 bits to memory. Changes RBX."""
    return mov("ebx", address) + b"\xc7\x03" + struct.pack("<I", value)


def out(port: int, value: int, size: int = 1) -> bytes:
    return mov("edx", port) + mov("eax", value) + OUT_DX[size]


def leave(code: int = 0) -> bytes:
    """Write the exit code; what comes after is not reached."""
    return mov("eax", code) + b"\xe6\xf4" + SPIN


def announce() -> bytes:
    """Say that it is time for a snapshot."""
    return b"\xe6\xf5"


def wrmsr(index: int, value: int) -> bytes:
    return mov("ecx", index) + mov("eax", value & 0xFFFFFFFF) + mov("edx", value >> 32) + WRMSR


def repeat(body: bytes) -> bytes:
    """The body again and again."""
    return body + b"\xe9" + struct.pack("<i", -len(body) - 5)


def io_apic(register: int, value: int) -> bytes:
    return poke(IOAPIC, register) + poke(IOAPIC + 0x10, value)


def route(line: int, entry: int, destination: int = 0) -> bytes:
    """Set the I/O APIC's entry for a line: the upper half first, as its mask is in the lower one."""
    return io_apic(0x10 + 2 * line + 1, destination << 24) + io_apic(0x10 + 2 * line, entry)


APIC_ON = poke(LAPIC + APIC_SPIV, 0x1FF)
END_OF_INTERRUPT = poke(LAPIC + APIC_EOI, 0)


def program(*parts: bytes) -> bytes:
    """An ELF file of that code."""
    return elf(b"".join(parts))


def catch(guest: KernelGuest, handlers: dict[int, bytes]) -> None:
    """Give the guest handlers for these vectors: code that ends with IRETQ and keeps the registers."""
    memory = guest.machine.memory.view
    place = HANDLERS
    for vector, code in handlers.items():
        memory[place : place + len(code)] = code
        gate = struct.pack("<HHBBHII", place & 0xFFFF, 0x10, 0, 0x8E, place >> 16, 0, 0)
        memory[IDT + 16 * vector : IDT + 16 * vector + 16] = gate
        place += (len(code) + 15) & -16
    sregs = guest.machine.vcpu.get_sregs()
    sregs.idt = KvmDtable(base=IDT, limit=16 * 256 - 1)
    guest.machine.vcpu.set_sregs(sregs)


def results(guest: KernelGuest, count: int, size: int = 8) -> list[int]:
    """What the program left at RESULTS: that many numbers of that many bytes."""
    memory = guest.machine.memory.view
    return [
        int.from_bytes(memory[RESULTS + size * number : RESULTS + size * (number + 1)], "little")
        for number in range(count)
    ]


def fill(guest: KernelGuest, address: int, data: bytes | Iterable[int]) -> None:
    data = bytes(data)
    guest.machine.memory.view[address : address + len(data)] = data
