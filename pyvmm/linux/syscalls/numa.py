"""Where memory comes from (numa(7)): a machine with one node, so policies are kept and told, and change nothing."""

from errno import EFAULT, EINVAL, EPERM
from typing import TYPE_CHECKING

from pyvmm.linux.abi.mempolicy import (
    MPOL_BIND,
    MPOL_DEFAULT,
    MPOL_F_ADDR,
    MPOL_F_MEMS_ALLOWED,
    MPOL_F_NODE,
    MPOL_F_NUMA_BALANCING,
    MPOL_F_RELATIVE_NODES,
    MPOL_F_STATIC_NODES,
    MPOL_INTERLEAVE,
    MPOL_LOCAL,
    MPOL_MAX,
    MPOL_MF_MOVE_ALL,
    MPOL_MF_VALID,
    MPOL_MODE_FLAGS,
    MPOL_PREFERRED,
    MPOL_PREFERRED_MANY,
    MPOL_WEIGHTED_INTERLEAVE,
)
from pyvmm.linux.areas import MAP_MEMPOLICY, MAP_MEMPOLICY_SHIFT
from pyvmm.linux.errors import GuestError
from pyvmm.linux.layout import PAGE_MASK, PAGE_SIZE, TASK_SIZE, page_up
from pyvmm.linux.table import Flags, Int, LongFlags, Pointer, Size, ULong, syscall

if TYPE_CHECKING:
    from pyvmm.linux.task import Task

#: ``MAX_NUMNODES`` and ``nr_node_ids``: bits that a mask may have, and how many nodes there are.
_MAX_NODES, _NODES = 1024, 1
_ONLY_NODE = 1
_GIVEN_NODES = MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES


def _read_nodes(task: "Task", address: int, bits: int) -> int:
    """A mask of nodes (``get_nodes()``), of which the caller gives the number of bits plus one: EINVAL, EFAULT."""
    bits = (bits - 1) % (1 << 64)
    if not bits or not address:
        return 0
    if bits > PAGE_SIZE * 8:
        raise GuestError(EINVAL)
    mask = int.from_bytes(task.mem.read(address, (bits + 63) // 64 * 8), "little") & (1 << bits) - 1
    if mask >> _MAX_NODES:
        raise GuestError(EINVAL)
    return mask


def _policy(mode: int, nodes: int) -> int:
    """The policy that ``mode``, with its flags, and ``nodes`` make, as it is told again (``mpol_new()``,
    ``mpol_set_nodemask()``): EINVAL.
    """
    flags, mode = mode & MPOL_MODE_FLAGS, mode & ~MPOL_MODE_FLAGS
    given = flags & _GIVEN_NODES
    if mode == MPOL_DEFAULT:
        if nodes:
            raise GuestError(EINVAL)
        return MPOL_DEFAULT
    if mode == MPOL_PREFERRED and not nodes and not given:
        return MPOL_LOCAL
    if mode == MPOL_LOCAL:
        if nodes or given:
            raise GuestError(EINVAL)
        return MPOL_LOCAL
    # Relative nodes are counted round among those that there are.
    if not nodes or not (flags & MPOL_F_RELATIVE_NODES or nodes & _ONLY_NODE):
        raise GuestError(EINVAL)
    return mode | flags


def _check_mode(mode: int) -> None:
    """``sanitize_mpol_flags()``: EINVAL."""
    flags, kind = mode & MPOL_MODE_FLAGS, mode & ~MPOL_MODE_FLAGS
    if not 0 <= kind < MPOL_MAX or flags & _GIVEN_NODES == _GIVEN_NODES:
        raise GuestError(EINVAL)
    if flags & MPOL_F_NUMA_BALANCING and kind not in (MPOL_BIND, MPOL_PREFERRED_MANY):
        raise GuestError(EINVAL)


def _nodes_of(policy: int) -> int:
    return 0 if policy & ~MPOL_MODE_FLAGS in (MPOL_DEFAULT, MPOL_LOCAL) else _ONLY_NODE


@syscall
def set_mempolicy(task: "Task", mode: Int, nodes: Pointer, bits: ULong) -> int:
    """set_mempolicy(2)."""
    _check_mode(mode)
    task.mempolicy = _policy(mode, _read_nodes(task, nodes, bits))
    return 0


@syscall
def mbind(task: "Task", address: Pointer, length: Size, mode: Int, nodes: Pointer, bits: ULong, flags: Flags) -> int:
    """mbind(2).

    All memory is on the only node, so MPOL_MF_STRICT finds nothing amiss and MPOL_MF_MOVE moves nothing.
    """
    _check_mode(mode)
    wanted = _read_nodes(task, nodes, bits)
    if flags & ~MPOL_MF_VALID:
        raise GuestError(EINVAL)
    if flags & MPOL_MF_MOVE_ALL:
        raise GuestError(EPERM)
    size = page_up(length) % (1 << 64)
    if address & PAGE_MASK or address + size >= 1 << 64:
        raise GuestError(EINVAL)
    if not size:
        return 0
    policy = _policy(mode, wanted)
    end = min(address + size, TASK_SIZE)
    reached, has_hole = address, end < address + size
    found = task.mm.areas(address, end)
    for vma in found:
        has_hole |= vma.start > reached
        reached = vma.end
    # The default policy may be given to a range with holes.
    if not found or ((has_hole or reached < end) and policy != MPOL_DEFAULT):
        raise GuestError(EFAULT)
    # Mode and flags take the lower 16 bits.
    try:
        task.mm.advise(address, end - address, policy << MAP_MEMPOLICY_SHIFT, MAP_MEMPOLICY)
    except GuestError:
        if policy != MPOL_DEFAULT:
            raise
    return 0


@syscall
def get_mempolicy(
    task: "Task", policy: Pointer, nodes: Pointer, bits: ULong, address: Pointer, flags: LongFlags
) -> int:
    """get_mempolicy(2).

    The nodes that MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES came with are told as those that they mean.
    """
    if nodes and bits < _NODES:
        raise GuestError(EINVAL)
    found, mask = _found(task, address, flags)
    if policy:
        task.mem.write_u32(policy, found)
    if nodes:
        size = (bits - 1 + 63) // 64 * 8
        if size > PAGE_SIZE:
            raise GuestError(EINVAL)
        task.mem.write(nodes, mask.to_bytes(8, "little").ljust(size, b"\0")[:size])
    return 0


def _found(task: "Task", address: int, flags: int) -> tuple[int, int]:
    """``do_get_mempolicy()``: the policy (or the node), and the nodes."""
    if flags & ~(MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED):
        raise GuestError(EINVAL)
    if flags & MPOL_F_MEMS_ALLOWED:
        if flags & (MPOL_F_NODE | MPOL_F_ADDR):
            raise GuestError(EINVAL)
        return 0, _ONLY_NODE
    policy = task.mempolicy
    if flags & MPOL_F_ADDR:
        vma = task.mm.find(address)
        if vma is None:
            raise GuestError(EFAULT)
        policy = (vma.flags & MAP_MEMPOLICY) >> MAP_MEMPOLICY_SHIFT or policy
    elif address:
        raise GuestError(EINVAL)
    mask = _nodes_of(policy)
    if not flags & MPOL_F_NODE:
        return policy, mask
    if flags & MPOL_F_ADDR:
        task.mem.read(address, 1)
        return 0, mask
    if policy & ~MPOL_MODE_FLAGS not in (MPOL_INTERLEAVE, MPOL_WEIGHTED_INTERLEAVE):
        raise GuestError(EINVAL)
    return 0, mask
