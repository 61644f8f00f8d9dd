"""Forking: a loaded snapshot becomes a machine that can run.

This is the path of every request, and nothing is here that could be done before: mapping the snapshot's memory
copy-on-write, making a VM around it, and giving its processor the saved state. The guest's own part (a copy of its
plain data) is its kind's, see :mod:`pyvmm.linux.boot`.
"""

from pyvmm.errors import SnapshotError
from pyvmm.host import Host
from pyvmm.machine import Machine
from pyvmm.memory import GuestMemory
from pyvmm.snapshot import Snapshot

#: Bytes that a fork can use beyond the snapshot's before a further memory slot has to be added.
_SLACK = 4 << 20


def fork(host: Host, snapshot: Snapshot) -> Machine:
    """A new machine that continues where the snapshot was taken.

    :raises SnapshotError: the processor's state is not one for this host.
    :raises KvmError: KVM refuses (descriptors, mappings, memory); nothing is left behind.
    """
    manifest = snapshot.manifest
    in_use = min(manifest.memory_size + _SLACK, manifest.memory_limit)
    memory = GuestMemory(manifest.memory_limit, in_use, snapshot.memory_fd, manifest.memory_size)
    machine = Machine(host, memory, has_apic=snapshot.vcpu.system is not None)
    try:
        machine.restore_vcpu(snapshot.vcpu)
    except ValueError as error:
        machine.close()
        raise SnapshotError(f"{snapshot.path}: the state of its processor makes no sense: {error}") from error
    except BaseException:
        machine.close()
        raise
    return machine
