"""The dispatcher: what becomes of each exit of the vCPU, and which thread goes on after it."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from errno import ENOSYS
from typing import TYPE_CHECKING, cast

import pyvmm.linux.syscalls  # noqa: F401 - fills the table
from pyvmm.kvm.abi.exits import KVM_EXIT_INTR, KVM_EXIT_IO, exit_reason_name
from pyvmm.linux import sigframe, stub
from pyvmm.linux.abi.signal import CORE_DUMPING, SI_KERNEL, SIGKILL, SIGSEGV, SIGXFSZ
from pyvmm.linux.cpu import R9, RAX, REGS, RIP, Context, Cpu
from pyvmm.linux.ending import end_process, end_thread
from pyvmm.linux.errors import (
    BadAccess,
    Freeze,
    GuestError,
    GuestExit,
    OutOfMemory,
    OutputLimitReached,
    RegistersSet,
    ThreadExit,
)
from pyvmm.linux.exceptions import GENERAL_PROTECTION, fault, handle_exception
from pyvmm.linux.files.held import HeldFiles, let_go
from pyvmm.linux.registers import RegisterFile
from pyvmm.linux.scheduler import Scheduler
from pyvmm.linux.signals import SignalInfo
from pyvmm.linux.table import TABLE, SystemCall, name_of
from pyvmm.linux.wait import Blocked, Interrupted, State

if TYPE_CHECKING:
    from pyvmm.linux.clock import Clock
    from pyvmm.linux.files import FdTable
    from pyvmm.linux.stage import Stage
    from pyvmm.linux.strace import Tracer
    from pyvmm.linux.task import Task
    from pyvmm.memory import GuestMemory

logger = logging.getLogger(__name__)

_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: ``status`` as a ``Result`` has it, ``code`` its exit code or 128 + signal."""

    status: str
    code: int
    #: A line for the program's standard error, when it could not say itself what happened to it.
    message: str = ""


