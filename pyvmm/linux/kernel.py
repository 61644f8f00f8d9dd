"""The kernel that a sandbox's programs believe to run on: what all processes share, and the dispatcher that answers the
vCPU's exits.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from errno import ENOSYS
from typing import TYPE_CHECKING, cast

import pyvmm.linux.syscalls  # noqa: F401 - fills the table
from pyvmm.kvm.abi.exits import KVM_EXIT_INTR, KVM_EXIT_IO, exit_reason_name
from pyvmm.linux import layout, sigframe, stub
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
from pyvmm.linux.futex import FutexTable
from pyvmm.linux.net.network import Network
from pyvmm.linux.registers import RegisterFile
from pyvmm.linux.scheduler import Scheduler
from pyvmm.linux.signals import SignalInfo
from pyvmm.linux.table import TABLE, SystemCall, name_of
from pyvmm.linux.wait import Blocked, Interrupted, State

if TYPE_CHECKING:
    from pyvmm.linux.clock import Clock
    from pyvmm.linux.files import FdTable
    from pyvmm.linux.frames import FrameAllocator
    from pyvmm.linux.limits import Limits
    from pyvmm.linux.output import OutputStream
    from pyvmm.linux.process import Process
    from pyvmm.linux.stage import Processor, Stage
    from pyvmm.linux.strace import Tracer
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs import Vfs
    from pyvmm.memory import GuestMemory

logger = logging.getLogger(__name__)

_MASK = (1 << 64) - 1
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
    #: AT_HWCAP, the size of the processor's extended state in bytes, and what ``/proc/cpuinfo`` tells of it.
    hwcap = 0
    xsave_size = 0
    cpuinfo: bytes = b""

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
        self.scheduler = Scheduler(clock)
        self.futexes = FutexTable()
        self.network: Network = Network(self)
        #: All processes (zombies too) and threads by number.
        self.processes: dict[int, Process] = {}
        self.tasks: dict[int, Task] = {}
        self._last_pid = FIRST_PID
        #: Whose end is the end of the sandbox.
        self.first_process: Process
        #: The thread that the kernel works for.
        self.task: Task
        #: Whose registers are in the processor.
        self.registers: RegisterFile
        self._ran_since = 0
        self._alarm: int | None = None
        self.cpu: Cpu
        self.frames: FrameAllocator
        self._stage: Stage | None = None
        #: To be called in the middle of long work: does not return if the guest is to be stopped.
        self.check: Callable[[], None] = lambda: None

    def add(self, task: "Task") -> None:
        """A new thread, of a process that may be new."""
        self.tasks[task.tid] = task
        self.processes[task.pid] = task.process
        task.process.threads[task.tid] = task
        task.mm.users += 1

    def begin_with(self, task: "Task") -> None:
        """``task`` is the first thread, and it is on the processor."""
        self.add(task)
        self.task = task
        self.registers = RegisterFile(task)
        self.first_process = task.process
        self.cpu, self.frames = task.cpu, task.mm.frames
        self._last_pid = max(self._last_pid, task.pid)

    def attach(self, processor: "Processor", stage: "Stage") -> None:
        """Give the kernel its vCPU and the machine around it."""
        self.registers.processor, self._stage = processor, stage
        self.check = stage.check
        # Files and frames share one limit.
        frames, quota = self.frames, self.vfs.store.quota
        frames.bytes_elsewhere = lambda: quota.bytes_used
        quota.memory_left = lambda: frames.available << layout.PAGE_SHIFT
        for task in self.tasks.values():
            task.mm.check = stage.check

    def detach(self) -> None:
        """The machine is gone: let go of what refers back here, so that all of it is freed at once."""
        self.vfs.close()
        for task in self.tasks.values():
            task.files.close_all()
        self.network.close()
        for process in self.processes.values():
            process.threads.clear()
            process.children.clear()
            process.parent = None
        frames, quota = self.frames, self.vfs.store.quota
        frames.bytes_elsewhere = quota.memory_left = lambda: 0
        self.tasks.clear()
        self.processes.clear()
        self._stage = None
        del self.task, self.first_process, self.cpu, self.registers, self.frames, self.check, self.scheduler

    # --------------------------------------------------------------------------------------- services for system calls

    @property
    def memory_limit(self) -> int:
        """Bytes of memory that the sandbox has, as its program is told."""
        return self.memory.limit

    def memory_used(self) -> int:
        """Bytes of memory in use."""
        return (self.frames.used << layout.PAGE_SHIFT) + self.vfs.bytes_used

    def random(self, count: int) -> bytes:
        """Fresh random bytes, from the host's generator."""
        return os.urandom(count)

    def next_pid(self) -> int:
        """A number that no process, thread, group or session has (``alloc_pid()``)."""
        taken = self.tasks.keys() | self.processes.keys()
        for process in self.processes.values():
            taken |= {process.group, process.session}
        while True:
            self._last_pid = self._last_pid + 1 if self._last_pid + 1 < PID_MAX else FIRST_PID
            if self._last_pid not in taken:
                return self._last_pid

    def process_cpu_ns(self, process: "Process") -> int:
        """Processor time of a process until now."""
        self._account()
        return process.cpu_ns()

    def task_cpu_ns(self, task: "Task") -> int:
        """Processor time of a thread until now."""
        self._account()
        return task.cpu_ns

    def _account(self) -> None:
        """Put the time that has passed down to the thread that the kernel works for."""
        now = self.clock.cpu_ns()
        self.task.cpu_ns += now - self._ran_since
        self._ran_since = now

    def renumber(self, task: "Task", tid: int) -> None:
        """The only thread that is left of a process becomes its first one (``de_thread()``)."""
        for table in (self.tasks, task.process.threads):
            table.pop(task.tid, None)
            table[tid] = task
        task.tid = tid

    def first_process_ended(self, status: int) -> None:
        """The program has ended, with ``status`` as wait(2) gives it, and the sandbox with it."""
        if self.ended is None:
            signo, code = status & 0x7F, status >> 8
            self.ended = Ended("crashed", 128 + signo) if signo else Ended("ok" if not code else "error", code)

    def start(self) -> None:
        """Make a fork ready for its first KVM_RUN, and answer the system call that the template stopped before."""
        if self.frozen:
            self.frozen = False
            for task in self.tasks.values():
                if task.clear_child_tid:
                    # glibc keeps the thread's id there, as the kernel told it when the thread began.
                    task.mem.write_u32(task.clear_child_tid, task.tid)
            self.clock.start()
            if self.task.mm.vvar:
                self.clock.empty(self.memory.view, self.task.mm.vvar)
            self._ran_since = 0
            # The other threads go first: by then they sleep again as they did.
            self.scheduler.give_up()
            self._finish(self._system_call)

    @property
    def minsigstksz(self) -> int:
        """AT_MINSIGSTKSZ: what a signal frame takes of a stack."""
        return self.xsave_size + 1024

    # --------------------------------------------------------------------------------------------------- exits

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
        self._enter(task)
        return True

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

    def _enter(self, task: "Task") -> None:
        """Have the next KVM_RUN go on with ``task``."""
        mm = task.mm
        self.registers.load(task)
        try:
            self.cpu.resume(mm.flush_needed)
        except BadAccess as bad:
            # It cannot go on where it says. Linux's own IRETQ would fault, and so it gets the signal of that.
            info = SignalInfo(bad.signo, bad.code)
            self._guarded(lambda: fault(task, info))
            if task.state is State.DEAD:
                self.scheduler.attention = True
                return
            try:
                self.cpu.resume(mm.flush_needed)
            except BadAccess:
                # The handler cannot be entered either: Linux would fault for ever.
                end_process(task.process, bad.signo)
        mm.flush_needed = False

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
