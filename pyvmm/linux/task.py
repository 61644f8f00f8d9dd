"""A thread of a guest program (``struct task_struct``): what is its own, and references to what it shares with
others.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyvmm.linux.cpu import Cpu
    from pyvmm.linux.files import FdTable
    from pyvmm.linux.kernel import Kernel
    from pyvmm.linux.mm import AddressSpace
    from pyvmm.linux.signals import SignalState
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
    cpu: "Cpu"
    mm: "AddressSpace"
    mem: "UserMemory"
    files: "FdTable"
    fs: "FsContext"
    signals: "SignalState"
    pid: int
    tid: int
    ppid: int = 1
    creds: Credentials = field(default_factory=Credentials)
    comm: bytes = b""
    exe_path: bytes = b""
    argv: list[bytes] = field(default_factory=list)
    envp: list[bytes] = field(default_factory=list)
    #: (soft, hard) by resource number.
    rlimits: list[tuple[int, int]] = field(default_factory=list)
    #: Where the kernel writes 0 (and wakes a futex) when the thread ends; glibc keeps its thread id there.
    clear_child_tid: int = 0
    robust_list: int = 0
    no_new_privs: bool = False
    dumpable: bool = True

    def send_signal(self, signo: int) -> None:
        """Make a signal of the monitor's own (SIGPIPE, SIGXFSZ) pending for this thread."""
        self.signals.send(signo)

    def save(self) -> dict[str, object]:
        """Plain data: what is this thread's own, registers included."""
        return {
            "registers": self.cpu.registers(),
            "fs_base": self.cpu.fs_base,
            "gs_base": self.cpu.gs_base,
            "pid": self.pid,
            "comm": self.comm,
            "exe_path": self.exe_path,
            "argv": list(self.argv),
            "envp": list(self.envp),
            "rlimits": [tuple(limit) for limit in self.rlimits],
            "clear_child_tid": self.clear_child_tid,
            "robust_list": self.robust_list,
            "signals": self.signals.save(),
        }