class Dispatcher:
    """Answers exits on behalf of the threads of one sandbox. (What they all share is :class:`.Kernel`, of which this is
    the part that runs.)
    """

    memory: "GuestMemory"
    clock: "Clock"
    scheduler: Scheduler
    #: How the program ended; None while it runs.
    ended: Ended | None
    #: It waits, in a template, for what only a fork has.
    frozen: bool
    #: Names of calls that were made and are not there (ENOSYS); numbers without a name are counted together.
    missing: Counter[str]
    tracer: "Tracer | None"
    #: The thread that the kernel works for, and whose registers are in the processor.
    task: "Task"
    registers: RegisterFile
    cpu: Cpu
    _stage: "Stage | None"
    _ran_since: int
    _alarm: int | None

    def _account(self) -> None:
        """Put the time that has passed down to the thread that the kernel works for."""
        now = self.clock.cpu_ns()
        self.task.cpu_ns += now - self._ran_since
        self._ran_since = now

    def handle_exit(self, reason: int) -> bool:
        """Serve one exit of the vCPU; False: the program has ended or frozen."""
        if reason == KVM_EXIT_IO:
            rip = self.cpu.words[RIP]
            if rip == stub.SYSCALL_OUT or rip == stub.IRETQ_ADDRESS:
                self.cpu.enter_system_call()
                return self._finish(self._system_call)
            vector = stub.vector_at(rip)
            if vector is not None:
                return self._finish(lambda: handle_exception(self.task, vector))
            # An OUT or IN of the program's own, which software KVM lets out of ring 3: hardware would have raised #GP.
            self.cpu.stop()
            return self._finish(lambda: fault(self.task, SignalInfo(SIGSEGV, SI_KERNEL, trapno=GENERAL_PROTECTION)))
        if reason == KVM_EXIT_INTR:
            if self.cpu.interrupted() and not self.registers.processor.has_pending_exception():
                self.scheduler.attention = True
                return self._finish(lambda: None)
            # On its way here anyway: it goes on, and what is due is done at that exit.
            self.scheduler.attention = True
            return True
        self.fail(f"the virtual processor stopped: {exit_reason_name(reason)}")
        return False

    def fail(self, message: str) -> None:
        """The machine cannot go on: the program has crashed."""
        self.ended = Ended("crashed", 128 + SIGSEGV, message)

    def _finish(self, step: Callable[[], None]) -> bool:
        """Run one step of the kernel, then see who goes on; every way to end comes out here."""
        try:
            try:
                step()
            except (GuestExit, ThreadExit) as end:
                self._end(end)
            task = self.task
            signals, mm = task.signals, task.mm
            if not (
                self.scheduler.attention
                or signals.pending.mask
                or signals.shared.pending.mask
                or signals.saved_mask is not None
                or task.interrupted is not None
            ):
                # By far the most frequent case: the same thread goes on, and nothing else is to be done.
                try:
                    self.cpu.resume(mm.flush_needed)
                    mm.flush_needed = False
                    return True
                except BadAccess:
                    pass
            while self.ended is None and not self._go_on():
                pass
        except OutOfMemory:
            limit = self.memory.limit >> 20
            self.ended = Ended("oom", 128 + SIGKILL, f"Killed: the memory limit of {limit} MiB is reached")
        except OutputLimitReached:
            self.ended = Ended("output_limit", 128 + SIGXFSZ)
        except Freeze:
            # What is in the processor becomes part of the snapshot.
            self.registers.load(self.task)
            self.frozen = True
            return False
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception:
            logger.exception("the personality failed; its guest is killed")
            self.ended = Ended("crashed", 128 + SIGKILL, "Killed: internal error of the sandbox")
        return self.ended is None

    def _guarded(self, step: Callable[[], None]) -> None:
        """Run a step on behalf of the present thread, which may end by it."""
        try:
            step()
        except (GuestExit, ThreadExit) as end:
            self._end(end)

    def _end(self, end: GuestExit | ThreadExit) -> None:
        """The present thread, or its whole process, has come to its end."""
        self.scheduler.attention = True
        process = self.task.process
        if isinstance(end, ThreadExit) and len(process.threads) > 1:
            end_thread(self.task)
        elif isinstance(end, GuestExit) and end.signo:
            end_process(process, end.signo | (0x80 if end.signo in CORE_DUMPING else 0))
        else:
            end_process(process, end.code << 8)

    def _go_on(self) -> bool:
        """Prepare the return of a thread to its program; False: look again who can go on."""
        task = self.task
        scheduler = self.scheduler
        if scheduler.attention:
            scheduler.attention = False
            following = scheduler.choose(task if task.state is not State.DEAD else None)
            if following is None:
                assert self._stage is not None
                until = scheduler.timers.next_time()
                self._stage.sleep(None if until is None else self.clock.host_monotonic_ns(until))
                scheduler.attention = True
                return False
            if following is not task:
                self._switch(following)
                task = following
            self._set_alarm(self._next_interruption(task))
        if task.call is not None:
            self._guarded(self._call_again)
            if scheduler.attention:
                return False
        signals = task.signals
        if signals.deliverable:
            # A frame holds the extended state too, so it must be this thread's that is in the processor.
            self.registers.load(task)
            self._guarded(self._deliver)
            if task.state is not State.RUNNABLE or task.process.stopped:
                scheduler.attention = True
                return False
        if task.interrupted is not None:
            # The signal was another thread's, or it ran no handler: the call goes on as if nothing had been.
            call, arguments, _ = task.interrupted
            task.interrupted, task.call = None, (call, arguments)
            task.is_first_try = False
            return False
        if signals.saved_mask is not None:
            signals.blocked, signals.saved_mask = signals.saved_mask, None
            if signals.deliverable:
                return False
        return self._enter(task)

    def _switch(self, following: "Task") -> None:
        """Work for another thread: its general registers into the register page."""
        self._account()
        self.registers.exchange(self.task, following)
        self.task = following

    def _next_interruption(self, task: "Task") -> int | None:
        """When the program that is about to run is to be interrupted at the latest (the guest's CLOCK_MONOTONIC)."""
        event = self.scheduler.next_event()
        timers = task.process.timers
        if timers is not None:
            for timer in timers.cpu_timers():
                timer.expire()
                if timer.when is not None:
                    due = self.clock.monotonic_ns() + timer.left()
                    event = due if event is None else min(event, due)
        return event

    def _set_alarm(self, at_ns: int | None) -> None:
        if at_ns != self._alarm:
            self._alarm = at_ns
            assert self._stage is not None
            self._stage.set_alarm(None if at_ns is None else self.clock.host_monotonic_ns(at_ns))

    def _enter(self, task: "Task") -> bool:
        """Have the next KVM_RUN go on with ``task``; False if that was its end.

        The processor then still stands in the monitor's own code with the registers of a program: on hardware in ring
        0, about to pop a frame from a stack of the program's. It must not run on so.
        """
        mm = task.mm
        self.registers.load(task)
        try:
            self.cpu.resume(mm.flush_needed)
        except BadAccess as bad:
            # It cannot go on where it says. Linux's own IRETQ would fault, and so it gets the signal of that.
            info = SignalInfo(bad.signo, bad.code)
            self._guarded(lambda: fault(task, info))
            if task.state is not State.DEAD:
                try:
                    self.cpu.resume(mm.flush_needed)
                except BadAccess:
                    # The handler cannot be entered either: Linux would fault for ever.
                    end_process(task.process, bad.signo)
            if task.state is State.DEAD:
                self.scheduler.attention = True
                return False
        mm.flush_needed = False
        return True

    # ------------------------------------------------------------------------------------------------ system calls

    def _system_call(self) -> None:
        task = self.task
        words = self.cpu.words
        number = words[RAX] & 0xFFFF_FFFF
        call = TABLE.get(number)
        if call is None:
            self.missing[name_of(number) if number < 1024 else "unknown"] += 1
            if self.tracer is not None:
                self.tracer.report(self.tracer.describe(task, number, None, ()), "-1 ENOSYS")
            words[RAX] = -ENOSYS & _MASK
            return
        task.is_first_try, task.has_deadline = True, False
        task.scratch, task.progress = None, 0
        self._invoke(task, call, call.decode(self.cpu.page, REGS))

    def _call_again(self) -> None:
        """Make the system call that the present thread sleeps in again."""
        task = self.task
        assert task.call is not None
        (call, arguments), task.call = task.call, None
        if not task.held:
            self._invoke(task, call, arguments)
            return
        table = task.files
        task.files = cast("FdTable", HeldFiles(table, task.held))
        try:
            self._invoke(task, call, arguments)
        finally:
            task.files = table
            if task.call is None:
                let_go(task)

    def _invoke(self, task: "Task", call: SystemCall, arguments: tuple[int, ...]) -> None:
        tracer = self.tracer
        text = "" if tracer is None else tracer.describe(task, call.number, call, arguments)
        words = self.cpu.words
        try:
            words[RAX] = call.function(task, *arguments) & _MASK
        except Interrupted as interrupted:
            # RAX still has the number: the call can be made again.
            task.interrupted = (call, arguments, interrupted.restart)
            if tracer is not None:
                tracer.report(text, "? ERESTART (To be restarted if no handler says otherwise)")
            return
        except GuestError as error:
            words[RAX] = -error.errno & _MASK
        except RegistersSet:
            pass
        except Blocked as wait:
            self.scheduler.block(task, call, arguments, wait)
            return
        except BaseException as error:
            if tracer is not None:
                tracer.report(text, f"? <{type(error).__name__}>")
            raise
        if tracer is not None:
            tracer.returned(task, text, call, arguments, words[RAX])

    def _deliver(self) -> None:
        sigframe.deliver(self.task, self.registers.processor)

    def tsc_at_call(self) -> int:
        """The counter that the vDSO passed along with a system call made for calibration."""
        return self.cpu.words[R9]


def call_of(context: Context) -> tuple[SystemCall, tuple[int, ...]] | None:
    """The system call that a thread with these registers is in."""
    call = TABLE.get(context.rax & 0xFFFF_FFFF)
    return None if call is None else (call, call.decode(context.general, 0))
