"""Every structure, request number and constant that pyvmm.kvm declares, against the C compiler and ``linux/kvm.h``.

One C program prints what the header says; what it prints is derived from our own tables, so nothing can be forgotten.
``KvmPitState2`` is ``struct kvm_pit_state2``; classes with other names have no name in C and are compared through the
fields that lead to them.
"""

import ctypes
import importlib
import pkgutil
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyvmm.kvm import abi
from pyvmm.kvm.abi.base import FlexibleStruct, Struct, Union
from pyvmm.kvm.abi.capabilities import KVM_CAP_GUEST_MEMFD_FLAGS
from pyvmm.kvm.abi.exits import KVM_EXIT_TDX
from pyvmm.kvm.ioctls import IOCTLS

PACKAGE = "install the Debian package linux-libc-dev, 6.1 or newer (kernel-headers elsewhere)"

# What Linux 6.1 does not have; a newer header has it and it is compared then.
NEWER_FIELDS = {"KvmRun.memory_fault": "KVM_EXIT_MEMORY_FAULT"}
NEWER_CONSTANTS = re.compile(
    "KVM_EXIT_(LOONGARCH_IOCSR|MEMORY_FAULT|TDX)|KVM_MEMORY_EXIT_FLAG_PRIVATE|"
    "KVM_CAP_(S390_PROTECTED_ASYNC_DISABLE|DIRTY_LOG_RING_WITH_BITMAP|PMU_EVENT_MASKED_EVENTS|COUNTER_OFFSET|"
    "ARM_EAGER_SPLIT_CHUNK_SIZE|ARM_SUPPORTED_BLOCK_SIZES|ARM_SUPPORTED_REG_MASK_RANGES|USER_MEMORY2|MEMORY_FAULT_INFO|"
    "MEMORY_ATTRIBUTES|GUEST_MEMFD|VM_TYPES|PRE_FAULT_MEMORY|X86_APIC_BUS_CYCLES_NS|X86_GUEST_MODE|"
    "ARM_WRITABLE_IMP_ID_REGS|ARM_EL2|ARM_EL2_E2H0|RISCV_MP_STATE_RESET|ARM_CACHEABLE_PFNMAP_SUPPORTED|"
    "GUEST_MEMFD_FLAGS)"
)

MODULES = [importlib.import_module(f"{abi.__name__}.{module.name}") for module in pkgutil.iter_modules(abi.__path__)]


def declared_classes() -> dict[str, type]:
    classes = (value for module in MODULES for value in vars(module).values() if isinstance(value, type))
    bases = (Struct, Union, FlexibleStruct)
    return {cls.__name__: cls for cls in classes if issubclass(cls, Struct | Union) and cls not in bases}


def declared_constants() -> dict[str, int]:
    names = re.compile("KVM[A-Z0-9_]+|SYNC_REGS_SIZE_BYTES")
    return {
        name: value
        for module in MODULES
        for name, value in vars(module).items()
        if names.fullmatch(name) and isinstance(value, int)
    }


CLASSES = declared_classes()
TAGGED = {name: cls for name, cls in CLASSES.items() if name.startswith("Kvm")}
CONSTANTS = declared_constants()


def c_name(name: str) -> str:
    return "struct " + re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Field:
    """A field reached from a structure with a name: ``KvmRun.io.port``."""

    def __init__(self, owner: str, path: str, kind: Any, offset: int, bits: int | None) -> None:
        self.owner, self.path, self.kind, self.offset, self.bits = owner, path, kind, offset, bits

    @property
    def name(self) -> str:
        return f"{self.owner}.{self.path}"

    @property
    def member(self) -> str:
        return f"(({c_name(self.owner)} *)0)->{self.path}"

    def is_integer(self) -> bool:
        return (
            isinstance(self.kind, type)
            and issubclass(self.kind, ctypes._SimpleCData)
            and not issubclass(self.kind, ctypes.c_void_p)
        )


def fields_of(owner: str, cls: Any, prefix: str = "", base: int = 0) -> Iterator[Field]:
    for name, kind, *bits in cls._fields_:
        offset = base + getattr(cls, name).offset
        if name in getattr(cls, "_anonymous_", ()):
            yield from fields_of(owner, kind, prefix, offset)
            continue
        path = f"{prefix}{name}"
        yield Field(owner, path, kind, offset, *(bits or [None]))
        inner, path = (kind._type_, path + "[0]") if issubclass(kind, ctypes.Array) else (kind, path)
        if issubclass(inner, Struct | Union) and not inner.__name__.startswith("Kvm"):
            yield from fields_of(owner, inner, path + ".", offset)


FIELDS = {field.name: field for name, cls in TAGGED.items() for field in fields_of(name, cls)}


def guard_of(name: str) -> str | None:
    return next((macro for prefix, macro in NEWER_FIELDS.items() if name.startswith(prefix)), None)


