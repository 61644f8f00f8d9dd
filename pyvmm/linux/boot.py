"""From nothing to a program's first instruction, and from saved state to a program that goes on.

:func:`boot` prepares the memory and the processor of an empty machine for a program. :func:`freeze` gives what of
    that is not in guest memory as plain data, and :class:`FrozenGuest` makes a kernel from it for every fork.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pyvmm.kvm import KvmSegment, KvmSregs
from pyvmm.linux import elf, exec, layout, stub
from pyvmm.linux.areas import InodeTable
from pyvmm.linux.clock import Clock
from pyvmm.linux.cpu import Context, Cpu
from pyvmm.linux.dispatch import call_of
from pyvmm.linux.files import FdTable
from pyvmm.linux.frames import FrameAllocator
from pyvmm.linux.kernel import FIRST_PID, PID_MAX, Kernel
from pyvmm.linux.limits import Limits
from pyvmm.linux.mm import AddressSpace, FrozenSpace
from pyvmm.linux.output import OutputStream
from pyvmm.linux.process import Process
from pyvmm.linux.signals import FrozenSignals, SignalState
from pyvmm.linux.task import Task
from pyvmm.linux.usermem import UserMemory
from pyvmm.linux.vfs import FsContext, Vfs
from pyvmm.linux.wait import State
from pyvmm.memory import GuestMemory

if TYPE_CHECKING:
    from pyvmm.image import Image

MSR_STAR, MSR_LSTAR, MSR_SYSCALL_MASK = 0xC000_0081, 0xC000_0082, 0xC000_0084
#: The MSRs that a process guest depends on; FS and GS bases travel with the segment registers.
MSRS = {MSR_STAR: stub.STAR, MSR_LSTAR: stub.LSTAR, MSR_SYSCALL_MASK: stub.SYSCALL_MASK}


@dataclass(frozen=True, slots=True)
class ProcessorFacts:
    """What the personality has to know of the virtual processor."""

    tsc_khz: int
    hwcap: int
    xsave_size: int
    #: The state components that programs are told of.
    xcr0: int
    #: ``/proc/cpuinfo``.
    cpuinfo: bytes = b""


class Streams:
    """What a sandbox's program reads and writes: bytes in, two bounded streams out."""

    def __init__(
        self,
        limit: int,
        stdin: bytes = b"",
        sinks: tuple[Callable[[bytes], object] | None, Callable[[bytes], object] | None] = (None, None),
    ) -> None:
        self.stdin = stdin
        self.stdout = OutputStream(limit, sinks[0])
        self.stderr = OutputStream(limit, sinks[1])


def initial_sregs(sregs: KvmSregs, root: int) -> KvmSregs:
    """Segment, descriptor-table and control registers of a program in ring 3, CR3 being ``root``."""

    def segment(selector: int, kind: int, dpl: int, *, long: int = 0) -> KvmSegment:
        return KvmSegment(
            base=0, limit=0xFFFF_FFFF, selector=selector, type=kind, present=1, dpl=dpl, db=1 - long, s=1, l=long, g=1
        )

    sregs.cs = segment(stub.USER_CS, 11, 3, long=1)
    sregs.ss = segment(stub.USER_SS, 3, 3)
    sregs.ds = sregs.es = sregs.fs = sregs.gs = KvmSegment(limit=0xFFFF_FFFF, type=3, present=1, dpl=3, db=1, s=1, g=1)
    sregs.tr = KvmSegment(base=layout.TSS_ADDRESS, limit=stub.TSS_LIMIT, selector=stub.TSS_SELECTOR, type=11, present=1)
    sregs.ldt = KvmSegment(unusable=1)
    sregs.gdt.base, sregs.gdt.limit = layout.GDT_ADDRESS, 16 * 8 - 1
    sregs.idt.base, sregs.idt.limit = layout.IDT_ADDRESS, 4095
    sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer = stub.CR0, root, stub.CR4 | stub.CR4_OSXSAVE, stub.EFER
    return sregs


