"""The system-call table: numbers, names, and how registers become arguments."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyvmm.linux.syscalls  # noqa: F401 - fills the table
from pyvmm.kvm import KvmRegs
from pyvmm.linux import table
from pyvmm.linux.abi.unistd import NAMES, NUMBERS
from pyvmm.linux.table import TABLE, ArgumentKind, Fd, Int, Long, Mode, Pointer, Size, UInt, ULong

_KINDS = [kind.__metadata__[0] for kind in (Int, UInt, Long, ULong, Fd, Mode, Pointer, Size)]  # type: ignore[attr-defined]
_ARGUMENT_REGISTERS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")


def as_c(kind: ArgumentKind, value: int) -> int:
    """What a C function with a parameter of that type sees of a register."""
    size = struct.calcsize(kind.code)
    return int(struct.unpack(f"<{kind.code}", value.to_bytes(8, "little")[:size])[0])


@given(
    kinds=st.lists(st.sampled_from(_KINDS), max_size=6),
    values=st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6),
)
def test_each_register_arrives_as_its_c_type_in_its_place(kinds: list[ArgumentKind], values: list[int]) -> None:
    registers = KvmRegs(**dict(zip(_ARGUMENT_REGISTERS, values, strict=True)), rax=99, rcx=98, r11=97)
    unpack_from, reorder = table._compile(tuple(kinds))
    call = table.SystemCall(0, "test", lambda *_: 0, unpack_from, reorder, (), "")
    decoded = call.decode(b"before" + bytes(registers), 6)
    assert tuple(decoded) == tuple(as_c(kind, value) for kind, value in zip(kinds, values, strict=False))


def test_every_call_is_at_its_own_number() -> None:
    for number, call in TABLE.items():
        assert call.number == number
        assert NAMES[number] == call.name and NUMBERS[call.name] == number


def test_the_numbers_are_those_of_the_hosts_headers() -> None:
    header = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
    try:
        with open(header) as file:
            defined = dict(line.split()[1:3] for line in file if line.startswith("#define __NR_"))
    except FileNotFoundError:
        pytest.skip(f"this host has no {header}")
    theirs = {name.removeprefix("__NR_"): int(number) for name, number in defined.items()}
    assert {name: number for name, number in NUMBERS.items() if theirs.get(name, number) != number} == {}
    assert [name for name in theirs if name not in NUMBERS] == []


def test_a_call_cannot_be_registered_twice() -> None:
    def getpid(task: object) -> int:
        return 0

    with pytest.raises(ValueError, match="registered twice"):
        table.syscall(getpid)


def test_every_call_takes_no_more_than_six_arguments_and_says_what_it_is() -> None:
    for call in TABLE.values():
        assert len(call.arguments) <= 6
        assert call.function.__doc__, call.name


def test_numbers_without_a_name_are_named_by_themselves() -> None:
    assert table.name_of(39) == "getpid"
    assert table.name_of(0x4000_0027) == "syscall_0x40000027"
    assert table.name_of(-1) == "syscall_0xffffffffffffffff"
