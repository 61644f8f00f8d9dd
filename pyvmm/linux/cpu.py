"""The vCPU as the personality sees it: a page of registers, and how programs are entered, left and exchanged.

The registers of a stopped guest lie in ``struct kvm_run`` (KVM_CAP_SYNC_REGS): reading one is a load, writing one a
store and a bit that tells KVM. While a program is out, its own RIP, RFLAGS and RSP are attributes here, wherever
they were saved: in RCX, R11 and RSP by ``SYSCALL``, in the frame on the exception stack by a fault. :meth:`resume`
puts them into the return frame that the stub's IRETQ pops.
"""

import struct
from typing import Any

from pyvmm.kvm.abi.registers import KvmRegs, KvmSregs
from pyvmm.kvm.abi.run import RUN_DIRTY_REGS, RUN_SYNC_REGS, RUN_SYNC_SREGS, RUN_VALID_REGS
from pyvmm.linux import layout, stub
from pyvmm.linux.abi.signal import SI_KERNEL, SIGSEGV
from pyvmm.linux.errors import BadAccess

#: Offset of ``struct kvm_regs`` in ``struct kvm_run``.
REGS = RUN_SYNC_REGS
_SREGS = RUN_SYNC_SREGS


def _word(offset: int, structure: type | None = None, field: str = "") -> int:
    """The index, in 64-bit words, of what lies at ``offset``, or of a field of the structure that lies there."""
    if structure is not None:
        offset += getattr(structure, field).offset
    assert offset % 8 == 0
    return offset >> 3


RAX = _word(REGS, KvmRegs, "rax")
RCX = _word(REGS, KvmRegs, "rcx")
RSP = _word(REGS, KvmRegs, "rsp")
R9 = _word(REGS, KvmRegs, "r9")
R11 = _word(REGS, KvmRegs, "r11")
RIP = _word(REGS, KvmRegs, "rip")
RFLAGS = _word(REGS, KvmRegs, "rflags")
_CR2 = _word(_SREGS, KvmSregs, "cr2")
_CR3 = _word(_SREGS, KvmSregs, "cr3")
_FS_BASE = _word(_SREGS, KvmSregs, "fs")
_GS_BASE = _word(_SREGS, KvmSregs, "gs")
_VALID = _word(RUN_VALID_REGS)
_DIRTY = _word(RUN_DIRTY_REGS)
_SYNC_REGS, _SYNC_SREGS = 1, 2

_FRAME = struct.Struct("<5Q")  # RIP CS RFLAGS RSP SS
_GENERAL = struct.Struct("<18Q")
_EXCEPTION_FRAME = layout.EXCEPTION_STACK_FRAME + layout.PAGE_SIZE - _FRAME.size
#: Bit 3 of CR3 (PWT) means nothing here; changing it makes KVM flush the guest's TLB.
_CR3_PWT = 1 << 3
_GENERAL_END = REGS + _GENERAL.size
_RAX_BYTES = (RAX << 3) - REGS
_MASK = (1 << 64) - 1
_SYSCALL_SIZE = 2

#: x87 control word and MXCSR as Linux starts a program (``fpstate_init_user``); offsets in the XSAVE area.
_FCW, _FCW_OFFSET = 0x37F, 0
_MXCSR, _MXCSR_OFFSET = 0x1F80, 24
_XSTATE_BV_OFFSET = 512


def initial_xsave(size: int) -> bytes:
    """Extended state of ``size`` bytes with Linux's x87 control word and MXCSR, everything else as after reset."""
    state = bytearray(size)
    state[_FCW_OFFSET : _FCW_OFFSET + 2] = _FCW.to_bytes(2, "little")
    state[_MXCSR_OFFSET : _MXCSR_OFFSET + 4] = _MXCSR.to_bytes(4, "little")
    state[_XSTATE_BV_OFFSET] = 3  # XSTATE_BV: x87 and SSE are not in their initial configuration
    return bytes(state)


