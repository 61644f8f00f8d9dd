"""The state that a guest begins in, seen by code that runs in it."""

import time

import pytest

from pyvmm import Host
from pyvmm.boot import entry, layout
from pyvmm.boot.entry import Entry, Mode
from pyvmm.boot.loader import load
from pyvmm.kvm import KvmRegs, KvmSregs
from pyvmm.kvm.abi.exits import KVM_EXIT_HLT, KVM_EXIT_IO, KVM_EXIT_MMIO
from pyvmm.machine import Machine
from pyvmm.memory import GuestMemory
from tests.boot import images

#: 32-bit and 64-bit programs reload their segments from the GDT and return far, so the stack and the GDT are needed.
LONG = bytes.fromhex(
    "66baf803"  # mov $0x3f8,%dx
    "8b8602020000ee"  # mov 0x202(%rsi),%eax; out %al,%dx: the H of HdrS
    "b918000000 8ed9 8ed1"  # mov $0x18,%ecx; mov %ecx,%ds; mov %ecx,%ss
    "6a10 e800000000 58 48050a000000 50 48cb"  # push $0x10; call 1f; 1: pop %rax; add $2f-1b,%rax; push %rax; lretq
    "b04c ee"  # 2: mov $'L',%al; out %al,%dx
    "bb00f0ffff 8b0b"  # mov $0xfffff000,%ebx; mov (%rbx),%ecx
    "f4"  # hlt
)
PROTECTED = bytes.fromhex(
    "8b03 66baf803 ef"  # mov (%ebx),%eax; mov $0x3f8,%dx; out %eax,%dx: XEN_HVM_START_MAGIC_VALUE
    "b918000000 8ed9 8ed1"  # mov $0x18,%ecx; mov %ecx,%ds; mov %ecx,%ss
    "6a10 e800000000 58 0508000000 50 cb"  # push $0x10; call 1f; 1: pop %eax; add $2f-1b,%eax; push %eax; lret
    "b050 ee f4"  # 2: mov $'P',%al; out %al,%dx; hlt
)
REAL = bytes.fromhex(
    "baf803"  # mov $0x3f8,%dx
    "e80000 58 ef"  # call 1f; 1: pop %ax; out %ax,%dx: where it is
    "8cc8 ef f4"  # mov %cs,%ax; out %ax,%dx; hlt
)
_XEN_NOTE = images.note(b"Xen\0", 18, images.AT.to_bytes(4, "little"))


class Recorder:
    """Keeps what a guest writes to ports and the addresses where it looks for devices, until it halts."""

    def __init__(self, machine: Machine) -> None:
        self.vcpu = machine.vcpu
        self.written, self.looked_at, self.end = [], [], None

    def handle_exit(self, reason: int) -> bool:
        run = self.vcpu.kvm_run
        if reason == KVM_EXIT_IO:
            self.written.append(bytes(self.vcpu.run_page[run.io.data_offset : run.io.data_offset + run.io.size]))
        elif reason == KVM_EXIT_MMIO:
            self.looked_at.append(run.mmio.phys_addr)
        else:
            self.end = reason
        return self.end is None

    def fail(self, message: str) -> None:
        self.end = message


def run(host: Host, image: bytes) -> Recorder:
    with Machine(host, GuestMemory(4 << 20, 4 << 20)) as machine:
        begin = load(machine.memory.view, image)
        regs, sregs = machine.vcpu.get_regs(), machine.vcpu.get_sregs()
        entry.set_registers(begin, regs, sregs)
        machine.vcpu.set_sregs(sregs)
        machine.vcpu.set_regs(regs)
        recorder = Recorder(machine)
        assert machine.run(recorder, time.monotonic_ns() + 10 * 10**9)
    assert recorder.end == KVM_EXIT_HLT
    return recorder


@pytest.mark.kvm
def test_an_elf_program_runs_in_long_mode_and_reaches_all_of_four_gibibytes(host):
    recorder = run(host, images.elf(LONG))
    assert (recorder.written, recorder.looked_at) == ([b"H", b"L"], [0xFFFF_F000])


@pytest.mark.kvm
def test_a_bzimages_kernel_runs_in_long_mode(host):
    assert run(host, images.bzimage(images.packed("zstd", images.elf(LONG)))).written == [b"H", b"L"]


@pytest.mark.kvm
def test_a_program_with_a_pvh_entry_runs_in_protected_mode(host):
    assert run(host, images.elf(PROTECTED, notes=_XEN_NOTE)).written == [b"\x78\xc5\x6e\x33", b"P"]


@pytest.mark.kvm
def test_a_flat_program_runs_in_real_mode_with_a_stack_and_no_segment_base(host):
    here = layout.FLAT_PROGRAM + 6
    assert run(host, REAL).written == [here.to_bytes(2, "little"), b"\0\0"]


@pytest.mark.parametrize("mode", Mode)
def test_what_belongs_to_the_machine_stays(mode):
    sregs = KvmSregs(apic_base=0xFEE0_0900, cr8=3)
    entry.set_registers(Entry(mode, 0x200000), KvmRegs(), sregs)
    assert (sregs.apic_base, sregs.cr8) == (0xFEE0_0900, 3)


@pytest.mark.parametrize("mode", Mode)
def test_registers_that_say_nothing_are_zero_and_interrupts_are_off(mode):
    regs = KvmRegs(rax=1, rdx=0x600, r15=7, rflags=0x202)
    entry.set_registers(Entry(mode, 0x200000), regs, KvmSregs())
    assert (regs.rax, regs.rdx, regs.r15, regs.rflags, regs.rip) == (0, 0, 0, 2, 0x200000)


def test_the_tables_of_the_entry_state_end_before_the_command_line():
    memory = memoryview(bytearray(1 << 20))
    entry.write_tables(memory, Mode.LONG)
    used = [page for page in range(0, 1 << 20, 4096) if any(memory[page : page + 4096])]
    assert used == [0, *range(layout.BOOT_PAGE_TABLES, layout.BOOT_PAGE_TABLES + 6 * 4096, 4096)]
