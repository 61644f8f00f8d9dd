"""What a guest's ``/proc/cpuinfo`` tells of its processor."""

import pytest

from pyvmm.processor import EAX, EBX, ECX, EDX, feature_bits, guest_cpuinfo

_ALL_STATE = 0x2E7
_HOST = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Some Processor
microcode\t: 0x1
siblings\t: 96
flags\t\t: {flags}
bugs\t\t: spectre_v1

processor\t: 1
vendor_id\t: Other
"""
#: Of each register, the bit of one flag (Intel's and AMD's manuals on CPUID).
_PLACES = {
    "sse2": (1, 0, EDX, 26),
    "popcnt": (1, 0, ECX, 23),
    "avx": (1, 0, ECX, 28),
    "lm": (0x8000_0001, 0, EDX, 29),
    "3dnowprefetch": (0x8000_0001, 0, ECX, 8),
    "tbm": (0x8000_0001, 0, ECX, 21),
    "avx2": (7, 0, EBX, 5),
    "sha_ni": (7, 0, EBX, 29),
    "avx512vl": (7, 0, EBX, 31),
    "avx512_vpopcntdq": (7, 0, ECX, 14),
    "movdir64b": (7, 0, ECX, 28),
    "fsrm": (7, 0, EDX, 4),
    "avx512_fp16": (7, 0, EDX, 23),
    "avx_ifma": (7, 1, EAX, 23),
    "xgetbv1": (0xD, 1, EAX, 2),
    "wbnoinvd": (0x8000_0008, 0, EBX, 9),
}


def _everything(function: int, index: int) -> tuple[int, int, int, int]:
    ones = 0xFFFF_FFFF
    return ones, ones, ones, ones


def _fields(text: bytes) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in text.decode().splitlines() if line)
    return {name.strip(): value.strip() for name, value in pairs}


def _flags(flags: str, xcr0: int = _ALL_STATE, leaf=_everything) -> str:
    return _fields(guest_cpuinfo(_HOST.format(flags=flags), xcr0, leaf))["flags"]


def test_the_hosts_processor_is_shown_as_one() -> None:
    fields = _fields(guest_cpuinfo(_HOST.format(flags="fpu"), _ALL_STATE, _everything))
    assert (fields["vendor_id"], fields["model"], fields["model name"]) == ("GenuineIntel", "143", "Some Processor")
    assert (fields["processor"], fields["siblings"]) == ("0", "1")
    assert not {"microcode", "bugs"} & fields.keys()


def test_a_host_that_tells_nothing_still_gives_all_fields() -> None:
    fields = _fields(guest_cpuinfo("", _ALL_STATE, _everything))
    assert fields["flags"] == ""
    assert fields["vendor_id"] == "unknown"


def test_what_is_the_business_of_a_kernel_is_left_out() -> None:
    assert _flags("fpu vmx sse2 pku smep constant_tsc ibrs avx2") == "fpu sse2 constant_tsc avx2"


@pytest.mark.parametrize(("xcr0", "shown"), [(3, "sse2"), (7, "sse2 avx2 fma"), (_ALL_STATE, "sse2 avx2 fma avx512f")])
def test_instructions_need_their_state(xcr0: int, shown: str) -> None:
    assert _flags("sse2 avx2 fma avx512f", xcr0) == shown


@pytest.mark.parametrize("flag", _PLACES)
def test_a_flag_is_shown_if_its_bit_of_cpuid_is_set(flag: str) -> None:
    function, index, register, bit = _PLACES[flag]

    def leaf(asked: int, subleaf: int) -> tuple[int, int, int, int]:
        values = [0, 0, 0, 0]
        if (asked, subleaf) == (function, index):
            values[register] = 1 << bit
        return values[0], values[1], values[2], values[3]

    assert _flags(" ".join(_PLACES), _ALL_STATE, leaf) == flag


def test_the_bits_of_a_leaf_are_those_of_the_flags_that_are_named() -> None:
    text = _HOST.format(flags="lm abm 3dnowprefetch avx2 unheard_of")
    assert feature_bits(text, 0x8000_0001, 0, ECX) == 1 << 5 | 1 << 8
    assert feature_bits(text, 0x8000_0001, 0, EDX) == 1 << 29
    assert feature_bits("", 7, 0, EBX) == 0
