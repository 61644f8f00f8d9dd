"""``/sys``: one processor, and an empty cgroup hierarchy."""

from pyvmm.linux.abi.stat import SYSFS_MAGIC
from pyvmm.linux.vfs.inode import FileSystem
from pyvmm.linux.vfs.pseudo import GeneratedInode, Producer, PseudoDirectory

SYSFS = FileSystem(
    dev=0x1E, kind=b"sysfs", magic=SYSFS_MAGIC, mountpoint=b"/sys", options=b"ro,nosuid,nodev,noexec,relatime"
)

#: Path -> text.
_FILES: dict[bytes, bytes | Producer] = {
    b"devices/system/cpu/online": b"0\n",
    b"devices/system/cpu/possible": b"0\n",
    b"devices/system/cpu/present": b"0\n",
    b"devices/system/cpu/offline": b"\n",
    b"devices/system/cpu/kernel_max": b"0\n",
    b"devices/system/cpu/cpu0/topology/core_id": b"0\n",
    b"devices/system/cpu/cpu0/topology/physical_package_id": b"0\n",
    b"devices/system/cpu/cpu0/topology/thread_siblings_list": b"0\n",
    b"devices/system/node/online": b"0\n",
    b"devices/system/node/possible": b"0\n",
    b"devices/system/node/node0/cpulist": b"0\n",
    b"kernel/mm/transparent_hugepage/enabled": b"always madvise [never]\n",
    b"kernel/mm/transparent_hugepage/hpage_pmd_size": b"2097152\n",
    b"fs/cgroup/cgroup.controllers": b"cpu memory pids\n",
    b"fs/cgroup/cgroup.procs": lambda task: b"%d\n" % task.pid,
    b"fs/cgroup/cpu.max": b"100000 100000\n",
    b"fs/cgroup/memory.max": lambda task: b"%d\n" % task.kernel.memory_limit,
    b"fs/cgroup/memory.current": lambda task: b"%d\n" % task.kernel.memory_used(),
    b"fs/cgroup/memory.swap.max": b"0\n",
    b"fs/cgroup/pids.max": b"max\n",
}


def make_sys(now: int) -> PseudoDirectory:
    """The root of ``/sys``."""
    root = PseudoDirectory(SYSFS, 1, 0o555, now)
    number = 1
    for path, text in _FILES.items():
        *folders, name = path.split(b"/")
        directory = root
        for folder in folders:
            child = directory.children.get(folder)
            if not isinstance(child, PseudoDirectory):
                number += 1
                child = PseudoDirectory(SYSFS, number, 0o755, now)
                directory.add(folder, child)
            directory = child
        number += 1
        directory.add(name, GeneratedInode(SYSFS, number, _producer(text), now=now))
    return root


def _producer(text: bytes | Producer) -> Producer:
    return (lambda task: text) if isinstance(text, bytes) else text
