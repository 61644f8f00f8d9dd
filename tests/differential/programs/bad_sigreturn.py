# ruff: noqa
import ctypes
import mmap
import signal
import struct

from common import os, sys

SA_SIGINFO, SA_ONSTACK = 4, 0x0800_0000
libc = ctypes.CDLL(None)

# mov rsp, rdi; mov eax, 15 (rt_sigreturn); syscall; hlt
RETURN = bytes.fromhex("4889fc b80f000000 0f05 f4")
# The handler: exit_group(si_code >> 1 & 0x40 | signo)
HANDLER = bytes.fromhex("8b4608 d1e8 83e040 09c7 b8e7000000 0f05")
code = mmap.mmap(-1, 8192, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code[: len(RETURN)] = RETURN
code[4096 : 4096 + len(HANDLER)] = HANDLER
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
sigreturn = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
stack = ctypes.create_string_buffer(1 << 16)


def frame(rip=address + 7, rsp=0, mask=0, fpstate=0, flags=0x202):
    """A ucontext: flags, link, alternate stack (disabled), registers, selectors, fault, extended state, mask."""
    registers = [0] * 15 + [rsp, rip, flags]
    data = struct.pack("<QQQI4xQ18Q4H5Q64xQ", 7, 0, 0, 2, 0, *registers, 0x33, 0, 0, 0x2B, 0, 0, 0, 0, fpstate, mask)
    return data + bytes(256)


def ends(frame_address, handler=True, blocked=(), on_stack=True):
    """How a child ends that returns through a frame."""
    pid = os.fork()
    if not pid:
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        if handler is None:
            signal.signal(signal.SIGSEGV, signal.SIG_IGN)
        elif handler:
            if on_stack:
                libc.sigaltstack(struct.pack("<QI4xQ", ctypes.addressof(stack), 0, len(stack)), None)
            action = struct.pack("<Q128si4xQ", address + 4096, bytes(128), SA_SIGINFO | SA_ONSTACK, 0)
            libc.sigaction(signal.SIGSEGV, action, None)
        sigreturn(frame_address)
        os._exit(99)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)


good = ctypes.addressof(ctypes.c_char.from_buffer(stack)) + 4096
for place in (0, 8, 1 << 40, (1 << 47) - 8, 1 << 47, 1 << 63, (1 << 64) - 8):
    print(hex(place), ends(place), ends(place, on_stack=False), ends(place, handler=False), ends(place, handler=None))
print("blocked", ends(8, blocked=[signal.SIGSEGV]))

spare = ctypes.create_string_buffer(8192)
space = ctypes.addressof(spare) + 63 & ~63
print("mask of the frame")
for kept in (0, 1 << 10):
    for rip in (1 << 47, 1 << 63, 0x10):
        data = frame(rip=rip, rsp=good, mask=kept)
        ctypes.memmove(space, data, len(data))
        print(hex(rip), kept, ends(space), ends(space, handler=False))
print("extended state")
for fpstate in (8, space + 2048, space + 2048 + 8):
    for mxcsr in (0x1F80, 0xFFFF_FFFF):
        ctypes.memset(space, 0, 4096)
        data = frame(rip=address + 9, rsp=good, fpstate=fpstate)
        ctypes.memmove(space, data, len(data))
        ctypes.memmove(space + 2048 + 24, struct.pack("<I", mxcsr), 4)
        print(fpstate - space if fpstate > 8 else fpstate, hex(mxcsr), ends(space), ends(space, handler=False))
sys.stdout.flush()
