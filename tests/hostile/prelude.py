"""What hostile programs begin with: raw system calls, machine code, and a way to survive signals."""

# Programs for the guest are strings; a broken line would not make them clearer.
# ruff: noqa: E501

#: ``call(number, *arguments)`` gives the result or -errno; ``page`` is a page to write; ``execute(code)`` calls machine code.
RAW = r"""
import ctypes, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    words = [ctypes.c_ulong(value & (1 << 64) - 1) for value in arguments]
    result = libc.syscall(ctypes.c_long(number), *words, *[ctypes.c_ulong(0)] * (6 - len(words)))
    return -ctypes.get_errno() if result == -1 else result
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
def pages(count, prot=3, flags=0x22, at=None):
    address = libc.mmap(at, count * 4096, prot, flags, -1, 0)
    assert address != ctypes.c_void_p(-1).value, ctypes.get_errno()
    return address
def address_of(buffer):
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
_code = pages(16, 7)
def execute(code, *arguments):
    ctypes.memmove(_code, code, len(code))
    function = ctypes.CFUNCTYPE(ctypes.c_ulong, *[ctypes.c_ulong] * len(arguments))(_code)
    return function(*arguments)
"""

#: ``attempt(code)`` runs machine code that ends in RET, and gives the signal that it caused (0: none).
SURVIVE = (
    RAW
    + r'''
import signal
# setjmp and longjmp by hand: keep what a function must preserve, call it, and let a signal's handler return in its place.
_save = pages(1)
_enter = bytes.fromhex("49bb") + struct.pack("<Q", _save) + bytes.fromhex(  # mov r11, save
    "49891b49896b084d8963104d896b184d8973204d897b2849896330"  # mov [r11 + ...], rbx rbp r12 r13 r14 r15 rsp
    "ffd731c0c3"  # call rdi; xor eax, eax; ret
)
_back = bytes.fromhex("49bb") + struct.pack("<Q", _save) + bytes.fromhex(
    "498b1b498b6b084d8b63104d8b6b184d8b73204d8b7b28498b6330"  # mov rbx rbp r12 r13 r14 r15 rsp, [r11 + ...]
    "89f8c3"  # mov eax, edi; ret
)
_restorer = bytes.fromhex("b80f0000000f05")  # mov eax, 15 (rt_sigreturn); syscall
_text = pages(3, 7)
ctypes.memmove(_text, _enter, len(_enter))
ctypes.memmove(_text + 256, _back, len(_back))
ctypes.memmove(_text + 512, _restorer, len(_restorer))
_stack = pages(16)
def arm():
    stack = struct.pack("<QixxxxQ", _stack, 0, 16 * 4096)
    libc.sigaltstack(stack, None)
    for signo in (4, 5, 7, 8, 11):
        # SA_RESTORER | SA_ONSTACK | SA_NODEFER
        action = bytearray(struct.pack("<QQQQ", _text + 256, 0x4C000000, _text + 512, 0))
        assert call(13, signo, address_of(action), 0, 8) == 0
arm()
_entry = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_text)
def attempt(code):
    """Run machine code that ends in RET; the signal that it caused, 0 if none."""
    ctypes.memmove(_code, code, len(code))
    return _entry(_code)
'''
)
