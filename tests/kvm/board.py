"""A VM with one page of real-mode code, the smallest guest there is."""

import ctypes
import mmap
from collections.abc import Callable

from pyvmm.kvm import Kvm, Vcpu, Vm

CODE = 0x1000
SIZE = 0x10000


class Board:
    """A VM, its only vCPU and its memory, about to run the code at CODE."""

    def __init__(self, kvm: Kvm, prepare: Callable[[Vm], None] = lambda vm: None, flags: int = 0) -> None:
        self.memory = mmap.mmap(-1, SIZE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.vm = kvm.create_vm()
        try:
            prepare(self.vm)
            self.vm.set_user_memory_region(0, 0, SIZE, self.address, flags)
            self.vcpu: Vcpu = self.vm.create_vcpu()
        except BaseException:
            self.vm.close()
            raise
        self.vcpu.set_cpuid2(kvm.supported_cpuid())
        sregs = self.vcpu.get_sregs()
        sregs.cs.base = sregs.cs.selector = 0
        self.vcpu.set_sregs(sregs)

    def load(self, code: bytes) -> None:
        """Put code into memory and point the vCPU at it; interrupts are off, the stack is below 0x8000."""
        self.memory[CODE : CODE + len(code)] = code
        regs = self.vcpu.get_regs()
        regs.rip, regs.rflags, regs.rsp = CODE, 2, 0x8000
        self.vcpu.set_regs(regs)

    def close(self) -> None:
        self.vcpu.close()
        self.vm.close()
