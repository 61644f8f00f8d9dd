"""Entering a signal handler and coming back from it (``arch/x86/kernel/signal_64.c``).

The frame on the program's stack, from the stack pointer upwards::

    return address (sa_restorer)
    struct ucontext     flags, link, altstack, struct sigcontext_64, mask
    struct siginfo      128 bytes
    ...                 the 128 bytes under the old stack pointer are the program's (red zone) and stay untouched
    XSAVE area          64-byte aligned, its software bytes telling size and features as the kernel's do

What comes back through ``rt_sigreturn`` may be anything: selectors and privileged flags are not taken from it, a RIP
outside the user half is found when it is gone to, and extended state that the processor would refuse is a SIGSEGV.
"""

import struct
from errno import EFAULT, EINTR, EINVAL
from typing import TYPE_CHECKING, Protocol

from pyvmm.linux.abi.signal import (
    SA_NODEFER,
    SA_ONSTACK,
    SA_RESETHAND,
    SA_RESTART,
    SA_RESTORER,
    SI_KERNEL,
    SIG_DFL,
    SIG_IGN,
    SIGCHLD,
    SIGSEGV,
    SS_AUTODISARM,
    SS_DISABLE,
)
from pyvmm.linux.cpu import initial_xsave
from pyvmm.linux.errors import GuestError, GuestExit
from pyvmm.linux.layout import TASK_SIZE
from pyvmm.linux.signalling import stop
from pyvmm.linux.signals import STOPPING, UNBLOCKABLE, Action, SignalInfo
from pyvmm.linux.stub import USER_CS, USER_RFLAGS, USER_SS

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

_MASK = (1 << 64) - 1
_RED_ZONE = 128
_RFLAGS_TF, _RFLAGS_DF, _RFLAGS_RF = 1 << 8, 1 << 10, 1 << 16

_UC_FP_XSTATE, _UC_SIGCONTEXT_SS, _UC_STRICT_RESTORE_SS = 1, 2, 4
#: uc_flags uc_link ss_sp ss_flags ss_size | r8-r15 rdi rsi rbp rbx rdx rax rcx rsp rip eflags | cs gs fs ss | err
#: trapno oldmask cr2 fpstate | mask
_UCONTEXT = struct.Struct("<QQQI4xQ18Q4H5Q64xQ")
_CONTEXT_ORDER = [
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "rdi",
    "rsi",
    "rbp",
    "rbx",
    "rdx",
    "rax",
    "rcx",
    "rsp",
    "rip",
    "rflags",
]
_SIGINFO_SIZE = 128

#: Software-reserved bytes of the XSAVE area (``struct _fpx_sw_bytes``) and their magic numbers (``asm/sigcontext.h``).
_SW_BYTES = struct.Struct("<IIQI28x")
_SW_OFFSET = 464
_MAGIC1, _MAGIC2 = 0x4650_5853, 0x4650_5845
_XSTATE_BV_OFFSET = 512
_MXCSR_OFFSET = 24
#: All of it but the reserved bits.
_MXCSR_KNOWN = 0xFFFF
_XSAVE_MIN = 576
_XRSTOR_ALIGNMENT, _FXRSTOR_ALIGNMENT = 64, 16


class XsaveState(Protocol):
    """The vCPU's extended state, in the standard XSAVE format."""

    def get_xsave(self) -> bytes: ...
    def set_xsave(self, data: bytes, /) -> None: ...


def deliver(task: "Task", vcpu: XsaveState) -> None:
    """Deliver pending signals: enter handlers, stop the process, or end the program.

    :raises GuestExit: a signal's default action is to end it.
    """
    signals = task.signals
    while True:
        while (info := signals.next_deliverable()) is not None:
            if signals.is_ignored(info.signo):
                continue
            action = signals.action(info.signo)
            if action.handler == SIG_DFL:
                if info.signo not in STOPPING:
                    raise GuestExit(signo=info.signo)
                stop(task.process, info.signo)
                if task.process.stopped:
                    return
                continue
            _leave_call(task, action)
            _enter(task, vcpu, action, info)
        if signals.saved_mask is None or task.interrupted is not None:
            return
        signals.blocked, signals.saved_mask = signals.saved_mask, None


