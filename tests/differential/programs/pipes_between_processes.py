import os
import signal
import sys

reader, writer = os.pipe()
sys.stdout.flush()
pid = os.fork()
if not pid:
    os.close(reader)
    data = bytes(range(256)) * 8192
    done = 0
    while done < len(data):
        done += os.write(writer, data[done:])
    os._exit(0)
os.close(writer)
total = checksum = 0
while part := os.read(reader, 70_000):
    total += len(part)
    checksum = (checksum * 31 + sum(part)) % 1_000_003
print(total, os.waitpid(pid, 0)[1])
os.close(reader)

reader, writer = os.pipe()
os.close(reader)
try:
    os.write(writer, b"x")
except BrokenPipeError as error:
    print(error)
pid = os.fork()
if not pid:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.write(writer, b"x")
    os._exit(0)
print(os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGPIPE)

# Eight writers of small records: none is torn.
reader, writer = os.pipe()
children = []
for number in range(8):
    pid = os.fork()
    if not pid:
        os.close(reader)
        for _ in range(50):
            os.write(writer, bytes([65 + number]) * 100)
        os._exit(0)
    children.append(pid)
os.close(writer)
data = bytearray()
while part := os.read(reader, 65536):
    data += part
print(len(data), all(len(set(data[start : start + 100])) == 1 for start in range(0, len(data), 100)))
for pid in children:
    os.waitpid(pid, 0)

os.mkfifo("/tmp/a-fifo")
pid = os.fork()
if not pid:
    with open("/tmp/a-fifo", "w") as fifo:
        fifo.write("through a name")
    os._exit(0)
with open("/tmp/a-fifo") as fifo:
    print(fifo.read())
os.waitpid(pid, 0)
os.unlink("/tmp/a-fifo")
