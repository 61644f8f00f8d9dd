"""``/proc`` (proc(5)): what the sandbox's kernel says of itself and its processes, and nothing of the host."""

from pyvmm.linux.vfs.procfs.tree import PROCFS, make_proc

__all__ = ["PROCFS", "make_proc"]
