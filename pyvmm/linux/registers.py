"""Whose registers are where: in the register page, in the processor, or in a thread's context.

General registers are exchanged whenever the kernel turns to another thread. Extended state, segment bases and CR3 are
in the processor and cost ioctls to exchange, so they are only when a thread really runs: one that is woken, looks, and
sleeps again never touches them.
"""

from typing import TYPE_CHECKING

from pyvmm.linux.cpu import Context, initial_xsave
from pyvmm.linux.wait import State

if TYPE_CHECKING:
    from pyvmm.linux.stage import Processor
    from pyvmm.linux.task import Task


class RegisterFile:
    """The registers of one vCPU, and whose they are.

    :param task: the first thread, which is in the processor.
    """

    processor: "Processor"

    def __init__(self, task: "Task") -> None:
        self._cpu = task.cpu
        #: The thread whose extended state is in the processor, and the page tables that CR3 points to.
        self._loaded = task
        self._root = task.mm.table.root

    def exchange(self, task: "Task", following: "Task") -> None:
        """The kernel turns from ``task``, which may have ended, to another thread."""
        if task.state is not State.DEAD:
            self._cpu.store(_context_of(task))
        assert following.context is not None
        self._cpu.load(following.context)

    def load(self, task: "Task") -> None:
        """Put extended state, segment bases and page tables of ``task`` into the processor, if they are not there."""
        root = task.mm.table.root
        if task is not self._loaded:
            if self._loaded.state is not State.DEAD:
                self._save_extended(self._loaded)
            assert task.context is not None
            self.processor.set_xsave(task.context.extended)
            self._cpu.load_bases(task.context, root)
            self._loaded = task
        elif root != self._root:
            self._cpu.load_root(root)
        self._root = root

    def of(self, task: "Task") -> Context:
        """All registers of the thread that the kernel works for, as they are now."""
        context = _context_of(task)
        if task is self._loaded:
            self._save_extended(task)
        self._cpu.store(context)
        return context

    def reset(self, task: "Task", entry: int, stack: int, rflags: int) -> None:
        """Let the thread that the kernel works for begin anew at ``entry`` (execve(2))."""
        registers = dict.fromkeys(self._cpu.registers(), 0)
        registers.update(rip=entry, rsp=stack, rflags=rflags)
        self._cpu.set_registers(registers)
        self.load(task)
        self._cpu.fs_base = self._cpu.gs_base = 0
        self.processor.set_xsave(initial_xsave(task.kernel.xsave_size))

    def _save_extended(self, task: "Task") -> None:
        context = _context_of(task)
        context.extended = self.processor.get_xsave()
        self._cpu.store_bases(context)


def _context_of(task: "Task") -> Context:
    if task.context is None:
        task.context = Context(b"", 0, 0, 0)
    return task.context
