"""What a guest's ``/proc/cpuinfo`` tells of its processor: the host's own text, cut down to what a guest has."""

from collections.abc import Callable

EAX, EBX, ECX, EDX = range(4)

#: Flags of ``/proc/cpuinfo`` (``arch/x86/include/asm/cpufeatures.h``) that tell programs what they can execute: CPUID
#: leaf, index and register, and the names of its bits, lowest first; ``-`` for one that is no business of programs.
_BITS: dict[tuple[int, int, int], str] = {
    (1, 0, EDX): "fpu - de pse tsc msr pae - cx8 - - sep - pge - cmov pat pse36 - clflush - - - mmx fxsr sse sse2",
    (0x8000_0001, 0, EDX): "- - - - - - - - - - - syscall - - - - - - - - nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm"
    " 3dnowext 3dnow",
    (1, 0, ECX): "pni pclmulqdq - - - - - - - ssse3 - - fma cx16 - - - - - sse4_1 sse4_2 - movbe popcnt - aes xsave -"
    " avx f16c rdrand hypervisor",
    (0x8000_0001, 0, ECX): "lahf_lm - - - - abm sse4a misalignsse 3dnowprefetch - - xop - - - - fma4 - - - - tbm",
    (7, 0, EBX): "- - - bmi1 hle avx2 - - bmi2 erms - rtm - - - - avx512f avx512dq rdseed adx - avx512ifma -"
    " clflushopt clwb - avx512pf avx512er avx512cd sha_ni avx512bw avx512vl",
    (7, 0, ECX): "- avx512vbmi - - - - avx512_vbmi2 - gfni vaes vpclmulqdq avx512_vnni avx512_bitalg -"
    " avx512_vpopcntdq - - - - - - - rdpid - - cldemote - movdiri movdir64b - - -",
    (7, 0, EDX): "- - avx512_4vnniw avx512_4fmaps fsrm - - - avx512_vp2intersect - - - - - serialize - - - - - - -"
    " - avx512_fp16",
    (7, 1, EAX): "- - - - avx_vnni avx512_bf16 - - - - fzrm fsrs fsrc - - - - - - - - - - avx_ifma",
    (0xD, 1, EAX): "xsaveopt xsavec xgetbv1",
    (0x8000_0008, 0, EBX): "clzero - xsaveerptr - - - - - - wbnoinvd",
}
_FEATURES = {
    name: (place, bit) for place, names in _BITS.items() for bit, name in enumerate(names.split()) if name != "-"
}
#: Flags that Linux makes up.
_SYNTHETIC = frozenset({"constant_tsc", "rep_good", "nopl", "nonstop_tsc", "cpuid", "tsc_known_freq"})
#: State components without which a family of instructions is not there.
_AVX, _AVX512 = 0x4, 0xE0
_WITH_AVX = frozenset({"fma", "f16c", "vaes", "vpclmulqdq", "xop", "fma4"})
#: Fields that are the host's, and what stands there if its text lacks one.
_FIELDS = {
    "vendor_id": "unknown",
    "cpu family": "6",
    "model": "0",
    "model name": "virtual processor",
    "stepping": "0",
    "cpu MHz": "2000.000",
    "cache size": "4096 KB",
    "cpuid level": "13",
    "bogomips": "4000.00",
    "clflush size": "64",
    "cache_alignment": "64",
    "address sizes": "46 bits physical, 48 bits virtual",
}
_ENTRY = """\
processor\t: 0
vendor_id\t: {vendor_id}
cpu family\t: {cpu family}
model\t\t: {model}
model name\t: {model name}
stepping\t: {stepping}
cpu MHz\t\t: {cpu MHz}
cache size\t: {cache size}
physical id\t: 0
siblings\t: 1
core id\t\t: 0
cpu cores\t: 1
apicid\t\t: 0
initial apicid\t: 0
fpu\t\t: yes
fpu_exception\t: yes
cpuid level\t: {cpuid level}
wp\t\t: yes
flags\t\t: {flags}
bogomips\t: {bogomips}
clflush size\t: {clflush size}
cache_alignment\t: {cache_alignment}
address sizes\t: {address sizes}
power management:

"""


def feature_bits(text: str, function: int, index: int, register: int) -> int:
    """The bits of a register of a CPUID leaf whose flags the host's ``/proc/cpuinfo`` names in ``text``."""
    flags = _fields(text).get("flags", "").split()
    bits = 0
    for flag in flags:
        place, bit = _FEATURES.get(flag, (None, 0))
        bits |= (place == (function, index, register)) << bit
    return bits


def guest_cpuinfo(text: str, xcr0: int, leaf: Callable[[int, int], tuple[int, int, int, int]]) -> bytes:
    """``/proc/cpuinfo`` of a guest with one processor.

    :param text: the host's.
    :param xcr0: the state components that the guest has.
    :param leaf: EAX, EBX, ECX, EDX of a leaf and index of a guest's CPUID.
    """
    fields = _fields(text)
    flags = [flag for flag in fields.get("flags", "").split() if _has(flag, xcr0, leaf)]
    shown = {name: fields.get(name) or default for name, default in _FIELDS.items()} | {"flags": " ".join(flags)}
    return _ENTRY.format_map(shown).encode()


def _fields(text: str) -> dict[str, str]:
    """What is told of the first processor."""
    fields: dict[str, str] = {}
    for line in text.partition("\n\n")[0].splitlines():
        name, separator, value = line.partition(":")
        if separator:
            fields[name.strip()] = value.strip()
    return fields


def _has(flag: str, xcr0: int, leaf: Callable[[int, int], tuple[int, int, int, int]]) -> bool:
    if flag in _SYNTHETIC:
        return True
    known = _FEATURES.get(flag)
    if known is None:
        return False
    needed = _AVX512 | _AVX if flag.startswith("avx512") else _AVX if flag[:3] == "avx" or flag in _WITH_AVX else 0
    if xcr0 & needed != needed:
        return False
    (function, index, register), bit = known
    return bool(leaf(function, index)[register] >> bit & 1)
