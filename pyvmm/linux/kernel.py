"""The kernel that a sandbox's program believes to run on: what all its tasks share, and the dispatcher that answers
the vCPU's exits.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from errno import ENOSYS
from typing import TYPE_CHECKING

import pyvmm.linux.syscalls  # noqa: F401 - fills the table
from pyvmm.kvm.abi.exits import KVM_EXIT_IO, exit_reason_name
from pyvmm.linux import layout, sigframe, stub
from pyvmm.linux.abi.signal import SI_KERNEL, SIGKILL, SIGSEGV, SIGXFSZ
from pyvmm.linux.cpu import R9, RAX, REGS, RFLAGS, RIP, RSP, Cpu
from pyvmm.linux.errors import (
    BadAccess,
    Freeze,
    GuestError,
    GuestExit,
    OutOfMemory,
    OutputLimitReached,
    RegistersSet,
)
from pyvmm.linux.exceptions import signal_of
from pyvmm.linux.signals import SignalInfo
from pyvmm.linux.table import TABLE, name_of

if TYPE_CHECKING:
    from pyvmm.linux.clock import Clock
    from pyvmm.linux.limits import Limits
    from pyvmm.linux.output import OutputStream
    from pyvmm.linux.sigframe import XsaveState
    from pyvmm.linux.strace import Tracer
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs import Vfs
    from pyvmm.memory import GuestMemory

logger = logging.getLogger(__name__)

_MASK = (1 << 64) - 1
_INVALID_OPCODE, _GENERAL_PROTECTION, _PAGE_FAULT = 6, 13, 14
_INT_N = b"\xcd"
#: Processes numbered below this belong, as on any Linux, to the system.
FIRST_PID = 300
PID_MAX = 32768


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: ``status`` as a ``Result`` has it, ``code`` its exit code or 128 + signal."""

    status: str
    code: int
    #: A line for the program's standard error, when it could not say itself what happened to it.
    message: str = ""


