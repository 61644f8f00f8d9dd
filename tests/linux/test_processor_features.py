"""What a program learns of the processor it runs on, from CPUID, ``/proc/cpuinfo`` and arch_prctl(2), fits together."""

from pathlib import Path

import pytest

from pyvmm.processor import _FEATURES

pytestmark = pytest.mark.kvm

_ASK = r"""
import ctypes, errno, mmap
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
# push rbx; mov eax, edi; mov ecx, esi; mov r8, rdx; cpuid; mov [r8], eax; ... ebx; ecx; edx; pop rbx; ret
code = mmap.mmap(-1, 4096, prot=7)
code.write(bytes.fromhex("53 89f8 89f1 4989d0 0fa2 418900 41895804 41894808 4189500c 5b c3"))
_cpuid = ctypes.CFUNCTYPE(None, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)(
    ctypes.addressof(ctypes.c_char.from_buffer(code)))
def cpuid(leaf, index=0):
    registers = (ctypes.c_uint * 4)()
    _cpuid(leaf, index, ctypes.addressof(registers))
    return tuple(registers)
def arch_prctl(code, argument):
    result = libc.syscall(158, ctypes.c_long(code), ctypes.c_ulong(argument))
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result
"""


def test_every_flag_of_cpuinfo_is_in_cpuid(run) -> None:
    program = f"""{_ASK}
features = {_FEATURES!r}
flags = next(line for line in open("/proc/cpuinfo") if line.startswith("flags")).partition(":")[2].split()
print([flag for flag in flags if flag in features
       if not cpuid(*features[flag][0][:2])[features[flag][0][2]] >> features[flag][1] & 1])
"""
    assert run(program).stdout == b"[]\n"


def test_a_program_finds_lzcnt_where_the_host_has_it(run) -> None:
    """Without it libraries take the processor for one below x86-64-v3, and leave AVX2 and AVX-512 alone."""
    has_it = " abm " in Path("/proc/cpuinfo").read_text()
    assert run(f"{_ASK}\nprint(bool(cpuid(0x80000001)[2] & 1 << 5))").stdout == f"{has_it}\n".encode()


def test_no_permission_is_to_be_had_for_amx(run) -> None:
    """The indices: PKRU and the AMX tile configuration need none, the tile data do, the last does not exist."""
    program = f"{_ASK}\nprint([arch_prctl(0x1023, index) for index in (9, 17, 18, 19)])"
    assert run(program).stdout == b"['ENOTSUP', 'ENOTSUP', 'ENOTSUP', 'EINVAL']\n"


def test_what_arch_prctl_supports_and_permits_is_what_the_processor_is_said_to_have(run, host) -> None:
    program = f"""{_ASK}
value = ctypes.c_ulong()
for code in (0x1021, 0x1022):
    print(arch_prctl(code, ctypes.addressof(value)), value.value)
print(arch_prctl(0x1021, 8), arch_prctl(0x1011, 0), arch_prctl(0x1012, 1), arch_prctl(0x7777, 0))
"""
    assert run(program).stdout.decode().splitlines() == [f"0 {host.xcr0}"] * 2 + ["EFAULT 1 ENODEV EINVAL"]
