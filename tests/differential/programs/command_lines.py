# ruff: noqa
# /proc/<pid>/cmdline and environ are what the process has in its memory.
import subprocess, time
from common import sys


def text(pid, name):
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(100)", "", "two words"], env={"A": "1", "B": ""}
)
while not text(child.pid, "cmdline").endswith(b"two words\0"):
    time.sleep(0.01)
print(text(child.pid, "cmdline").split(b"\0")[1:], text(child.pid, "environ"))
child.kill()
child.wait()

# A child of a fork has its parent's; what it writes over them is its own.
program = """
import ctypes, os, sys
before = open("/proc/self/cmdline", "rb").read()
pid = os.fork()
if not pid:
    libc = ctypes.CDLL(None)
    argv = ctypes.POINTER(ctypes.c_char_p)()
    argc = ctypes.c_int()
    ctypes.pythonapi.Py_GetArgcArgv(ctypes.byref(argc), ctypes.byref(argv))
    # The strings of the kernel's own vector, not Python's copies of them.
    fields = open("/proc/self/stat").read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    print(end - start == len(before), ctypes.string_at(start, end - start) == before)
    ctypes.memset(start, ord("x"), end - start - 1)
    print(open("/proc/self/cmdline", "rb").read() == b"x" * (len(before) - 1) + b"\\0")
    sys.stdout.flush()
    os._exit(0)
os.waitpid(pid, 0)
print(open("/proc/self/cmdline", "rb").read() == before, before.split(b"\\0")[1:2], before.count(b"\\0"))
"""
print(subprocess.run([sys.executable, "-c", program, "argument"], capture_output=True, text=True).stdout)