def c_program() -> str:
    lines = ["#include <linux/kvm.h>", "#include <stddef.h>", "#include <stdio.h>", "#include <string.h>"]
    lines += ['#define P(key, value) printf("%s %llu\\n", key, (unsigned long long)(value))', "int main(void) {"]
    for name in TAGGED:
        lines.append(f'P("sizeof {name}", sizeof({c_name(name)}));')
    for field in FIELDS.values():
        guard = guard_of(field.name)
        lines.append(f"#ifdef {guard}" if guard else "")
        if field.bits is not None:
            owner = c_name(field.owner)
            lines.append(f'{{ {owner} s; memset(&s, 0, sizeof s); s.{field.path} = -1; printf("bits {field.name} ");')
            lines.append('for (size_t i = 0; i < sizeof s; i++) printf("%02x", ((unsigned char *)&s)[i]); puts(""); }')
        else:
            lines.append(f'P("offset {field.name}", offsetof({c_name(field.owner)}, {field.path}));')
            if issubclass(field.kind, ctypes.Array) and field.kind._length_ == 0:
                lines.append(f'P("element {field.name}", sizeof({field.member}[0]));')
            else:
                lines.append(f'P("size {field.name}", sizeof({field.member}));')
            if field.is_integer():
                lines.append(f'P("signed {field.name}", (__typeof__({field.member}))-1 < 0);')
        lines.append("#endif" if guard else "")
    for name in [*CONSTANTS, *IOCTLS]:
        lines += [f"#ifdef {name}", f'P("{name}", {name});', "#endif"]
    return "\n".join([*lines, "return 0; }"])


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the header says: one entry for each line that the C program prints."""
    if shutil.which("gcc") is None:
        pytest.fail("the ABI is compared by a C compiler: install the package gcc")
    folder: Path = tmp_path_factory.mktemp("abi")
    source, program = folder / "abi.c", folder / "abi"
    source.write_text(c_program())
    command = ["gcc", "-O0", "-w", "-o", str(program), str(source)]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    if compiled.returncode:
        pytest.fail(f"linux/kvm.h is missing or too old: {PACKAGE}\n{compiled.stderr[:2000]}")
    output = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    return dict(line.rsplit(" ", 1) for line in output.splitlines())


@pytest.fixture(scope="module")
def macros(header: dict[str, str]) -> dict[str, int]:
    """Every macro of the header that is a plain number."""
    command = ["gcc", "-dM", "-E", "-include", "linux/kvm.h", "-x", "c", "/dev/null"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(value, 0) for name, value in re.findall(r"#define (KVM_\w+) (\d+|0x[0-9a-fA-F]+)\n", text)}


def our_layout(field: Field) -> dict[str, str]:
    if field.bits is not None:
        structure = TAGGED[field.owner]()
        *steps, last = re.findall(r"\w+", field.path)
        target: Any = structure
        for step in steps:
            target = target[int(step)] if step.isdigit() else getattr(target, step)
        setattr(target, last, (1 << field.bits) - 1)
        return {f"bits {field.name}": bytes(structure).hex()}
    layout = {f"offset {field.name}": str(field.offset)}
    if issubclass(field.kind, ctypes.Array) and field.kind._length_ == 0:
        layout[f"element {field.name}"] = str(ctypes.sizeof(field.kind._type_))
    else:
        layout[f"size {field.name}"] = str(ctypes.sizeof(field.kind))
    if field.is_integer():
        layout[f"signed {field.name}"] = str(int(field.kind(-1).value < 0))
    return layout


@pytest.mark.parametrize("name", TAGGED)
def test_a_structure_is_laid_out_as_in_the_header(name: str, header: dict[str, str]) -> None:
    ours = {f"sizeof {name}": str(ctypes.sizeof(TAGGED[name]))}
    for field in FIELDS.values():
        guard = guard_of(field.name)
        if field.owner == name and (guard is None or guard in header):
            ours |= our_layout(field)

    assert ours == {key: header.get(key) for key in ours}


def test_every_class_without_a_name_in_c_is_reached_by_a_field() -> None:
    reached = {field.kind for field in FIELDS.values()} | {
        getattr(field.kind, "_type_", None) for field in FIELDS.values()
    }
    anonymous = {
        kind
        for cls in CLASSES.values()
        for name, kind, *_ in cls._fields_  # type: ignore[attr-defined]
        if name in getattr(cls, "_anonymous_", ())
    }

    assert {name for name, cls in CLASSES.items() if cls not in reached | anonymous} <= set(TAGGED)


def test_every_request_number_is_that_of_the_header(header: dict[str, str]) -> None:
    assert {name: ioctl.request for name, ioctl in IOCTLS.items()} == {
        name: int(header[name]) if name in header else None for name in IOCTLS
    }


def test_every_constant_is_that_of_the_header(header: dict[str, str]) -> None:
    known = {name for name in CONSTANTS if name in header}

    assert {name: CONSTANTS[name] for name in known} == {name: int(header[name]) for name in known}


def test_only_constants_newer_than_linux_6_1_may_be_missing_in_the_header(header: dict[str, str]) -> None:
    missing = {name for name in CONSTANTS if name not in header}

    assert [name for name in missing if not NEWER_CONSTANTS.fullmatch(name)] == []


@pytest.mark.parametrize(("prefix", "newest"), [("KVM_CAP_", KVM_CAP_GUEST_MEMFD_FLAGS), ("KVM_EXIT_", KVM_EXIT_TDX)])
def test_the_header_has_nothing_of_its_kind_that_we_lack(prefix: str, newest: int, macros: dict[str, int]) -> None:
    wanted = {name: value for name, value in macros.items() if name.startswith(prefix) and value <= newest}

    assert len(wanted) > 40
    assert {name: CONSTANTS.get(name) for name in wanted} == wanted
