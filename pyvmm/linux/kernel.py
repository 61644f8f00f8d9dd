"""The kernel that a sandbox's programs believe to run on: what all processes share."""

import os
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyvmm.linux import layout
from pyvmm.linux.cpu import Cpu
from pyvmm.linux.dispatch import Dispatcher, Ended
from pyvmm.linux.futex import FutexTable
from pyvmm.linux.net.network import Network
from pyvmm.linux.registers import RegisterFile
from pyvmm.linux.scheduler import Scheduler

if TYPE_CHECKING:
    from pyvmm.linux.clock import Clock
    from pyvmm.linux.frames import FrameAllocator
    from pyvmm.linux.limits import Limits
    from pyvmm.linux.output import OutputStream
    from pyvmm.linux.process import Process
    from pyvmm.linux.stage import Processor, Stage
    from pyvmm.linux.strace import Tracer
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs import Vfs
    from pyvmm.memory import GuestMemory

#: Processes numbered below this belong, as on any Linux, to the system.
FIRST_PID = 300
PID_MAX = 32768


class Kernel(Dispatcher):
    """One sandbox's kernel. It knows nothing of KVM but the layout of the register page."""

    hostname: bytes = b"sandbox"
    cpu_count = 1
    #: AT_HWCAP, the components of the processor's extended state, its size in bytes, and what ``/proc/cpuinfo`` tells.
    hwcap = 0
    xcr0 = 0
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