class Kernel:
    """One sandbox's kernel. It knows nothing of KVM but the layout of the register page."""

    hostname: bytes = b"sandbox"
    cpu_count = 1

    def __init__(
        self,
        memory: "GuestMemory",
        vfs: "Vfs",
        clock: "Clock",
        limits: "Limits",
        stdout: "OutputStream",
        stderr: "OutputStream",
        stdin: bytes = b"",
    ) -> None:
        self.memory = memory
        self.vfs = vfs
        vfs.kernel = self
        vfs.store.frame_view = lambda frame: memory.view[frame << 12 : (frame + 1) << 12]
        self.clock = clock
        self.limits = limits
        self.stdout, self.stderr, self.stdin = stdout, stderr, stdin
        self.ended: Ended | None = None
        #: Set while the program waits, in a template, for what only a fork has.
        self.frozen = False
        #: The program that a fork is to run; what the control file gives to the agent.
        self.program: bytes | None = None
        #: The agent has said that its generators are fresh. Until then nothing of the user's has run.
        self.refreshed = False
        #: Names of calls that were made and are not there (ENOSYS); numbers without a name are counted together.
        self.missing: Counter[str] = Counter()
        self.tracer: Tracer | None = None
        self.task: Task
        self.cpu: Cpu
        self.registers: XsaveState
        self._wait: Callable[[int | None], None]
        #: To be called in the middle of long work: does not return if the guest is to be stopped.
        self.check: Callable[[], None] = lambda: None

    def attach(
        self,
        task: "Task",
        registers: "XsaveState",
        wait: Callable[[int | None], None],
        check: Callable[[], None],
    ) -> None:
        """Give the kernel its program's task and its vCPU.

        ``wait(until)`` sleeps on the host until CLOCK_MONOTONIC ``until`` (ns; None: for ever), ``check()`` is for the
        middle of long work; neither returns if the guest is to be stopped.
        """
        self.task, self.cpu = task, task.cpu
        # Files and frames share one limit.
        frames, quota = task.mm.frames, self.vfs.store.quota
        frames.bytes_elsewhere = lambda: quota.bytes_used
        quota.memory_left = lambda: frames.available << layout.PAGE_SHIFT
        self.registers, self._wait = registers, wait
        self.check = task.mm.check = check

    def detach(self) -> None:
        """The machine is gone: let go of what refers back here, so that all of it is freed at once."""
        self.vfs.close()
        self.task.files.close_all()
        frames, quota = self.task.mm.frames, self.vfs.store.quota
        frames.bytes_elsewhere = quota.memory_left = lambda: 0
        del self.task, self.cpu, self.registers, self._wait, self.check

    # ---------------------------------------------------------------------------------------- services for system calls

    @property
    def memory_limit(self) -> int:
        """Bytes of memory that the sandbox has, as its program is told."""
        return self.memory.limit

    def memory_used(self) -> int:
        """Bytes of memory in use."""
        return (self.task.mm.frames.used << layout.PAGE_SHIFT) + self.vfs.bytes_used

    def random(self, count: int) -> bytes:
        """Fresh random bytes, from the host's generator."""
        return os.urandom(count)

    def sleep_until(self, monotonic_ns: int | None) -> None:
        """Sleep until the guest's CLOCK_MONOTONIC shows ``monotonic_ns``, or for ever."""
        self._wait(None if monotonic_ns is None else self.clock.host_monotonic_ns(monotonic_ns))

    def start(self) -> None:
        """Make a fork ready for its first KVM_RUN, and answer the system call that the template stopped before."""
        if self.frozen:
            self.frozen = False
            task = self.task
            if task.clear_child_tid:
                # glibc keeps the thread's id there, as the kernel told it when the thread began.
                task.mem.write_u32(task.clear_child_tid, task.tid)
            self.clock.start(self.memory.view, task.mm.vvar)
            self._finish(self._system_call())

    # --------------------------------------------------------------------------------------------------- exits

    def handle_exit(self, reason: int) -> bool:
        """Serve one exit of the vCPU; False: the program has ended or frozen."""
        if reason == KVM_EXIT_IO:
            rip = self.cpu.words[RIP]
            if rip == stub.SYSCALL_OUT or rip == stub.IRETQ_ADDRESS:
                self.cpu.enter_system_call()
                return self._finish(self._system_call())
            vector = stub.vector_at(rip)
            if vector is not None:
                return self._finish(lambda: self._exception(vector))
            # An OUT or IN of the program's own, which software KVM lets out of ring 3: hardware would have raised #GP.
            self._take_registers()
            return self._finish(lambda: self._fault(SignalInfo(SIGSEGV, SI_KERNEL, trapno=13)))
        self.fail(f"the virtual processor stopped: {exit_reason_name(reason)}")
        return False

    def fail(self, message: str) -> None:
        """The machine cannot go on: the program has crashed."""
        self.ended = Ended("crashed", 128 + SIGSEGV, message)

    def _take_registers(self) -> None:
        cpu, words = self.cpu, self.cpu.words
        cpu.rip, cpu.rflags, cpu.rsp = words[RIP], words[RFLAGS], words[RSP]

    def _finish(self, step: Callable[[], None]) -> bool:
        """Run one step of the kernel, deliver signals, and prepare the program's return; every way to end comes out
        here.
        """
        try:
            step()
            self._return_to_program()
        except GuestExit as end:
            self.ended = (
                Ended("crashed", 128 + end.signo) if end.signo else Ended("ok" if not end.code else "error", end.code)
            )
        except OutOfMemory:
            limit = self.memory.limit >> 20
            self.ended = Ended("oom", 128 + SIGKILL, f"Killed: the memory limit of {limit} MiB is reached")
        except OutputLimitReached:
            self.ended = Ended("output_limit", 128 + SIGXFSZ)
        except Freeze:
            self.frozen = True
            return False
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception:
            logger.exception("the personality failed; its guest is killed")
            self.ended = Ended("crashed", 128 + SIGKILL, "Killed: internal error of the sandbox")
        return self.ended is None

    def _return_to_program(self) -> None:
        task = self.task
        try:
            if task.signals.pending:
                sigframe.deliver(task, self.registers)
            self.cpu.resume(task.mm.flush_needed)
        except BadAccess as bad:
            sigframe.force(task, self.registers, SignalInfo(bad.signo, bad.code))
            try:
                self.cpu.resume(task.mm.flush_needed)
            except BadAccess:
                # The handler cannot be entered either: Linux would fault for ever.
                raise GuestExit(signo=bad.signo) from None
        task.mm.flush_needed = False

    def _system_call(self) -> Callable[[], None]:
        return self._traced_call if self.tracer is not None else self._call

    def _call(self) -> None:
        words = self.cpu.words
        number = words[RAX] & 0xFFFF_FFFF
        call = TABLE.get(number)
        if call is None:
            self.missing[name_of(number) if number < 1024 else "unknown"] += 1
            words[RAX] = -ENOSYS & _MASK
            return
        try:
            words[RAX] = call.function(self.task, *call.decode(self.cpu.page, REGS)) & _MASK
        except GuestError as error:
            words[RAX] = -error.errno & _MASK
        except RegistersSet:
            pass

    def _traced_call(self) -> None:
        words = self.cpu.words
        number = words[RAX] & 0xFFFF_FFFF
        call = TABLE.get(number)
        assert self.tracer is not None
        arguments = call.decode(self.cpu.page, REGS) if call else ()
        text = self.tracer.describe(self.task, number, call, arguments)
        try:
            self._call()
        except BaseException as error:
            self.tracer.report(text, f"? <{type(error).__name__}>")
            raise
        self.tracer.returned(self.task, text, call, arguments, words[RAX])

    # ---------------------------------------------------------------------------------------------- exceptions

    def _exception(self, vector: int) -> None:
        error, from_program = self.cpu.enter_exception(vector)
        if not from_program:
            raise RuntimeError(f"exception {vector} inside the monitor's own code, RIP {self.cpu.rip:#x}")
        if vector == _PAGE_FAULT:
            address = self.cpu.fault_address
            try:
                self.task.mm.fault(address, bool(error & 2), bool(error & 16))
            except BadAccess as bad:
                info = SignalInfo(bad.signo, bad.code, address, trapno=vector, error=error, cr2=address)
                self._fault(info)
            return
        if (
            vector == _INVALID_OPCODE
            and self.task.mem.readable(self.cpu.rip, 1)
            and self.task.mem.read(self.cpu.rip, 1) == _INT_N
        ):
            # An INT n that no gate allows; kvm_pvm makes #UD of it where a processor would raise #GP.
            vector = _GENERAL_PROTECTION
        signo, code = signal_of(vector)
        self._fault(SignalInfo(signo, code, self.cpu.rip, trapno=vector, error=error))

    def _fault(self, info: SignalInfo) -> None:
        sigframe.force(self.task, self.registers, info)

    def tsc_at_call(self) -> int:
        """The counter that the vDSO passed along with a system call made for calibration."""
        return self.cpu.words[R9]
