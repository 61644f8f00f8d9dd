"""What is fuzzed: sequences of memory writes and system calls as plain data, and what performs them in a guest."""

import json
import random
from typing import Any

from pyvmm.linux.abi.unistd import NUMBERS

#: ``["poke", offset, hex]`` writes into the arena; ``["call", number, [word, ...]]`` makes a system call. A word is a
#: number, ``["arena", offset]``, or ``["result", how many calls ago]``.
Operation = list[Any]
Record = list[Operation]

ARENA = 1 << 16
_LONGEST = 24

#: Calls that end or replace the program, or that wait for what nobody will do: a record says nothing after them.
_LEFT_OUT = {
    "exit",
    "exit_group",
    "rt_sigreturn",
    "pause",
    "rt_sigsuspend",
    "vfork",
    "execve",
    "execveat",
    "clone",
    "clone3",
}
_CALLS = sorted(number for name, number in NUMBERS.items() if name not in _LEFT_OUT)
_WORDS = [0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 100, 0o666, 0o4000, 0x80000, 4095, 4096, 65536, 2**31 - 1, 2**31, 2**32 - 1]
_WORDS += [2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 2, 2**64 - 100, 0x7FFF_FFE0_0000, 1 << 47, 0xFFFF_8000_0000_0000]
_PIECES = [b"/tmp/f\0", b"/proc/self/maps\0", b"/dev/zero\0", b".\0", b"..\0", b"/tmp/l\0", b"\0" * 32, b"\xff" * 16]

#: Performs the record that it is given as its first argument. Nothing in it may wait for long: an alarm that has no
#: handler would end it, so it has one; it comes again and again, for the first may come before the call has begun.
GUEST = """
import ctypes, json, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mmap.restype = ctypes.c_void_p
arena = libc.mmap(None, 65536 + 3 * 4096, 3, 0x22, -1, 0)
libc.munmap(ctypes.c_void_p(arena + 65536 + 4096), 4096)
libc.mprotect(ctypes.c_void_p(arena + 65536), 4096, 1)
signal.signal(signal.SIGALRM, lambda *_: None)
results = [0]
def word(value):
    if isinstance(value, int): return value
    kind, number = value
    return arena + number if kind == "arena" else results[-1 - number % len(results)]
for kind, first, second in json.loads(sys.argv[1]):
    if kind == "poke":
        data = bytes.fromhex(second)
        ctypes.memmove(arena + first % 65000, data, min(len(data), 500))
    else:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        words = [ctypes.c_ulong(word(value) & (1 << 64) - 1) for value in second]
        result = libc.syscall(ctypes.c_long(first), *words)
        results.append(result if result != -1 else -ctypes.get_errno())
print(len(results))
"""


def make_record(generator: random.Random) -> Record:
    """A new record."""
    return [_operation(generator) for _ in range(generator.randint(2, _LONGEST))]


def mutate(record: Record, other: Record, generator: random.Random) -> Record:
    """A record that differs a little from ``record``, or continues as ``other``."""
    changed: Record = json.loads(json.dumps(record))
    for _ in range(generator.randint(1, 4)):
        place = generator.randrange(len(changed))
        choice = generator.randrange(5)
        if choice == 0:
            changed[place] = _operation(generator)
        elif choice == 1:
            changed.insert(place, _operation(generator))
        elif choice == 2 and len(changed) > 2:
            del changed[place]
        elif choice == 3:
            changed = changed[:place] + other[generator.randrange(len(other)) :]
        elif changed[place][0] == "call" and changed[place][2]:
            words = changed[place][2]
            words[generator.randrange(len(words))] = _word(generator)
        if not changed:
            changed = [_operation(generator)]
    return changed[:_LONGEST]


def _operation(generator: random.Random) -> Operation:
    if generator.random() < 0.25:
        piece = generator.choice([*_PIECES, generator.randbytes(generator.randint(1, 64))])
        return ["poke", generator.randrange(0, 4096, 8), piece.hex()]
    return ["call", generator.choice(_CALLS), [_word(generator) for _ in range(generator.randint(1, 6))]]


def _word(generator: random.Random) -> Any:
    choice = generator.random()
    if choice < 0.35:
        return ["arena", generator.choice([generator.randrange(0, 4096, 8), 65536 - 4, 65536, 65536 + 4096])]
    if choice < 0.55:
        return ["result", generator.randrange(4)]
    if choice < 0.9:
        return generator.choice(_WORDS)
    return generator.getrandbits(generator.choice([4, 8, 16, 32, 64]))