def boot(
    memory: GuestMemory,
    page: memoryview,
    image: "Image",
    argv: Sequence[bytes],
    envp: Sequence[bytes],
    cwd: bytes,
    limits: Limits,
    facts: ProcessorFacts,
    streams: Streams,
) -> Kernel:
    """Make a kernel with one process that is to run the program ``argv[0]`` of ``image``; ``page`` is the vCPU's
    ``kvm_run``.

    :raises GuestError: the program cannot be found or is none.
    """
    stub.write_system_pages(memory.view)
    frames = FrameAllocator(memory, layout.SYSTEM_FRAMES)
    clock = Clock(0, facts.tsc_khz)
    vfs = Vfs(image, clock, limits)
    kernel = Kernel(memory, vfs, clock, limits, streams.stdout, streams.stderr, streams.stdin)
    kernel.hwcap, kernel.xcr0 = facts.hwcap, facts.xcr0
    kernel.xsave_size, kernel.cpuinfo = facts.xsave_size, facts.cpuinfo
    mm = AddressSpace(memory, frames, cast(InodeTable, vfs), prepare=stub.map_system_pages)
    cpu = Cpu(page, memory.view)
    mem = UserMemory(mm, memory.view, memory.words)
    fs = FsContext(vfs)
    files = FdTable(limits.nofile, vfs.store.quota)
    files.install_standard(vfs)
    process = Process(kernel, FIRST_PID, None)
    process.rlimits = limits.initial_rlimits()
    task = Task(kernel, process, cpu, mm, mem, files, fs, SignalState(process.signals), FIRST_PID)
    kernel.begin_with(task)
    fs.chdir(task, cwd)

    path = argv[0]
    inode = vfs.find_executable(task, path)
    program = elf.parse(inode.read_at)
    interpreter = vfs.find_executable(task, program.interpreter) if program.interpreter else None
    identity = exec.Identity(
        task.creds.uid,
        task.creds.euid,
        task.creds.gid,
        task.creds.egid,
        kernel.hwcap,
        kernel.minsigstksz,
        kernel.random(16),
    )
    entry, stack = exec.load(mm, mem, exec.Program(path, inode, interpreter, program, argv, envp), identity)
    process.exe_path = inode.path()
    task.comm = path.rsplit(b"/", 1)[-1][:15]
    registers = dict.fromkeys(cpu.registers(), 0)
    registers.update(rip=entry, rsp=stack, rflags=stub.FIXED_RFLAGS)
    cpu.set_registers(registers)
    return kernel


class FrozenGuest:
    """A saved kernel, decoded once; :meth:`thaw` is on the path of every fork and only copies."""

    def __init__(self, state: dict[str, Any], image: "Image", limits: Limits, facts: ProcessorFacts) -> None:
        self._image, self._limits, self._facts = image, limits, facts
        self._space = FrozenSpace(state["mm"])
        self._frames = state["frames"]
        self._vfs = state["vfs"]
        self._files = state["files"]
        self._fs = state["fs"]
        self._process = state["process"]
        self._rlimits = [tuple(limit) for limit in state["process"]["rlimits"]]
        #: The first is the one that froze, and whose registers are the vCPU's.
        self._threads = [_FrozenThread(thread) for thread in state["threads"]]
        self._numbers = max(thread.offset for thread in self._threads) + 1
        self._monotonic_ns = state["monotonic_ns"]

    def thaw(self, memory: GuestMemory, page: memoryview, streams: Streams) -> Kernel:
        """A kernel of its own for a fork whose vCPU state has been restored into ``page``."""
        limits = self._limits
        clock = Clock(self._monotonic_ns, self._facts.tsc_khz)
        vfs = Vfs.restore(self._image, self._vfs, clock, limits)
        kernel = Kernel(memory, vfs, clock, limits, streams.stdout, streams.stderr, streams.stdin)
        facts = self._facts
        kernel.hwcap, kernel.xcr0 = facts.hwcap, facts.xcr0
        kernel.xsave_size, kernel.cpuinfo = facts.xsave_size, facts.cpuinfo
        frames = FrameAllocator(memory, 0)
        frames.restore(self._frames)
        mm = AddressSpace(memory, frames, cast(InodeTable, vfs), self._space.root, stub.map_system_pages)
        mm.restore(self._space)
        cpu = Cpu(page, memory.view)
        # A pid of its own: by it, libraries that keep a generator per process (OpenSSL) notice that they have been
        # forked.
        pids = PID_MAX - FIRST_PID - self._numbers
        pid = FIRST_PID + 1 + int.from_bytes(kernel.random(4), "little") % pids
        process = Process(kernel, pid, None)
        state = self._process
        process.rlimits = list(self._rlimits)
        process.exe_path = state["exe_path"]
        process.dumpable, process.death_signal = state["dumpable"], state["death_signal"]
        process.is_subreaper = state["is_subreaper"]
        mem = UserMemory(mm, memory.view, memory.words)
        files, fs = FdTable.restore(self._files, vfs), FsContext.restore(self._fs, vfs)
        files.users = len(self._threads)
        process.signals.actions = dict(self._threads[0].signals.actions)
        for frozen in self._threads:
            signals = SignalState.restore(frozen.signals, process.signals)
            task = Task(kernel, process, cpu, mm, mem, files, fs, signals, pid + frozen.offset)
            task.comm = frozen.comm
            task.clear_child_tid, task.robust_list = frozen.clear_child_tid, frozen.robust_list
            task.nice, task.policy, task.mempolicy = frozen.nice, frozen.policy, frozen.mempolicy
            task.no_new_privs = frozen.no_new_privs
            if frozen is self._threads[0]:
                kernel.begin_with(task)
                cpu.rip, cpu.rflags, cpu.rsp = frozen.context.rip, frozen.context.rflags, frozen.context.rsp
            else:
                # It makes the system call that it slept in again, and sleeps again.
                kernel.add(task)
                task.context = frozen.context.copy()
                task.call = call_of(frozen.context)
                task.is_first_try = False
                task.deadline, task.has_deadline = frozen.deadline, frozen.deadline is not None
                kernel.scheduler.make_ready(task)
        kernel.frozen = True
        return kernel


