"""The system-call table: number -> name, function, and how its registers decode.

Data and registration only. The functions live in :mod:`pyvmm.linux.syscalls`, grouped as section 2 of the manual
groups them; each says by the annotations of its arguments what C type a register holds, which is also how
``strace`` prints it::

    @syscall
    def lseek(task: Task, fd: Fd, offset: Long, whence: Int) -> int: ...

A call's arguments arrive in RDI, RSI, RDX, R10, R8, R9 (``man 2 syscall``). KVM keeps the registers in ``struct
kvm_regs``, whose order differs, so a signature is compiled once into a :class:`struct.Struct` that picks and
converts all arguments in one go, and a permutation.
"""

import inspect
import struct
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Any, get_args, get_type_hints

from pyvmm.linux.abi.unistd import NAMES, NUMBERS


@dataclass(frozen=True, slots=True)
class ArgumentKind:
    """How an argument decodes (``code`` is its ``struct`` format, ``pad`` the unused upper bytes) and prints."""

    code: str
    pad: str
    shown: str


Int = Annotated[int, ArgumentKind("i", "4x", "int")]
UInt = Annotated[int, ArgumentKind("I", "4x", "int")]
Long = Annotated[int, ArgumentKind("q", "", "int")]
ULong = Annotated[int, ArgumentKind("Q", "", "int")]
Flags = Annotated[int, ArgumentKind("I", "4x", "hex")]
LongFlags = Annotated[int, ArgumentKind("Q", "", "hex")]
Mode = Annotated[int, ArgumentKind("I", "4x", "oct")]
Fd = Annotated[int, ArgumentKind("i", "4x", "fd")]
Pointer = Annotated[int, ArgumentKind("Q", "", "pointer")]
Path = Annotated[int, ArgumentKind("Q", "", "path")]
Size = Annotated[int, ArgumentKind("Q", "", "int")]

#: Offsets of the argument registers in ``struct kvm_regs``, in the order of the arguments.
_REGISTER_OFFSETS = (40, 32, 24, 80, 64, 72)


@dataclass(frozen=True, slots=True)
class SystemCall:
    """One row of the table."""

    number: int
    name: str
    function: Callable[..., int]
    #: ``unpack_from(buffer, offset of kvm_regs)`` gives the arguments in the order of the registers' offsets ...
    unpack_from: Callable[[Any, int], tuple[int, ...]]
    #: ... and this puts them into the order of the signature (``None``: they are in order already).
    reorder: Callable[[tuple[int, ...]], Any] | None
    arguments: tuple[tuple[str, ArgumentKind], ...]
    #: A sentence on what is partial, from the docstring's second paragraph; empty when nothing is.
    note: str

    def decode(self, buffer: Any, offset: int) -> tuple[int, ...]:
        """The arguments of a call whose ``struct kvm_regs`` lies at ``buffer[offset:]``."""
        values = self.unpack_from(buffer, offset)
        return values if self.reorder is None else self.reorder(values)


#: Filled by the decorator when :mod:`pyvmm.linux.syscalls` is imported.
TABLE: dict[int, SystemCall] = {}


def syscall(function: Callable[..., int]) -> Callable[..., int]:
    """Register ``function`` under the system call that bears its name (a trailing underscore is dropped)."""
    name = function.__name__.rstrip("_")
    number = NUMBERS[name]
    if number in TABLE:
        raise ValueError(f"system call {name} is registered twice")
    # The first parameter is the task; its annotation may be a forward reference, so only the others are resolved.
    parameters = list(inspect.signature(function).parameters)[1:]
    hints = get_type_hints(function, localns={"Task": object}, include_extras=True)
    arguments = tuple((parameter, get_args(hints[parameter])[1]) for parameter in parameters)
    unpack_from, reorder = _compile(tuple(kind for _, kind in arguments))
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    note = " ".join(paragraphs[1].split()) if len(paragraphs) > 1 else ""
    TABLE[number] = SystemCall(number, name, function, unpack_from, reorder, arguments, note)
    return function


def name_of(number: int) -> str:
    """The name of a system call, or ``syscall_<number>`` in hex for numbers that have none."""
    return NAMES.get(number) or f"syscall_{number & (1 << 64) - 1:#x}"


def _compile(kinds: tuple[ArgumentKind, ...]) -> tuple[Callable[[Any, int], tuple[int, ...]], Any]:
    """The decoder of a signature: ``unpack_from`` of a Struct over ``struct kvm_regs``, and the permutation of its
    result.
    """
    order = sorted(range(len(kinds)), key=lambda index: _REGISTER_OFFSETS[index])
    layout, position = "<", 0
    for index in order:
        layout += f"{_REGISTER_OFFSETS[index] - position}x{kinds[index].code}{kinds[index].pad}"
        position = _REGISTER_OFFSETS[index] + 8
    places = [order.index(index) for index in range(len(kinds))]
    return struct.Struct(layout).unpack_from, itemgetter(*places) if len(kinds) > 1 else None
