"""A process (``struct signal_struct``): what its threads have in common beside memory and files.

Processes form a tree. One that has ended stays as a zombie until its parent has asked how; without a parent (the
sandbox has no init: orphans belong to process 1, which is nobody) it is gone at once.
"""

from typing import TYPE_CHECKING

from pyvmm.linux.signals import SharedSignals
from pyvmm.linux.wait import WaitQueue

if TYPE_CHECKING:
    from pyvmm.linux.files.terminal import Terminal
    from pyvmm.linux.kernel import Kernel
    from pyvmm.linux.task import Task
    from pyvmm.linux.timers import ProcessTimers

#: The process that orphans belong to. There is no such process.
INIT_PID = 1


class Process:
    """One thread group.

    :param parent: None for the sandbox's first process.
    """

    def __init__(
        self, kernel: "Kernel", pid: int, parent: "Process | None", signals: SharedSignals | None = None
    ) -> None:
        self.kernel = kernel
        self.pid = pid
        self.parent = parent
        self.children: dict[int, Process] = {}
        #: By thread id; the first thread's is the pid.
        self.threads: dict[int, Task] = {}
        self.signals = signals or SharedSignals()
        #: Process group and session (credentials(7)).
        self.group = self.session = pid
        #: (soft, hard) by resource number.
        self.rlimits: list[tuple[int, int]] = []
        self.exe_path = b""
        self.dumpable = True
        #: It has executed a program: its parent can no longer choose its process group.
        self.executed = False
        #: What the parent is sent when it ends.
        self.exit_signal = 0
        #: How it ended, as wait(2) encodes it; None while it lives.
        self.status: int | None = None
        self.is_exiting = False
        #: The signal that has stopped it (0: it runs), and whether the parent has been told of a stop or its end.
        self.stopped = 0
        self.untold: str = ""
        #: Threads that were about to run when the process was stopped.
        self.parked: list[Task] = []
        #: Woken when a child ends, stops or goes on.
        self.child_changed = WaitQueue()
        #: Woken when the process ends (pidfd, see poll).
        self.ended = WaitQueue()
        #: Processor time in nanoseconds of threads that have ended, and of children that were waited for.
        self.past_cpu_ns = 0
        self.children_cpu_ns = 0
        self.timers: ProcessTimers | None = None
        #: The controlling terminal of its session.
        self.terminal: Terminal | None = None
        #: A session leader whose terminal was hung up: the process group that was in front then.
        self.former_foreground = 0
        #: The parent-death signal (prctl(2)), and whether orphans below come here.
        self.death_signal = 0
        self.is_subreaper = False
        if parent is not None:
            self.group, self.session = parent.group, parent.session
            self.rlimits = list(parent.rlimits)
            self.exe_path, self.dumpable, self.terminal = parent.exe_path, parent.dumpable, parent.terminal
            parent.children[pid] = self

    @property
    def ppid(self) -> int:
        """The parent's number."""
        return self.parent.pid if self.parent is not None else INIT_PID

    @property
    def leader(self) -> "Task | None":
        """A thread that stands for the process: the first one, or if that has ended another."""
        return self.threads.get(self.pid) or next(iter(self.threads.values()), None)

    @property
    def is_zombie(self) -> bool:
        """Whether it has ended and nobody has asked how."""
        return self.status is not None

    def cpu_ns(self) -> int:
        """Processor time of all its threads, in nanoseconds."""
        return self.past_cpu_ns + sum(task.cpu_ns for task in self.threads.values())

    def __repr__(self) -> str:
        state = "ended" if self.is_zombie else f"{len(self.threads)} threads"
        return f"<Process {self.pid} of {self.ppid}, {state}>"


def is_orphaned_group(process: "Process") -> bool:
    """Whether nobody outside its process group, but of its session, is the parent of a member: then nobody would
    continue one that is stopped (``will_become_orphaned_pgrp()``).
    """
    return not any(
        each.parent is not None and each.parent.group != each.group and each.parent.session == each.session
        for each in process.kernel.processes.values()
        if each.group == process.group and not each.is_zombie
    )
