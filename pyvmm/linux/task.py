"""A thread of a guest program (``struct task_struct``): what is its own, and references to what it shares with
others.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from pyvmm.linux.signalling import send_to_thread
from pyvmm.linux.signals import SignalInfo
from pyvmm.linux.wait import ANYTHING, RESTART, Blocked, Interrupted, State, WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.cpu import Context, Cpu
    from pyvmm.linux.files import FdTable
    from pyvmm.linux.files.base import OpenFile
    from pyvmm.linux.kernel import Kernel
    from pyvmm.linux.mm import AddressSpace
    from pyvmm.linux.process import Process
    from pyvmm.linux.signals import SignalState
    from pyvmm.linux.table import SystemCall
    from pyvmm.linux.usermem import UserMemory
    from pyvmm.linux.vfs import FsContext

#: ``TASK_COMM_LEN`` without the closing NUL.
COMM_LENGTH = 15


@dataclass(slots=True)
class Credentials:
    """Who a task is (credentials(7)). A sandbox has one unprivileged user; nothing makes it more."""

    uid: int = 1000
    gid: int = 1000
    euid: int = 1000
    egid: int = 1000
    suid: int = 1000
    sgid: int = 1000
    fsuid: int = 1000
    fsgid: int = 1000
    groups: tuple[int, ...] = (1000,)


@dataclass(slots=True, eq=False)
class Task:
    """One thread. In a process's first thread ``tid == pid``."""

    kernel: "Kernel"
    process: "Process"
    cpu: "Cpu"
    mm: "AddressSpace"
    mem: "UserMemory"
    files: "FdTable"
    fs: "FsContext"
    signals: "SignalState"
    tid: int
    creds: Credentials = field(default_factory=Credentials)
    comm: bytes = b""
    #: Where the kernel writes 0 (and wakes a futex) when the thread ends; glibc keeps its thread id there.
    clear_child_tid: int = 0
    robust_list: int = 0
    no_new_privs: bool = False
    state: State = State.RUNNABLE
    #: Its registers while another thread has the processor; ``extended`` of them also while it is itself in the kernel.
    context: "Context | None" = None
    #: The system call that it is in, if it has to be made again, and its arguments.
    call: "tuple[SystemCall, tuple[int, ...]] | None" = None
    #: Files of that call whose descriptors another thread has closed, see :mod:`.files.held`.
    held: "dict[int, OpenFile]" = field(default_factory=dict)
    #: The queues that it waits in, and the entry of the timer that ends the wait.
    queues: tuple[WaitQueue, ...] = ()
    timer: Any = None
    #: Whether the present call is made for the first time, and what it has noted for the next.
    is_first_try: bool = True
    scratch: Any = None
    progress: int = 0
    deadline: int | None = None
    has_deadline: bool = False
    #: The call that a signal has interrupted, its arguments, and whether SA_RESTART makes it again.
    interrupted: "tuple[SystemCall, tuple[int, ...], bool] | None" = None
    #: The child that was made by vfork(2) and has neither ended nor executed yet; the parent sleeps as long.
    vfork_done: WaitQueue | None = None
    #: Processor time in nanoseconds up to the last time that it left the processor.
    cpu_ns: int = 0
    nice: int = 0
    #: Bytes that it takes of the sandbox's quota.
    charged: int = 0
    #: SCHED_*, perhaps with SCHED_RESET_ON_FORK.
    policy: int = 0
    #: Its memory policy: MPOL_*, with flags.
    mempolicy: int = 0

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.process.pid

    @property
    def ppid(self) -> int:
        """The number of its process's parent."""
        return self.process.ppid

    @property
    def rlimits(self) -> list[tuple[int, int]]:
        """Its process's resource limits."""
        return self.process.rlimits

    @property
    def exe_path(self) -> bytes:
        """The path of its program."""
        return self.process.exe_path

    # ---------------------------------------------------------------------------------------------------- waiting

    def wait(
        self, *queues: WaitQueue, until: int | None = None, restart: bool = RESTART, progress: int = 0
    ) -> NoReturn:
        """Give up the system call that runs until one of ``queues`` is woken or CLOCK_MONOTONIC (of the guest, ns)
        reaches ``until``; it is then made again.

        :param restart: how it goes on after a signal, see :mod:`.wait`.
        :param progress: bytes transferred since it was made (again).
        :raises Interrupted: there is a signal to be delivered first.
        """
        if self.signals.deliverable:
            raise Interrupted(restart)
        raise Blocked(queues, until, progress)

    def deadline_after(self, nanoseconds: int) -> int:
        """The guest's CLOCK_MONOTONIC so many nanoseconds after the present call was made for the first time."""
        if not self.has_deadline:
            self.deadline = self.kernel.clock.monotonic_ns() + nanoseconds
            self.has_deadline = True
        assert self.deadline is not None
        return self.deadline

    def notify(self, events: int = ANYTHING, /) -> None:
        """What it waits for may have happened."""
        self.kernel.scheduler.wake(self)

    def send_signal(self, signo: int) -> None:
        """Make a signal of the monitor's own (SIGPIPE, SIGXFSZ) pending for this thread."""
        send_to_thread(self, SignalInfo(signo))

    def __repr__(self) -> str:
        return f"<Task {self.tid} of {self.pid} {self.state.value} {self.comm!r}>"
