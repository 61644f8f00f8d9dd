"""A guest without a processor: file system, tables and system calls, with stand-ins for memory and kernel."""

import atexit
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from errno import EFAULT, ENAMETOOLONG
from functools import cache
from pathlib import Path
from typing import Any

import pyvmm.linux.syscalls  # noqa: F401 - fills the table
from pyvmm.image import Image, ImageWriter
from pyvmm.linux.abi.fcntl import AT_FDCWD
from pyvmm.linux.abi.stat import STAT
from pyvmm.linux.abi.unistd import NUMBERS
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files import FdTable
from pyvmm.linux.futex import FutexTable
from pyvmm.linux.limits import Limits
from pyvmm.linux.net.network import Network
from pyvmm.linux.process import Process
from pyvmm.linux.scheduler import Scheduler
from pyvmm.linux.signals import SignalState
from pyvmm.linux.table import TABLE
from pyvmm.linux.task import Credentials, Task
from pyvmm.linux.vfs import FsContext, Vfs
from pyvmm.linux.wait import Blocked, State

#: Where the guest's only mapping begins, what it holds, and an address that is nowhere.
BASE, SIZE, NOWHERE = 0x10_0000, 4 << 20, 0x666_0000


class FakeMemory:
    """One readable and writable mapping."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)

    def _accessible(self, address: int, count: int) -> int:
        return max(min(count, BASE + SIZE - address), 0) if address >= BASE else 0

    readable = writable = _accessible

    def read(self, address: int, count: int) -> bytes:
        if count and self._accessible(address, count) < count:
            raise GuestError(EFAULT)
        return bytes(self.data[address - BASE : address - BASE + count])

    def write(self, address: int, data: bytes) -> None:
        if data and self._accessible(address, len(data)) < len(data):
            raise GuestError(EFAULT)
        if data:
            self.data[address - BASE : address - BASE + len(data)] = data

    def read_cstring(self, address: int, limit: int) -> bytes:
        count = self._accessible(address, limit)
        text, end, _ = bytes(self.data[address - BASE : address - BASE + count]).partition(b"\0")
        if not end:
            raise GuestError(ENAMETOOLONG if count == limit else EFAULT)
        return text

    def read_u32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def read_u64(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def write_u32(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(8, "little"))


class FakeClock:
    """Time passes by a microsecond at each look, and by sleeping."""

    def __init__(self) -> None:
        self.now = 1_700_000_000 * 10**9

    def realtime_ns(self) -> int:
        self.now += 1000
        return self.now

    def monotonic_ns(self) -> int:
        self.now += 1000
        return self.now - 1_699_999_000 * 10**9

    def cpu_ns(self) -> int:
        return 10**9


class Deadlock(Exception):
    """The guest would sleep for ever."""


@dataclass
class Collected:
    data: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> None:
        self.data += data


class FakeKernel:
    """What files ask of the kernel."""

    hostname = b"sandbox"
    cpu_count = 1
    cpuinfo = b"processor\t: 0\n"
    memory_limit = 256 << 20

    def __init__(self, vfs: Vfs, clock: FakeClock, limits: Limits, stdin: bytes) -> None:
        self.vfs, self.clock, self.limits, self.stdin = vfs, clock, limits, stdin
        self.stdout, self.stderr = Collected(), Collected()
        self.task: Any = None
        self.tasks: dict[int, Any] = {}
        self.processes: dict[int, Process] = {}
        self.futexes = FutexTable()
        self.network = Network(self)  # type: ignore[arg-type]
        self.scheduler = Scheduler(clock)  # type: ignore[arg-type]
        self.wakers: list[Any] = []
        vfs.kernel = self  # type: ignore[assignment]

    def memory_used(self) -> int:
        return 8 << 20

    def process_cpu_ns(self, process: Process) -> int:
        return self.clock.cpu_ns()

    def task_cpu_ns(self, task: Any) -> int:
        return self.clock.cpu_ns()

    def random(self, count: int) -> bytes:
        return os.urandom(count)

    def check(self) -> None:
        """Nobody stops this guest."""

    def sleep_until(self, monotonic_ns: int | None) -> None:
        if self.wakers:
            self.wakers.pop(0)()
        elif monotonic_ns is None:
            raise Deadlock
        else:
            self.clock.now += max(monotonic_ns - self.clock.monotonic_ns(), 0)


@dataclass(eq=False)
class Area:
    start: int
    end: int
    prot: int
    flags: int
    ino: int
    offset: int
    name: bytes

    def __getitem__(self, key: slice) -> tuple[Any, ...]:
        return (self.start, self.end, self.prot, self.flags, self.ino, self.offset, self.name)[key]


class FakeSpace:
    brk_start = brk = 0x5555_5556_0000
    users = 0
    arguments = environment = (0, 0)

    def maps(self) -> Iterator[Area]:
        yield Area(0x5555_5555_4000, 0x5555_5555_5000, 5, 2, 7, 0, b"/bin/program")
        yield Area(0x7FFF_FEFF_F000, 0x7FFF_FF7F_F000, 3, 0x22, 0, 0, b"[stack]")


class Guest:
    """One process; :meth:`call` makes a system call and gives what RAX would hold."""

    pid = tid = 300
    ppid = 1
    comm = b"program"
    exe_path = b"/bin/program"
    no_new_privs = False
    state = State.RUNNABLE
    nice = 0

    wait = Task.wait
    deadline_after = Task.deadline_after

    def __init__(
        self,
        image: Image | None = None,
        limits: Limits | None = None,
        stdin: bytes = b"",
        state: dict[str, Any] | None = None,
    ) -> None:
        image = image or sample_image()
        limits = limits or Limits(file_bytes=64 << 20, inodes=1000)
        self.clock = FakeClock()
        self.vfs = (
            Vfs(image, self.clock, limits) if state is None else Vfs.restore(image, state["vfs"], self.clock, limits)
        )
        self.kernel: Any = FakeKernel(self.vfs, self.clock, limits, stdin)
        self.kernel.task = self
        self.mem: Any = FakeMemory()
        self.mm: Any = FakeSpace()
        self.creds = Credentials()
        self.process = Process(self.kernel, self.pid, None)
        self.process.threads[self.tid] = self  # type: ignore[assignment]
        self.kernel.processes[self.pid], self.kernel.tasks[self.tid] = self.process, self
        self.signals = SignalState(self.process.signals)
        self.rlimits = self.process.rlimits = limits.initial_rlimits()
        strings = (b"program\0one\0", b"A=1\0")
        ends = [self.buffer + (SIZE >> 2)]
        for text in strings:
            self.mem.write(ends[-1], text)
            ends.append(ends[-1] + len(text))
        self.mm.arguments, self.mm.environment = tuple(ends[:2]), tuple(ends[1:])
        self.sent: list[int] = []
        if state is None:
            self.fs = FsContext(self.vfs)
            self.files = FdTable(limits.nofile, self.vfs.store.quota)
            self.files.install_standard(self.vfs)
        else:
            self.fs = FsContext.restore(state["fs"], self.vfs)
            self.files = FdTable.restore(state["files"], self.vfs)
        self._next = BASE

    #: Where results go, and the first byte that cannot be touched.
    buffer = BASE + SIZE // 2
    nowhere = BASE + SIZE

    def peek(self, address: int, count: int) -> bytes:
        return self.mem.read(address, count)

    def send_signal(self, signo: int) -> None:
        self.sent.append(signo)

    def save(self) -> dict[str, Any]:
        return {"vfs": self.vfs.save(), "fs": self.fs.save(), "files": self.files.save()}

    def place(self, data: bytes) -> int:
        """Put ``data`` somewhere in memory (room for a few calls); its address."""
        if self._next + len(data) + 8 > BASE + SIZE // 2:
            self._next = BASE
        address = self._next
        self.mem.write(address, data)
        self._next += (len(data) + 7) & ~7
        return address

    def call(self, name: str, *arguments: int | bytes) -> int:
        """Make a system call; bytes stand for a pointer to them, closed by a NUL. Negative: ``-errno``."""
        words = [self.place(word + b"\0") if isinstance(word, bytes) else word for word in arguments]
        call = TABLE[NUMBERS[name]]
        words += [0] * (len(call.arguments) - len(words))
        registers = bytearray(144)
        for value, offset in zip(words, (40, 32, 24, 80, 64, 72), strict=False):
            struct.pack_into("<Q", registers, offset, value & (1 << 64) - 1)
        self.is_first_try, self.has_deadline, self.deadline = True, False, None
        self.scratch, self.progress = None, 0
        while True:
            try:
                result = call.function(self, *call.decode(registers, 0))
                break
            except GuestError as error:
                return -error.errno
            except Blocked as wait:
                self.is_first_try = False
                self.progress += wait.progress
                self.kernel.sleep_until(wait.until)
        assert isinstance(result, int) and result >= 0, f"{name} returned {result!r}"
        return result

    # ------------------------------------------------------------------------------------- conveniences

    def open(self, path: bytes, flags: int = 0, mode: int = 0o644, dirfd: int = AT_FDCWD) -> int:
        return self.call("openat", dirfd, path, flags, mode)

    def write(self, fd: int, data: bytes) -> int:
        return self.call("write", fd, self.place(data), len(data))

    def read(self, fd: int, count: int = 1 << 16) -> bytes | int:
        buffer = BASE + SIZE // 2
        result = self.call("read", fd, buffer, count)
        return self.mem.read(buffer, result) if result >= 0 else result

    def slurp(self, path: bytes) -> bytes:
        fd = self.open(path)
        assert fd >= 0, (path, fd)
        parts = []
        while part := self.read(fd):
            assert isinstance(part, bytes), part
            parts.append(part)
        self.call("close", fd)
        return b"".join(parts)

    def spill(self, path: bytes, data: bytes) -> None:
        fd = self.open(path, 0o1101)
        assert fd >= 0, (path, fd)
        assert self.write(fd, data) == len(data)
        self.call("close", fd)

    def stat(self, path: bytes, flags: int = 0x100) -> tuple[int, ...] | int:
        """(dev, ino, nlink, mode, uid, gid, rdev, size, blksize, blocks, times ...) or ``-errno``."""
        buffer = BASE + SIZE // 2
        result = self.call("newfstatat", AT_FDCWD, path, buffer, flags)
        return STAT.unpack(self.mem.read(buffer, STAT.size)) if result == 0 else result

    def entries(self, fd: int, size: int = 32768) -> list[tuple[bytes, int, int, int]]:
        """(name, type, inode number, d_off) of all entries that are left."""
        found = []
        buffer = BASE + SIZE // 2
        while count := self.call("getdents64", fd, buffer, size):
            assert count > 0, count
            data = self.mem.read(buffer, count)
            at = 0
            while at < count:
                ino, off, length, kind = struct.unpack_from("<QqHB", data, at)
                assert length % 8 == 0
                found.append((data[at + 19 : at + length].split(b"\0")[0], kind, ino, off))
                at += length
        return found

    def names(self, path: bytes) -> list[bytes]:
        fd = self.open(path, 0o200000)
        assert fd >= 0, fd
        found = [name for name, *_ in self.entries(fd)]
        self.call("close", fd)
        return sorted(found)


def write_sample(folder: Path) -> None:
    """A small tree: programs, libraries, links, a home."""
    with ImageWriter(folder) as writer:
        for path, mode in (("/dev", 0o755), ("/proc", 0o555), ("/sys", 0o555), ("/root", 0o700), ("/tmp", 0o1777)):
            writer.directory(path, mode)
        writer.directory("/home/user", 0o755, uid=1000, gid=1000)
        writer.directory("/var/tmp", 0o1777)
        writer.file("/bin/program", b"\x7fELF" + bytes(9000), 0o755)
        writer.file("/etc/passwd", b"root:x:0:0::/root:/bin/sh\n")
        writer.file("/etc/secret", b"s3cret", 0o600)
        writer.file("/usr/lib/big", bytes(range(256)) * 1024)
        writer.symlink("/lib", "usr/lib")
        writer.symlink("/etc/absolute", "/etc/passwd")
        writer.symlink("/loop", "/loop")
        for number in range(300):
            writer.file(f"/usr/share/many/file{number}", b"%d" % number)
        writer.finish()


@cache
def sample_image() -> Image:
    """The image of all these tests, made at the first use; nobody can change it."""
    folder = tempfile.TemporaryDirectory()
    write_sample(Path(folder.name))
    image = Image.open(Path(folder.name))
    atexit.register(image.close)
    atexit.register(folder.cleanup)
    return image


def run_in_guest(program: Callable[[Guest], Any], limits: Limits | None = None) -> Any:
    """What ``program`` gives when it is called with a new guest whose working directory is its user's empty home."""
    guest = Guest(limits=limits)
    assert guest.call("chdir", b"/home/user") == 0
    return program(guest)