def _leave_call(task: "Task", action: Action) -> None:
    """A handler is about to run: the system call that was interrupted for it fails, or is made again afterwards."""
    if task.interrupted is not None:
        _, _, restart = task.interrupted
        task.interrupted = None
        if restart and action.flags & SA_RESTART:
            task.cpu.call_again()
        else:
            task.cpu.set_result(-EINTR)


def force(task: "Task", vcpu: XsaveState, info: SignalInfo) -> None:
    """Deliver the signal of a fault: one that is blocked or ignored ends the program.

    :raises GuestExit: it does.
    """
    action = task.signals.action(info.signo)
    if action.handler in (SIG_DFL, SIG_IGN) or task.signals.blocked & 1 << info.signo - 1:
        raise GuestExit(signo=info.signo)
    _enter(task, vcpu, action, info)


def _enter(task: "Task", vcpu: XsaveState, action: Action, info: SignalInfo) -> None:
    """Have a handler run. Where its frame has no place the program gets SIGSEGV, which may have a stack of its own
    (``signal_setup_done()``).

    :raises GuestExit: nor has the frame of that.
    """
    try:
        _build_frame(task, vcpu, action, info)
    except GuestError:
        if info.signo == SIGSEGV:
            raise GuestExit(signo=SIGSEGV) from None
        force(task, vcpu, SignalInfo(SIGSEGV, SI_KERNEL))


def _build_frame(task: "Task", vcpu: XsaveState, action: Action, info: SignalInfo) -> None:
    """Build the frame and point the program at its handler.

    :raises GuestError: EFAULT, the stack cannot be written there.
    """
    cpu, signals = task.cpu, task.signals
    registers = cpu.registers()
    stack = registers["rsp"]
    on_alternate = signals.on_stack(stack)
    if action.flags & SA_ONSTACK and not signals.stack_flags & SS_DISABLE and not on_alternate:
        top = signals.stack_address + signals.stack_size
    else:
        top = stack - _RED_ZONE
    xsave = vcpu.get_xsave()
    features = int.from_bytes(xsave[_XSTATE_BV_OFFSET : _XSTATE_BV_OFFSET + 8], "little")
    fpstate = (top - len(xsave) - 4) & ~63
    frame = ((fpstate - _UCONTEXT.size - _SIGINFO_SIZE - 8) & ~15) - 8
    if not action.flags & SA_RESTORER or frame < 0 or fpstate >= TASK_SIZE:
        raise GuestError(EFAULT)
    ucontext, siginfo = frame + 8, frame + 8 + _UCONTEXT.size

    state = bytearray(xsave)
    _SW_BYTES.pack_into(state, _SW_OFFSET, _MAGIC1, len(xsave) + 4, features | 3, len(xsave))
    mask = signals.blocked if signals.saved_mask is None else signals.saved_mask
    context = _UCONTEXT.pack(
        _UC_FP_XSTATE | _UC_SIGCONTEXT_SS | _UC_STRICT_RESTORE_SS,
        0,
        signals.stack_address,
        signals.stack_flags,
        signals.stack_size,
        *(registers[name] for name in _CONTEXT_ORDER),
        USER_CS,
        0,
        0,
        USER_SS,
        info.error,
        info.trapno,
        mask & 0xFFFF_FFFF,
        info.cr2,
        fpstate,
        mask,
    )
    task.mem.write(fpstate, state + struct.pack("<I", _MAGIC2))
    task.mem.write(frame, struct.pack("<Q", action.restorer) + context + siginfo_bytes(info))

    signals.saved_mask = None
    blocked = signals.blocked | action.mask
    if not action.flags & SA_NODEFER:
        blocked |= 1 << info.signo - 1
    signals.blocked = blocked & ~UNBLOCKABLE
    if action.flags & SA_RESETHAND:
        signals.actions[info.signo] = action._replace(handler=SIG_DFL)
    if signals.stack_flags & SS_AUTODISARM:
        signals.stack_address, signals.stack_size, signals.stack_flags = 0, 0, SS_DISABLE
    registers.update(
        rip=action.handler,
        rsp=frame,
        rax=0,
        rdi=info.signo,
        rsi=siginfo,
        rdx=ucontext,
        rflags=registers["rflags"] & ~(_RFLAGS_TF | _RFLAGS_DF | _RFLAGS_RF),
    )
    cpu.set_registers(registers)
    # A handler may compute whatever the program was about: ``fpu__clear_user_states()``.
    vcpu.set_xsave(initial_xsave(len(xsave)))