class Context:
    """A thread's registers while it is not on the processor.

    General registers go with the thread that the kernel works for, extended state and segment bases (which cost an
    ioctl) only with the one that really runs.
    """

    __slots__ = ("extended", "fs_base", "general", "gs_base", "rflags", "rip", "rsp")

    def __init__(
        self, general: bytes, rip: int, rflags: int, rsp: int, fs_base: int = 0, gs_base: int = 0, extended: bytes = b""
    ) -> None:
        #: ``struct kvm_regs``; its RIP, RFLAGS and RSP are not the program's.
        self.general = general
        self.rip, self.rflags, self.rsp = rip, rflags, rsp
        self.fs_base, self.gs_base = fs_base, gs_base
        #: The XSAVE area.
        self.extended = extended

    def copy(self) -> "Context":
        """The same for another thread."""
        return Context(*self.save())

    @property
    def rax(self) -> int:
        """RAX: in a system call, its number."""
        return int.from_bytes(self.general[_RAX_BYTES : _RAX_BYTES + 8], "little")

    def save(self) -> tuple[bytes, int, int, int, int, int, bytes]:
        """Plain data: what the constructor takes."""
        return self.general, self.rip, self.rflags, self.rsp, self.fs_base, self.gs_base, self.extended

    def with_result(self, value: int) -> None:
        """Let the system call that it is in give ``value``."""
        general = bytearray(self.general)
        general[_RAX_BYTES : _RAX_BYTES + 8] = (value & _MASK).to_bytes(8, "little")
        self.general = bytes(general)


