import mmap
import os
import signal
import sys
import time

private, shared = bytearray(b"parent"), mmap.mmap(-1, 4096)
shared[:6] = b"before"
reader, writer = os.pipe()
sys.stdout.flush()
child = os.fork()
if not child:
    private[:] = b"child!"
    shared[:6] = b"child!"
    os.write(writer, private + b" %d" % (os.getppid() == os.getpid()))
    os._exit(7)
os.close(writer)
pid, status = os.waitpid(child, 0)
print(
    pid == child,
    os.waitstatus_to_exitcode(status),
    bytes(private),
    shared[:6],
    os.read(reader, 100),
    os.read(reader, 100),
)


def ends(function):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        function()
        os._exit(0)
    return os.waitpid(pid, 0)[1]


print([ends(lambda code=code: os._exit(code)) for code in (0, 1, 255, 256, -1)])
signal.signal(signal.SIGUSR1, signal.SIG_DFL)
print([ends(lambda signo=signo: os.kill(os.getpid(), signo)) & 0x7F for signo in (9, 10, 14, 15)])
print(ends(lambda: sys.exit) == 0, ends(os.abort) & 0x7F)
print(os.WIFSIGNALED(ends(lambda: os.kill(os.getpid(), 9))))

# Descriptors: the position is shared, the numbers are not.
with open("/tmp/position-of-a-fork", "w+b") as file:
    file.write(b"0123456789")
    file.flush()
    os.lseek(file.fileno(), 0, 0)
    print(ends(lambda: os.read(file.fileno(), 4)), os.read(file.fileno(), 3))
    ends(lambda: os.close(file.fileno()))
    print(os.read(file.fileno(), 2))


# A deep tree, and many at once.
def tree(depth):
    if not depth:
        os._exit(1)
    pids = [os.fork() for _ in range(1)]
    if not pids[0]:
        tree(depth - 1)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) + 1)


print(os.waitstatus_to_exitcode(ends(lambda: tree(10))))
children = []
for number in range(20):
    pid = os.fork()
    if not pid:
        time.sleep(0.001 * (20 - number))
        os._exit(number)
    children.append(pid)
codes = {}
while children:
    pid, status = os.wait()
    codes[children.index(pid)] = None
    children[children.index(pid)] = -1
    if all(child == -1 for child in children):
        break
print(len(codes))
try:
    os.wait()
except ChildProcessError as error:
    print(error)

# What the parent writes after the fork is not the child's, page by page.
block = bytearray(1 << 20)
reader, writer = os.pipe()
go_reader, go_writer = os.pipe()
pid = os.fork()
if not pid:
    os.read(go_reader, 1)
    os.write(writer, b"%d" % sum(block))
    os._exit(0)
block[::4096] = b"x" * 256
os.write(go_writer, b"g")
print(os.read(reader, 100), sum(block))
os.waitpid(pid, 0)

print(os.getpgid(0) == os.getpgid(os.getpid()), os.getsid(0) == os.getsid(os.getpid()))
print(os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-S", "-c", "raise SystemExit(5)"]))
print(os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", "print('spawned')"], {}) > 0, flush=True)
print(os.waitstatus_to_exitcode(os.wait()[1]))
