"""Threads and processes of a guest: pre-emption, registers, and how they end. (What they compute is compared with the host
in ``tests/differential``.)"""

# Programs for the guest are strings; a broken line would not make them clearer.
# ruff: noqa: E501

import pytest

from tests.hostile.prelude import RAW

pytestmark = pytest.mark.kvm

#: Machine code: load all vector registers and MXCSR from RDI, spin RSI times, store them to RDX.
_VECTORS = (
    RAW
    + r"""
flags = set(open('/proc/cpuinfo').read().split())
def moves(store, base):
    code = b''
    if 'avx512f' in flags:
        for reg in range(32):
            first = (~reg >> 3 & 1) << 7 | 3 << 5 | (~reg >> 4 & 1) << 4 | 1
            code += bytes((0x62, first, 0xFE, 0x48, 0x7F if store else 0x6F, 0x80 | (reg & 7) << 3 | base)) + struct.pack('<I', reg * 64)
    elif 'avx' in flags:
        for reg in range(16):
            code += bytes((0xC5, 0xFE if reg < 8 else 0x7E, 0x7F if store else 0x6F, 0x80 | (reg & 7) << 3 | base)) + struct.pack('<I', reg * 32)
    else:
        for reg in range(16):
            code += bytes((0xF3, *((0x44,) if reg > 7 else ()), 0x0F, 0x7F if store else 0x6F, 0x80 | (reg & 7) << 3 | base)) + struct.pack('<I', reg * 16)
    return code
size = 2048 if 'avx512f' in flags else 512 if 'avx' in flags else 256
code = bytes.fromhex('0fae9700080000') + moves(False, 7)  # ldmxcsr [rdi + 2048]
code += bytes.fromhex('48ffce75fb') + moves(True, 2) + bytes.fromhex('0fae9a00080000c3')  # dec rsi; jnz; stmxcsr [rdx + 2048]
text = pages(2, 7)
ctypes.memmove(text, code, len(code))
spin = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p)(text)
def keep(number, turns=60_000_000):
    given, taken = pages(1), pages(1)
    pattern = bytes((number * 37 + place * 11) & 255 for place in range(size))
    ctypes.memmove(given, pattern, size)
    mxcsr = struct.pack('<I', 0x1F80 | (number & 3) << 13)
    ctypes.memmove(given + 2048, mxcsr, 4)
    spin(given, turns, taken)
    return ctypes.string_at(taken, size) == pattern and ctypes.string_at(taken + 2048, 4) == mxcsr
"""
)


def test_vector_registers_of_four_spinning_threads_survive_their_switches(run):
    code = _VECTORS + (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool: print(list(pool.map(keep, range(1, 5))))\n"
        "print(open('/proc/self/status').read().count('Threads'))"
    )
    assert run(code, timeout=60).stdout == b"[True, True, True, True]\n1\n"


def test_vector_registers_of_processes_survive_their_switches(run):
    code = _VECTORS + (
        "pids = []\n"
        "for number in range(3):\n"
        "    pid = os.fork()\n"
        "    if not pid: os._exit(0 if keep(number) else 1)\n"
        "    pids.append(pid)\n"
        "print(keep(9), [os.waitpid(pid, 0)[1] for pid in pids])"
    )
    assert run(code, timeout=60).stdout == b"True [0, 0, 0]\n"


def test_vector_registers_survive_a_signal_that_comes_while_another_thread_runs(run):
    """The frame of a signal holds the registers of the thread that gets it, not of the one that was on the processor."""
    code = _VECTORS + (
        "import signal, threading, time\n"
        "hits = []\n"
        "signal.signal(signal.SIGUSR1, lambda *_: hits.append(1))\n"
        # nanosleep([rdi + 3072]) instead of the loop: mov eax, 35; lea rdi, [rdi + 3072]; xor esi, esi; syscall; rdx is kept
        "nap = bytes.fromhex('0fae9700080000') + moves(False, 7) + bytes.fromhex('b82300000048 8dbf000c000031f60f05'.replace(' ', ''))\n"
        "nap += moves(True, 2) + bytes.fromhex('0fae9a00080000c3')\n"
        "ctypes.memmove(text, nap, len(nap))\n"
        "kept = []\n"
        "def sleeper():\n"
        "    for number in range(20):\n"
        "        given, taken = pages(1), pages(1)\n"
        "        pattern = bytes((number * 37 + place * 11) & 255 for place in range(size))\n"
        "        ctypes.memmove(given, pattern, size)\n"
        "        ctypes.memmove(given + 2048, struct.pack('<I', 0x1F80), 4)\n"
        "        ctypes.memmove(given + 3072, struct.pack('<qq', 0, 50_000_000), 16)\n"
        "        spin(given, 0, taken)\n"
        "        kept.append(ctypes.string_at(taken, size) == pattern)\n"
        "thread = threading.Thread(target=sleeper)\n"
        "thread.start()\n"
        "while thread.is_alive():\n"
        "    time.sleep(0.005)\n"
        "    if thread.is_alive(): signal.pthread_kill(thread.ident, signal.SIGUSR1)\n"
        "print(all(kept), len(kept), len(hits) > 0)"
    )
    assert run(code, timeout=60).stdout == b"True 20 True\n"


def test_a_thread_that_spins_in_machine_code_starves_nobody(run):
    code = RAW + (
        "import threading, time\n"
        "threading.Thread(target=execute, args=(bytes.fromhex('ebfe'),), daemon=True).start()\n"  # jmp to itself
        "ticks = []\n"
        "while len(ticks) < 5:\n"
        "    time.sleep(0.01)\n"
        "    ticks.append(1)\n"
        "print(len(ticks), flush=True)\n"
        "os._exit(3)"
    )
    result = run(code, timeout=20)
    assert (result.stdout, result.exit_code) == (b"5\n", 3)


def test_the_end_of_the_program_does_not_wait_for_threads_that_sleep(run):
    code = (
        "import os, select, threading, time\n"
        "reader, writer = os.pipe()\n"
        "for sleep in (lambda: time.sleep(1000), lambda: os.read(reader, 1), threading.Event().wait, lambda: select.select([reader], [], [])):\n"
        "    threading.Thread(target=sleep).start()\n"
        "os._exit(5)"
    )
    result = run(code, timeout=30)
    assert (result.exit_code, result.status) == (5, "error")


def test_what_an_orphan_would_still_do_is_never_seen(run):
    """C08: the reply comes when the program ends; its descendants end with the sandbox."""
    code = (
        "import os, sys, time\n"
        "if not os.fork():\n"
        "    os.setsid()\n"
        "    if not os.fork():\n"
        "        while True: print('still here', flush=True); time.sleep(0.01)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "time.sleep(0.1)\n"
        "print('done')"
    )
    result = run(code, timeout=30)
    assert result.status == "ok" and b"still here" in result.stdout and b"done" in result.stdout


def test_children_write_to_the_same_streams(run):
    code = "import os, sys\nfor n in range(3):\n    if not os.fork():\n        os.write(1 + n % 2, b'%d' % n)\n        os._exit(0)\n    os.wait()"
    result = run(code)
    assert (result.stdout, result.stderr) == (b"02", b"1")


def test_a_process_that_waits_for_ever_costs_no_processor_time(run):
    code = (
        "import os, threading, time\n"
        "threads = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(20)]\n"
        "for thread in threads: thread.start()\n"
        "before = time.process_time()\n"
        "time.sleep(1)\n"
        "print(time.process_time() - before < 0.5, flush=True)\n"
        "os._exit(0)"
    )
    assert run(code, timeout=30).stdout == b"True\n"