class Cpu:
    """The registers of one vCPU.

    :param page: the vCPU's ``struct kvm_run``, as bytes.
    :param view: guest memory, as bytes.
    """

    def __init__(self, page: memoryview, view: memoryview) -> None:
        self.page = page
        self.words = page[: len(page) & ~7].cast("Q")
        self._view = view
        self.words[_VALID] = _SYNC_REGS | _SYNC_SREGS
        #: The program's RIP, RFLAGS and RSP at the last exit; changing them changes where it goes on.
        self.rip = self.rflags = self.rsp = 0

    # ------------------------------------------------------------------------------------------- one thread for another

    def store(self, context: Context) -> None:
        """Put the general registers of the thread that was worked for into its ``context``."""
        context.general = bytes(self.page[REGS:_GENERAL_END])
        context.rip, context.rflags, context.rsp = self.rip, self.rflags, self.rsp

    def load(self, context: Context) -> None:
        """Work for the thread of ``context`` from now on."""
        self.page[REGS:_GENERAL_END] = context.general
        self.rip, self.rflags, self.rsp = context.rip, context.rflags, context.rsp

    def store_bases(self, context: Context) -> None:
        """Keep the segment bases of the thread that ran."""
        context.fs_base, context.gs_base = self.words[_FS_BASE], self.words[_GS_BASE]

    def load_bases(self, context: Context, root: int) -> None:
        """Let the next thread run with its segment bases and page tables."""
        words = self.words
        words[_FS_BASE], words[_GS_BASE] = context.fs_base, context.gs_base
        words[_CR3] = root
        words[_DIRTY] |= _SYNC_SREGS

    def load_root(self, root: int) -> None:
        """Let the thread that runs have other page tables (execve(2))."""
        self.words[_CR3] = root
        self.words[_DIRTY] |= _SYNC_SREGS

    def call_again(self) -> None:
        """Let the program execute the SYSCALL instruction that it comes from again; RAX must still be the number."""
        self.rip -= _SYSCALL_SIZE

    def set_result(self, value: int) -> None:
        """What the system call gives (a negative errno)."""
        self.words[RAX] = value & _MASK

    def interrupted(self) -> bool:
        """The program was stopped between two instructions; False if that was on its way into or out of the monitor's
        own code, which must be finished first.
        """
        words = self.words
        rip = words[RIP]
        if rip == stub.IRETQ_ADDRESS:
            return True  # It was not entered yet: where it goes on is where it was to go on.
        if rip >= layout.SYSTEM_BASE:
            return False
        self.stop()
        return True

    def enter_system_call(self) -> None:
        """The program has executed SYSCALL."""
        words = self.words
        self.rip, self.rflags, self.rsp = words[RCX], words[R11], words[RSP]

    def stop(self) -> None:
        """The program stands at an instruction of its own: it was interrupted there, or must not go on."""
        words = self.words
        self.rip, self.rflags, self.rsp = words[RIP], words[RFLAGS], words[RSP]

    def enter_exception(self, vector: int) -> tuple[int, bool]:
        """The program has caused exception ``vector``; (error code or 0, whether it was ring 3)."""
        self.rip, selector, self.rflags, self.rsp, _ = _FRAME.unpack_from(self._view, _EXCEPTION_FRAME)
        error = 0
        if vector in stub.WITH_ERROR_CODE:
            error = int.from_bytes(self._view[_EXCEPTION_FRAME - 8 : _EXCEPTION_FRAME - 4], "little")
        return error, bool(selector & 3)

    @property
    def fault_address(self) -> int:
        """CR2."""
        return self.words[_CR2]

    def resume(self, flush: bool = False) -> None:
        """Have the next KVM_RUN continue the program; ``flush`` its TLB first.

        :raises BadAccess: it cannot continue there (RIP outside the user half): SIGSEGV, as Linux's own IRETQ would
            fault.
        """
        if self.rip >= layout.SYSTEM_BASE + layout.SYSTEM_FRAMES * layout.PAGE_SIZE:
            raise BadAccess(SIGSEGV, SI_KERNEL)
        words = self.words
        flags = self.rflags & stub.USER_RFLAGS | stub.FIXED_RFLAGS
        _FRAME.pack_into(self._view, layout.RETURN_FRAME_FRAME, self.rip, stub.USER_CS, flags, self.rsp, stub.USER_SS)
        words[RSP] = layout.RETURN_FRAME_ADDRESS
        words[RIP] = stub.IRETQ_ADDRESS
        words[RFLAGS] = 2
        if flush:
            words[_CR3] ^= _CR3_PWT
            words[_DIRTY] |= _SYNC_REGS | _SYNC_SREGS
        else:
            words[_DIRTY] |= _SYNC_REGS

    # ----------------------------------------------------------------------------------- all of a program's registers

    def registers(self) -> dict[str, int]:
        """The program's registers by name (``struct kvm_regs``), RIP, RFLAGS and RSP being its own."""
        names = [field[0] for field in KvmRegs._fields_]
        values = dict(zip(names, _GENERAL.unpack_from(self.page, REGS), strict=True))
        values.update(rip=self.rip, rflags=self.rflags, rsp=self.rsp)
        return values

    def general_registers(self) -> bytes:
        """The program's registers as the bytes of ``struct kvm_regs``."""
        return _GENERAL.pack(*self.registers().values())

    def set_registers(self, values: Any) -> None:
        """Give the program these registers; takes effect with :meth:`resume`."""
        names = [field[0] for field in KvmRegs._fields_]
        _GENERAL.pack_into(self.page, REGS, *(values[name] for name in names))
        self.rip, self.rflags, self.rsp = values["rip"], values["rflags"], values["rsp"]

    @property
    def fs_base(self) -> int:
        """The thread pointer."""
        return self.words[_FS_BASE]

    @fs_base.setter
    def fs_base(self, value: int) -> None:
        self.words[_FS_BASE] = value
        self.words[_DIRTY] |= _SYNC_SREGS

    @property
    def gs_base(self) -> int:
        """The base of GS."""
        return self.words[_GS_BASE]

    @gs_base.setter
    def gs_base(self, value: int) -> None:
        self.words[_GS_BASE] = value
        self.words[_DIRTY] |= _SYNC_SREGS

    def close(self) -> None:
        """Let go of the register page."""
        self.words.release()
