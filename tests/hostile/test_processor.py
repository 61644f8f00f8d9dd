"""Group H: machine code in ring 3 that tries what only ring 0 may. A signal, never an error of the monitor."""

# Programs for the guest are strings; a broken line would not make them clearer.
# ruff: noqa: E501

import signal

import pytest

from tests.hostile.prelude import RAW, SURVIVE

pytestmark = pytest.mark.kvm

ILL, TRAP, BUS, FPE, SEGV = (signal.SIGILL, signal.SIGTRAP, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)

#: Machine code, and the signals that are right for it. Software KVM emulates whatever raised #GP in ring 3, and answers what it
#: cannot emulate (INT n, LDMXCSR) with #UD, so that some SIGSEGV of Linux is a SIGILL there.
_PRIVILEGED = {
    "hlt": ("f4", {SEGV}),
    "cli": ("fa", {SEGV}),
    "sti": ("fb", {SEGV}),
    "in al, 0x60": ("e460", {SEGV}),
    "in eax, dx": ("66ba6000ed", {SEGV}),
    "out 0x80, al": ("e680", {SEGV}),
    "out 0x50, al (the stub's port)": ("e650", {SEGV}),
    "out 0x51, al (the stub's port)": ("e651", {SEGV}),
    "out dx, eax": ("66ba5000ef", {SEGV}),
    "insb": ("66ba60006c", {SEGV}),
    "rep outsb": ("66ba6000b904000000f36e", {SEGV}),
    "mov rax, cr0": ("0f20c0", {SEGV}),
    "mov cr3, rax": ("0f22d8", {SEGV}),
    "mov rax, cr8": ("440f20c0", {SEGV}),
    "mov rax, dr7": ("0f21f8", {SEGV}),
    "mov dr7, rax": ("0f23f8", {SEGV}),
    "lgdt": ("0f0114240f01542400", {SEGV}),
    "lidt": ("0f011c24", {SEGV}),
    "ltr": ("0f00d8", {SEGV}),
    "lldt": ("0f00d0", {SEGV}),
    "lmsw": ("0f01f0", {SEGV}),
    "clts": ("0f06", {SEGV}),
    "wrmsr": ("0f30", {SEGV}),
    "rdmsr": ("0f32", {SEGV}),
    "rdpmc": ("31c90f33", {SEGV}),
    "invlpg": ("0f013c24", {SEGV}),
    "invd": ("0f08", {SEGV}),
    "wbinvd": ("0f09", {SEGV}),
    "swapgs": ("0f01f8", {SEGV}),
    "xsetbv": ("31c931c031d20f01d1", {SEGV, ILL}),
    "monitor": ("0f01c8", {ILL, SEGV}),
    "mwait": ("0f01c9", {ILL, SEGV}),
    "sysret": ("480f07", {SEGV, ILL}),
    "sysexit": ("0f35", {SEGV, ILL}),
    # A hypervisor under the host may answer these in ring 3 too.
    "vmcall": ("0f01c1", {0, ILL, SEGV}),
    "vmmcall": ("0f01d9", {0, ILL, SEGV}),
    "vmrun": ("0f01d8", {ILL, SEGV}),
    "clgi": ("0f01dd", {ILL, SEGV}),
    "rsm": ("0faa", {ILL, SEGV}),
    "getsec": ("0f37", {ILL, SEGV}),
    "ud2": ("0f0b", {ILL}),
    "int3": ("cc", {TRAP}),
    "int 3": ("cd03", {TRAP}),
    "int1": ("f1", {TRAP}),
    "int 0x80": ("b814000000cd80", {SEGV, ILL}),
    "int 0xff": ("cdff", {SEGV, ILL}),
    "int 14": ("cd0e", {SEGV, ILL}),
    "int 8": ("cd08", {SEGV, ILL}),
    "int 2": ("cd02", {SEGV, ILL}),
    "sysenter": ("0f34", {ILL, SEGV}),
    "into": ("ce", {ILL}),
    "iret to ring 0": ("4889e06a18509c6a105748cf", {SEGV}),
    "far jump to ring 0": ("6a106a00ff2c24", {SEGV, ILL, BUS}),
    "load a ring-0 selector": ("66b810008ed8", {SEGV}),
    "load a wild selector": ("66b8ffff8ed8", {SEGV}),
    "load the TSS's selector": ("66b840008ee0", {SEGV}),
    "div by zero": ("31c931c031d2f7f1", {FPE}),
    "div overflow": ("31d2b9010000004889d048c7c2ffffffff48f7f1", {FPE}),
    "non-canonical load": ("48b80000000000008000488b00", {SEGV, BUS}),
    "non-canonical store": ("48b80000000000008000488900", {SEGV, BUS}),
    "non-canonical stack": ("4989e348bc000000000000800050", {SEGV, BUS}),
    "non-canonical jump": ("48b80000000000008000ffe0", {SEGV, BUS}),
    "upper half": ("48b80000000000 80ffff488b00".replace(" ", ""), {SEGV}),
    "the null page": ("31c0488b00", {SEGV}),
    "unaligned SSE": ("0f284424" "01", {SEGV}),
    "lock on a register": ("f0ffc0", {ILL}),
    "reserved MXCSR": ("6aff0fae1424", {SEGV, ILL}),
    "fifteen prefixes": ("66" * 16 + "90", {SEGV, ILL}),
    "undefined 0x06": ("06", {ILL}),
    "undefined 0f ff": ("0fffc0", {ILL}),
    "tilerelease": ("c4e27849c0", {0, ILL}),  # software KVM leaves AMX to programs, and does not tell of it
    "tilezero without a configuration": ("c4e27849c0c4e27b49c0", {ILL}),
    "stui": ("f30f01ef", {ILL}),
    "enqcmd": ("4889e04883e4c0f20f38f804244889c4", {ILL, SEGV}),
    "xsaves": ("4989e04881ec004000004883e4c031c031d20fc72c244c89c4", {ILL, SEGV}),
    "vm86": ("9c810c2400000200" "9d", {0, SEGV}),
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes(template) -> dict[str, int]:
    """The signal that each piece of machine code caused, all of them in one sandbox that survives them."""
    lines = [SURVIVE]
    for name, (code, _) in _PRIVILEGED.items():
        lines.append(f"print(repr({name!r}), ':', attempt(bytes.fromhex({code + 'c3'!r})), ',', flush=True)")
    result = template.run("\n".join(lines))
    outcomes = eval("{" + result.stdout.decode() + "}")
    assert result.status == "ok", (list(outcomes)[-1:], result)
    return outcomes


@pytest.mark.parametrize("name", _PRIVILEGED)
def test_a_forbidden_instruction_is_a_signal(outcomes, name):
    assert outcomes[name] in _PRIVILEGED[name][1]


@pytest.mark.parametrize(
    "name", ["hlt", "out 0x50, al (the stub's port)", "int3", "wrmsr", "non-canonical stack", "div by zero"]
)
def test_without_a_handler_the_signal_ends_the_program(run, name):
    code, signals = _PRIVILEGED[name]
    result = run(RAW + f"execute(bytes.fromhex({code!r}))")
    assert result.status == "crashed" and result.exit_code - 128 in signals


def test_a_program_that_takes_all_protection_keys_from_itself_ends(run):
    # xor ecx, ecx; xor edx, edx; mov eax, -1; wrpkru; push rax: SIGILL where the processor or the host has no keys
    result = run(RAW + "execute(bytes.fromhex('31c931d2b8ffffffff0f01ef50'))")
    assert result.status == "crashed" and result.exit_code - 128 in {ILL, SEGV}


def test_interrupts_stay_enabled_and_iopl_zero_after_popf(run):
    # pushf; or dword [rsp], 0x3000; popf; pushf; pop rax; ret
    result = run(RAW + "print(hex(execute(bytes.fromhex('9c810c24003000009d9c58c3')) & 0x3200))")
    assert result.stdout == b"0x200\n"


def test_single_steps_are_traps_and_no_loop(run):
    # pushf; or dword [rsp], 0x100; popf; nop; nop; ret
    result = run(RAW + "execute(bytes.fromhex('9c810c24000100009d9090c3'))")
    assert (result.status, result.exit_code) == ("crashed", 128 + TRAP)


def test_single_stepping_through_a_system_call_ends(run):
    code = "9c810c24000100009db8270000000f0590c3"  # ... mov eax, getpid; syscall; nop; ret
    result = run(SURVIVE + f"print(attempt(bytes.fromhex({code!r})), attempt(b'\\xc3'))")
    assert result.stdout == b"5 0\n"


def test_a_tracer_of_its_own_sees_every_step(run):
    code = SURVIVE + (
        "count = ctypes.c_ulong.from_address(_save + 2048)\n"
        # inc qword [rip+..] would need an address: mov rax, count; inc qword [rax]; ret through the restorer
        "handler = bytes.fromhex('48b8') + struct.pack('<Q', _save + 2048) + bytes.fromhex('48ff00c3')\n"
        "ctypes.memmove(_text + 1024, handler, len(handler))\n"
        "action = bytearray(struct.pack('<QQQQ', _text + 1024, 0x0C000000, _text + 512, 0))\n"
        "assert call(13, 5, address_of(action), 0, 8) == 0\n"
        # popf with TF; 8 nops; pushf; and [rsp], ~TF; popf; ret
        "execute(bytes.fromhex('9c810c24000100009d' + '90' * 8 + '9c812424fffeffff9dc3'))\n"
        "print(8 <= count.value <= 16)\n"
    )
    result = run(code)
    assert result.stdout == b"True\n", result


@pytest.mark.parametrize(
    "stack", [0, 8, 1 << 47, (1 << 47) - 8, 0xFFFF_8000_0000_0000, 1 << 63, 2**64 - 1, 0x7FFF_FFE0_3000]
)
def test_a_system_call_with_any_stack_pointer_returns_to_it(run, stack):
    # mov r8, rsp; mov rsp, stack; mov eax, getpid; syscall; mov rax, rsp; mov rsp, r8; ret
    code = "4989e048bc" + stack.to_bytes(8, "little").hex() + "b8270000000f054889e04c89c4c3"
    result = run(RAW + f"print(execute(bytes.fromhex({code!r})) == {stack})")
    assert result.stdout == b"True\n" or result.exit_code == 139, result


def test_a_system_call_at_the_end_of_the_lower_half_is_a_signal(run):
    code = RAW + (
        "last = 0x7fffffdff000\n"
        "pages(1, 7, 0x32, last)\n"
        "ctypes.memmove(last + 4089, bytes.fromhex('b8270000000f05'), 7)\n"
        "ctypes.CFUNCTYPE(ctypes.c_ulong)(last + 4089)()"
    )
    result = run(code)
    assert (result.status, result.exit_code) == ("crashed", 139)


def test_jumping_into_the_monitors_pages_is_a_signal_or_a_system_call(run):
    base = 0x7FFF_FFE0_0000
    code = SURVIVE + (
        "seen = set()\n"
        f"for target in range({base:#x}, {base + 8 * 4096:#x}, 512):\n"
        "    if target & ~0xfff == 0x7fffffe03000: continue\n"
        "    seen.add(attempt(bytes.fromhex('48b8') + struct.pack('<Q', target) + bytes.fromhex('ffe0')))\n"
        "print(seen)"
    )
    assert run(code).stdout == b"{11}\n"


def test_a_return_that_cannot_be_made_ends_the_process_and_pops_no_frame_of_its_own(run):
    """The monitor's IRETQ would take RIP, CS and flags from the program's stack; on hardware it is in ring 0."""
    code = RAW + (
        "marker, payload, space = pages(1, 3, 0x21), pages(1, 7), pages(1)\n"
        # mov rax, marker; mov byte [rax], 1; mov eax, 231 (exit_group); xor edi, edi; syscall
        "ctypes.memmove(payload, bytes.fromhex('48b8') + struct.pack('<Q', marker) +\n"
        "    bytes.fromhex('c60001 b8e7000000 31ff 0f05'), 32)\n"
        # struct ucontext: uc_flags, uc_link and uc_stack are what IRETQ would pop. RIP is not canonical.
        "registers = [0] * 15 + [space, 1 << 63, 0x202]\n"
        "frame = struct.pack('<QQQQQ18Q4H5Q64xQ', payload, 0x33, 0x202, space + 2048, 0x2b,\n"
        "    *registers, 0x33, 0, 0, 0x2b, 0, 0, 0, 0, 0, 0)\n"
        "ctypes.memmove(space, frame, len(frame))\n"
        # A child by vfork, so that the memory outlives it: mov eax, 58; syscall; test eax, eax; jz child; ret;
        # child: mov rsp, rdi; mov eax, 15 (rt_sigreturn); syscall; hlt
        "execute(bytes.fromhex('b83a000000 0f05 85c0 7401 c3 4889fc b80f000000 0f05 f4'), space)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]), ctypes.string_at(marker, 1))\n"
    )
    assert run(code).stdout == b"-11 b'\\x00'\n"


def test_calling_the_stub_itself_is_only_a_system_call(run):
    # mov eax, getpid; lea rcx, [rip+..after]; mov r11, 0x202; mov rdx, stub; jmp rdx; after: ret
    code = "b827000000488d0d1300000049c7c30202000048ba0030e0ffff7f0000ffe2c3"
    result = run(RAW + f"print(execute(bytes.fromhex({code!r})) in (os.getpid(), 0))")
    assert result.status in ("ok", "crashed") and result.stdout in (b"True\n", b"")


@pytest.mark.parametrize("access", ["read", "write", "execute"])
def test_no_page_of_the_monitor_can_be_written_and_few_read(run, access):
    """H11: both halves in steps of 2 MiB near their ends, and every page of the monitor's own."""
    body = {"read": "8a00", "write": "c60000", "execute": "ffe0"}[access]
    code = SURVIVE + (
        "own = range(0x7fffffe00000, 0x7fffffe08000, 4096)\n"
        "lower = range(0x7fff80000000 + (1 << 31), (1 << 47), 1 << 21)\n"
        "upper = [*range(0xffff800000000000, 0xffff800000000000 + (1 << 28), 1 << 21), *range(2**64 - (1 << 28), 2**64, 1 << 21)]\n"
        "found = []\n"
        "for address in [*own, *lower, *upper]:\n"
        f"    if not attempt(bytes.fromhex('48b8') + struct.pack('<Q', address) + bytes.fromhex({body + 'c3'!r})):\n"
        "        found.append(hex(address))\n"
        "print(found)"
    )
    if access == "execute":
        code = code.replace("[*own, ", "[*own[:3], *own[4:], ")
    result = run(code)
    readable = ["0x7fffffe03000", "0x7fffffe04000"]
    assert eval(result.stdout) == (readable if access == "read" else []), result


def test_fs_and_gs_bases_are_kept_and_wild_ones_refused(run):
    code = RAW + (
        "old = ctypes.c_ulong()\n"
        "assert call(158, 0x1003, ctypes.addressof(old)) == 0\n"
        "assert call(158, 0x1001, 0x1234567000) == 0\n"
        "gs = ctypes.c_ulong()\n"
        "call(158, 0x1004, ctypes.addressof(gs))\n"
        "print(hex(gs.value), [call(158, c, a) for c in (0x1001, 0x1002) for a in (1 << 47, 1 << 63, 2**64 - 1)])\n"
    )
    assert run(code).stdout == b"0x1234567000 [-1, -1, -1, -1, -1, -1]\n"


def test_wrfsbase_is_an_instruction_or_an_illegal_one(run):
    # mov rax, 1 << 63 (not canonical); wrgsbase rax
    result = run(SURVIVE + "print(attempt(bytes.fromhex('48b80000000000000080f3480faed8c3')))")
    assert result.stdout in (b"4\n", b"11\n")


def test_extended_state_survives_system_calls_and_faults(run):
    # Fill xmm0-15 through numpy-free code: movq from registers, fault a new page, make a call, compare.
    code = RAW + (
        "fresh = pages(64)\n"
        "code = bytes.fromhex('66480f6ec7' '66480f6ecf'\n"  # movq xmm0, rdi; movq xmm1, rdi
        "    'c606 01'.replace(' ', '') +\n"  # mov byte [rsi], 1 (a page fault)
        "    'b8270000000f05' '66480f7ec0' '66480f7ec9' '4829c8' '4801f8' 'c3')\n"  # getpid; rax = xmm0 - xmm1 + rdi
        "print(all(execute(code, 0x123456789abcdef0 + i, fresh + 4096 * i) == 0x123456789abcdef0 + i for i in range(64)))"
    )
    assert run(code).stdout == b"True\n"


@pytest.mark.parametrize(
    ("name", "offset", "value"),
    [
        ("rip non-canonical", 16 * 8, 1 << 47),
        ("rip in the upper half", 16 * 8, 0xFFFF_8000_0000_0000),
        ("rip in the monitor", 16 * 8, 0x7FFF_FFE0_5000),
        ("rsp non-canonical", 15 * 8, 1 << 63),
        ("cs of ring 0", 18 * 8, 0x0018_0000_0000_0010),
        ("all flags", 17 * 8, 2**64 - 1),
        ("fpstate wild", 18 * 8 + 8 + 32, 1 << 47),
        ("fpstate unaligned", 18 * 8 + 8 + 32, 0x7FFF_FF7F_0001),
    ],
)
def test_a_forged_signal_frame_is_a_signal_and_no_more(run, name, offset, value):
    """G12: a handler changes its own frame before it returns."""
    code = RAW + (
        "import signal\n"
        "@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)\n"
        "def handler(signo, info, context):\n"
        f"    ctypes.c_ulong.from_address(context + 40 + {offset}).value = {value}\n"
        "restorer = pages(1, 7)\n"
        "ctypes.memmove(restorer, bytes.fromhex('b80f0000000f05'), 7)\n"
        "action = bytearray(struct.pack('<QQQQ', ctypes.cast(handler, ctypes.c_void_p).value, 0x04000004, restorer, 0))\n"
        "assert call(13, 10, address_of(action), 0, 8) == 0\n"
        "os.kill(os.getpid(), 10)\n"
        "print('survived')"
    )
    result = run(code)
    assert result.status in ("ok", "crashed"), result
    assert result.exit_code in (0, 139, 133, 135)
    assert not run.log, "no error of the monitor"


@pytest.mark.parametrize("words", ["header", "xcomp", "mxcsr", "features"])
def test_a_forged_extended_state_is_a_signal_as_on_linux_and_no_more(run, words):
    offset, value = {
        "header": (512 + 16, 1),
        "xcomp": (520, 1 << 63),
        "mxcsr": (24, 2**64 - 1),
        "features": (512, 2**64 - 1),
    }[words]
    code = RAW + (
        "@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)\n"
        "def handler(signo, info, context):\n"
        "    state = ctypes.c_ulong.from_address(context + 40 + 18 * 8 + 8 + 32).value\n"
        f"    ctypes.c_ulong.from_address(state + {offset}).value = {value}\n"
        "restorer = pages(1, 7)\n"
        "ctypes.memmove(restorer, bytes.fromhex('b80f0000000f05'), 7)\n"
        "action = bytearray(struct.pack('<QQQQ', ctypes.cast(handler, ctypes.c_void_p).value, 0x04000004, restorer, 0))\n"
        "assert call(13, 10, address_of(action), 0, 8) == 0\n"
        "os.kill(os.getpid(), 10)\n"
        "print('survived')"
    )
    result = run(code)
    assert (result.status, result.exit_code) == ("crashed", 139), result
    assert not run.log


@pytest.mark.parametrize("flags", [0x04000000, 0x44000000], ids=["blocked", "SA_NODEFER"])
@pytest.mark.parametrize("handler", [1 << 47, 0xFFFF_8000_0000_0000, 0x7FFF_FFE0_5000, 2**64 - 1], ids=hex)
def test_a_handler_that_cannot_be_entered_ends_the_program(run, handler, flags):
    code = RAW + (
        f"action = bytearray(struct.pack('<QQQQ', {handler}, {flags}, 0x1000, 0))\n"
        "assert call(13, 11, address_of(action), 0, 8) == 0\n"
        "ctypes.string_at(8)"
    )
    result = run(code)
    assert (result.status, result.exit_code) == ("crashed", 139)
    assert not run.log, "no error of the monitor"


def test_the_clock_cannot_be_turned_into_a_way_to_write_page_tables(run):
    """The vvar page is unmapped, its frame reused as a page table, and the vDSO asked to write a counter of one's choice."""
    code = RAW + (
        "rows = [line.split() for line in open('/proc/self/maps')]\n"
        "vvar = next(int(row[0].split('-')[0], 16) for row in rows if row[-1] == '[vvar]')\n"
        "image = ctypes.string_at(vvar + 4096, 4096)\n"
        "calibrate = vvar + 4096 + image.index(b'\\x0f\\x05\\xc3')\n"
        "target = 0x200000000000\n"
        "assert call(11, vvar, 4096) == 0\n"
        "for i in range(8):\n"
        "    ctypes.memset(pages(1, 3, 0x32, target + (i << 39)), 1, 1)\n"  # new page tables at every level
        "time = pages(1)\n"
        # mov eax, 228; mov r9, <a page-table entry for frame 0, user, writable>; mov rdx, calibrate; jmp rdx
        "code = bytes.fromhex('b8e4000000' '49b9') + struct.pack('<Q', 0x267) + bytes.fromhex('48ba') + struct.pack('<Q', calibrate)\n"
        "execute(code + bytes.fromhex('ffe2'), 1, time)\n"
        "print('done')"
    )
    with run.template.fork() as sandbox:
        result = sandbox.run(code)
        mm = sandbox.kernel.task.mm
        frames = [entry >> 12 & 0xFFFFFF for area in mm.maps() for _, entry in mm.table.resident(area.start, area.end)]
        assert len(frames) == len(set(frames)), "a page shows another one's frame"
        assert min(frames) >= 6, "a page of the monitor is mapped for the program"
    assert result.stdout == b"done\n", result
