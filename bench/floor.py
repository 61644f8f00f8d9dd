"""The floor under a fork: the C program ``floor.c``, compiled, and driven so that its rounds can lie between ours."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Cycle", "Floor", "FloorMissing", "compile_floor"]

_SOURCE = Path(__file__).with_name("floor.c")
_OPTIONS = ("-std=gnu11", "-O2", "-Wall")


class FloorMissing(Exception):
    """The C program cannot be had or does not work here; the message says why."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """One VM made and destroyed; nanoseconds, ``steps`` by name in their order."""

    create: int
    destroy: int
    steps: dict[str, int]


def compile_floor() -> Path:
    """The compiled program: in a folder of this user under the temporary one, made anew when the source changes.

    :raises FloorMissing: there is no compiler, or it has no ``linux/kvm.h``.
    """
    wanted = os.environ.get("CC", "gcc")
    compiler = shutil.which(wanted)
    if compiler is None:
        raise FloorMissing(f"no {wanted} here, so no C floor to compare with (on Debian: apt install gcc libc6-dev)")
    key = hashlib.sha256(_SOURCE.read_bytes() + repr((compiler, _OPTIONS)).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"pyvmm-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise FloorMissing(f"{folder} belongs to somebody else")
    program = folder / f"floor-{key}"
    if not program.exists():
        partial = program.with_suffix(f".{os.getpid()}")
        done = subprocess.run(
            [compiler, *_OPTIONS, "-o", partial, _SOURCE], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise FloorMissing(f"floor.c does not compile here:\n{done.stderr.strip()}")
        partial.replace(program)
    return program


class Floor:
    """The running C program.

    :param limit: bytes of guest memory mapped for a fork.
    :param in_use: bytes of it in the memory slot.
    :param image_fd: the snapshot's memory, ``image_size`` bytes of which are mapped copy-on-write.
    :param xsave: the XSAVE area that a fork is given, ``msrs`` its MSRs, ``xcr0`` its XCR0.
    :raises FloorMissing: see the message.
    """

    def __init__(
        self, limit: int, in_use: int, image_fd: int, image_size: int, xcr0: int, xsave: bytes, msrs: dict[int, int]
    ) -> None:
        program = compile_floor()
        self.in_use = in_use
        xsave_fd = os.memfd_create("xsave", os.MFD_CLOEXEC)
        try:
            os.pwrite(xsave_fd, xsave, 0)
            command = [str(program), *map(str, (limit, in_use, image_fd, image_size, xcr0, xsave_fd))]
            command += [f"{index:#x}={value:#x}" for index, value in msrs.items()]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(image_fd, xsave_fd)
            )
        finally:
            os.close(xsave_fd)
        try:
            head, creating, *self._names = self._line().split()
        except BaseException:
            self.close()
            raise
        assert head == "steps"
        self._creating = int(creating)

    def _line(self) -> str:
        assert self._process.stdout is not None
        line: str = self._process.stdout.readline()
        if not line:
            raise FloorMissing(f"the C floor ended with status {self._process.wait()}; its message is above")
        return line

    def _send(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def cycle(self) -> Cycle:
        """Make a VM and destroy it."""
        self._send("cycle 1")
        times = [int(word) for word in self._line().split()]
        steps = dict(zip(self._names, times, strict=True))
        return Cycle(sum(times[: self._creating]), sum(times[self._creating :]), steps)

    def hold(self, count: int) -> None:
        """Make ``count`` more VMs and keep them."""
        self._send(f"hold {count}")
        self._line()

    def drop(self) -> None:
        """Destroy the VMs that are kept."""
        self._send("drop")
        self._line()

    def add_mappings(self, count: int) -> None:
        """Have ``count`` more mappings in that process: ``KVM_CREATE_VM`` takes longer the more there are."""
        self._send(f"mappings {count}")
        self._line()

    @property
    def pid(self) -> int:
        """The process, to ask the system about it."""
        return self._process.pid

    def close(self) -> None:
        """End the program; twice is fine."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Floor pid={self._process.pid} {'alive' if self._process.poll() is None else 'ended'}>"