def siginfo_bytes(info: SignalInfo) -> bytes:
    """``siginfo_t`` (128 bytes)."""
    head = struct.pack("<iii4x", info.signo, 0, info.code)
    if info.signo == SIGCHLD and info.code > 0:
        body = struct.pack("<iIi", info.pid, info.uid, info.status)
    elif info.trapno or (info.code > 0 and info.code != SI_KERNEL):
        body = struct.pack("<Q", info.address)
    else:
        body = struct.pack("<iIQ", info.pid, info.uid, info.value & _MASK)
    return (head + body).ljust(_SIGINFO_SIZE, b"\0")


def restore(task: "Task", vcpu: XsaveState) -> None:
    """rt_sigreturn(2): take the program's registers back from the frame that RSP points behind. One that cannot be
    read, or whose extended state makes no sense, gives the program SIGSEGV (``signal_fault()``), which a handler may
    catch; a RIP that nobody can go to does so when it is gone to.

    :raises GuestExit: SIGSEGV, and nothing catches it.
    """
    cpu, signals = task.cpu, task.signals
    try:
        fields = _UCONTEXT.unpack(task.mem.read(cpu.rsp, _UCONTEXT.size))
    except GuestError:
        return _bad_frame(task, vcpu)
    stack_address, stack_flags, stack_size = fields[2:5]
    fpstate = fields[-2]
    registers = dict(zip(_CONTEXT_ORDER, fields[5:23], strict=True))
    registers["rflags"] = registers["rflags"] & (USER_RFLAGS | _RFLAGS_TF)
    signals.blocked = fields[-1] & ~UNBLOCKABLE
    cpu.set_registers(registers)
    try:
        # What a handler has changed of its alternate stack, its return takes back.
        signals.set_stack(registers["rsp"], stack_address, stack_flags, stack_size)
    except GuestError:
        pass  # As on Linux: a stack that cannot be had is no reason not to return.
    try:
        vcpu.set_xsave(_extended_state(task, vcpu, fpstate))
    except (GuestError, OSError):
        vcpu.set_xsave(initial_xsave(len(vcpu.get_xsave())))
        _bad_frame(task, vcpu)


def _bad_frame(task: "Task", vcpu: XsaveState) -> None:
    task.cpu.set_result(0)
    force(task, vcpu, SignalInfo(SIGSEGV, SI_KERNEL))


def _extended_state(task: "Task", vcpu: XsaveState, address: int) -> bytes:
    """The XSAVE area at ``address``, with what a program must not set taken out; without one, the initial state.

    :raises GuestError: EFAULT; EINVAL, the instruction that is to load it would fault.
    """
    size = len(vcpu.get_xsave())
    if not address:
        return initial_xsave(size)
    head = task.mem.read(address, _XSAVE_MIN)
    magic, _, _, claimed = _SW_BYTES.unpack_from(head, _SW_OFFSET)
    state = bytearray(size)
    is_whole = magic == _MAGIC1 and claimed == size
    if address % (_XRSTOR_ALIGNMENT if is_whole else _FXRSTOR_ALIGNMENT):
        raise GuestError(EINVAL)
    if is_whole:
        state[:] = task.mem.read(address, size)
    else:
        # Only the legacy area is to be believed: x87 and SSE, all other components in their initial state.
        state[:_XSTATE_BV_OFFSET] = head[:_XSTATE_BV_OFFSET]
        state[_XSTATE_BV_OFFSET] = 3
    if int.from_bytes(state[_MXCSR_OFFSET : _MXCSR_OFFSET + 4], "little") & ~_MXCSR_KNOWN:
        raise GuestError(EINVAL)
    state[_SW_OFFSET : _SW_OFFSET + _SW_BYTES.size] = bytes(_SW_BYTES.size)
    return bytes(state)
