import ctypes
import os

buffer = ctypes.create_string_buffer(b"in memory", 8192)
address = ctypes.addressof(buffer)
mem = os.open("/proc/self/mem", os.O_RDWR)
print(os.pread(mem, 9, address), os.pwrite(mem, b"of", address), buffer.value)
print(os.lseek(mem, address + 3, os.SEEK_SET) == address + 3, os.read(mem, 6), os.write(mem, b"!"), buffer.value)
print(len(os.pread(mem, 8192, address)), os.pread(mem, 0, 0))
for wrong in (0, 1 << 46, (1 << 47) - 4096, (1 << 62)):
    for call in (lambda at: os.pread(mem, 8, at), lambda at: os.pwrite(mem, b"x", at)):
        try:
            print(call(wrong))
        except OSError as error:
            print(error.errno)
try:
    print(os.lseek(mem, 0, os.SEEK_END))
except OSError as error:
    print(error.errno, flush=True)
child = os.fork()
if not child:
    ctypes.memset(address, 65, 3)
    print(os.pread(mem, 3, address), os.pread(os.open("/proc/self/mem", os.O_RDONLY), 3, address), flush=True)
    os._exit(0)
os.waitpid(child, 0)