class _FrozenThread:
    """One thread of a saved process."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.offset: int = state["offset"]
        self.comm: bytes = state["comm"]
        self.clear_child_tid: int = state["clear_child_tid"]
        self.robust_list: int = state["robust_list"]
        self.nice: int = state["nice"]
        self.policy: int = state["policy"]
        self.mempolicy: int = state["mempolicy"]
        self.no_new_privs: bool = state["no_new_privs"]
        self.signals = FrozenSignals(state["signals"])
        self.deadline: int | None = state["deadline"]
        self.context = Context(*state["context"])


def freeze(kernel: Kernel) -> dict[str, Any]:
    """The state of a kernel whose program waits for what only a fork has, as plain data.

    :raises ValueError: it has child processes, a thread is not asleep in a system call, or something is open that
        cannot be saved.
    """
    task = kernel.task
    if len(kernel.processes) > 1:
        raise ValueError(f"child processes are alive: {list(kernel.processes.values())}")
    process = task.process
    others = [other for other in process.threads.values() if other is not task]
    return {
        "mm": task.mm.save(),
        "frames": task.mm.frames.save(),
        "vfs": kernel.vfs.save(),
        "files": task.files.save(),
        "fs": task.fs.save(),
        "process": {
            "exe_path": process.exe_path,
            "dumpable": process.dumpable,
            "death_signal": process.death_signal,
            "is_subreaper": process.is_subreaper,
            "rlimits": [tuple(limit) for limit in process.rlimits],
        },
        "threads": [_freeze_thread(kernel, thread) for thread in (task, *others)],
        "monotonic_ns": kernel.clock.monotonic_ns(),
    }


def _freeze_thread(kernel: Kernel, task: Task) -> dict[str, Any]:
    if task is kernel.task:
        context = Context(b"", task.cpu.rip, task.cpu.rflags, task.cpu.rsp)
    else:
        if task.state is not State.BLOCKED or task.context is None:
            raise ValueError(f"a thread is not asleep: {task!r}")
        if task.held:
            raise ValueError(f"a thread is in a call on a file that another has closed: {task!r}")
        context = task.context
    return {
        "offset": task.tid - task.pid,
        "comm": task.comm,
        "clear_child_tid": task.clear_child_tid,
        "robust_list": task.robust_list,
        "nice": task.nice,
        "policy": task.policy,
        "mempolicy": task.mempolicy,
        "no_new_privs": task.no_new_privs,
        "signals": task.signals.save(),
        "deadline": task.deadline if task.has_deadline else None,
        "context": context.save(),
    }
