# ruff: noqa
import ctypes
import mmap
import signal
import struct

from common import sys

libc = ctypes.CDLL(None)
# f(rdi): load MXCSR [rdi] and x87 control word [rdi+4], set all bits of XMM15; tkill(gettid(), SIGUSR1); store the three
# at rdi+8, +12, +16; load the usual MXCSR and control word from rdi+24, +28
RAISE = bytes.fromhex(
    "0fae17 d96f04 66450f76ff 57"
    "b8ba000000 0f05 89c7 be0a000000 b8c8000000 0f05"
    "5f 0fae5f08 d97f0c 66440fd67f10 0fae5718 d96f1c c3"
)
code = mmap.mmap(-1, 8192, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
words = ctypes.create_string_buffer(64)
place = ctypes.addressof(words)
# The handler stores the three at words+32, +36, +40.
HANDLER = bytes.fromhex("48b8") + struct.pack("<Q", place) + bytes.fromhex("0fae5820 d97824 66440fd67828 c3")
code[: len(RAISE)] = RAISE
code[4096 : 4096 + len(HANDLER)] = HANDLER
function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
libc.sigaction(signal.SIGUSR1, struct.pack("<Q128si4xQ", address + 4096, bytes(128), 0, 0), None)
for mxcsr, control in ((0x1F80, 0x37F), (0x7F80, 0xF7F), (0x9FC0, 0x27F), (0x1D80, 0x37B)):
    words[:32] = struct.pack("<II16xII", mxcsr, control, 0x1F80, 0x37F)
    function(place)
    print("after", *map(hex, struct.unpack_from("<IIQ", words, 8)))
    print("in the handler", *map(hex, struct.unpack_from("<IIQ", words, 32)))
sys.stdout.flush()
