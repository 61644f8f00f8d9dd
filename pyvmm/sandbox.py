"""The public face: a template, the sandboxes forked from it, and what a run gave.

::

    with Template.load("python") as template:
        result = template.run("print(1 + 1)")
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pyvmm.errors import ForkFailed, HostError, SnapshotError
from pyvmm.fork import fork
from pyvmm.host import Host
from pyvmm.image import Image
from pyvmm.kernel_guest import KIND as KERNEL
from pyvmm.kernel_sandbox import KernelSandbox
from pyvmm.linux.boot import FrozenGuest, ProcessorFacts, Streams
from pyvmm.linux.kernel import Kernel
from pyvmm.linux.limits import Limits
from pyvmm.machine import Machine
from pyvmm.program import make_program
from pyvmm.result import Result, make_result
from pyvmm.snapshot import Snapshot
from pyvmm.template.cache import TemplateCache
from pyvmm.template.recipe import GuestKind, template_name

if TYPE_CHECKING:
    from pyvmm.linux.strace import Tracer

Sink = Callable[[bytes], object]


class Sandbox:
    """A forked VM that waits for its program. It runs one, and is then of no use but to be closed."""

    def __init__(
        self,
        machine: Machine,
        kernel: Kernel,
        streams: Streams,
        script: str,
        snapshot: Snapshot,
        started_ns: int,
        forked_ns: int,
    ) -> None:
        self._machine, self._kernel, self._streams = machine, kernel, streams
        self._script, self._snapshot = script, snapshot
        self._started_ns, self._forked_ns = started_ns, forked_ns
        self._used = self._closed = False

    def run(
        self,
        code: str | bytes,
        *,
        argv: Sequence[str] = (),
        name: str | None = None,
        stdin: bytes = b"",
        files: Mapping[str, bytes] | None = None,
        timeout: float = 30.0,
    ) -> Result:
        """Run ``code`` as the script ``name`` with arguments ``argv``.

        :param name: otherwise what the language has: ``main.py``, ``main.sh``.
        :param stdin: what the program reads from descriptor 0.
        :param files: files for the program, by path relative to its working directory.
        :param timeout: seconds after which it is stopped, whatever it does.
        :raises ForkFailed: the VM could not be given fresh randomness; nothing of ``code`` ran.
        :raises ValueError: a name or path cannot be used, or the sandbox has been used.
        """
        if self._used:
            raise ValueError("a sandbox runs one program; fork the template again for the next")
        self._used = True
        kernel, machine = self._kernel, self._machine
        program = make_program(code, self._script if name is None else name, argv, files)
        kernel.stdin = stdin
        task = kernel.task
        for path, data in program.files.items():
            kernel.vfs.put_file(path, data, 0o644, task.creds.uid, task.creds.gid)
        kernel.program = program.message

        begun_ns = time.monotonic_ns()
        # What every run uses is copied in one go: a fraction of the price of as many faults.
        machine.memory.copy_image(self._snapshot.memory_fd, self._snapshot.manifest.hot_size)
        kernel.start()
        ended = kernel.ended is not None or machine.run(kernel, begun_ns + int(timeout * 1e9))
        ended_ns = time.monotonic_ns()
        return self._result(ended, begun_ns, ended_ns, timeout)

    def _result(self, ended: bool, begun_ns: int, ended_ns: int, timeout: float) -> Result:
        kernel = self._kernel
        streams = self._streams.stdout, self._streams.stderr
        end = kernel.ended
        if not kernel.refreshed:
            said = streams[1].value()[-2000:].decode("utf-8", "replace")
            raise ForkFailed(
                f"the fork was not made fresh within {timeout:g} s ({end}); it was destroyed. It said: {said!r}"
            )
        if not ended:
            status, code = "timeout", -1
        elif end is None:
            status, code = "protocol_error", 1
        else:
            status, code = end.status, end.code
        return make_result(
            streams,
            status,
            code,
            end.message if end is not None else "",
            asked_ns=self._started_ns,
            forked_ns=self._forked_ns,
            begun_ns=begun_ns,
            ended_ns=ended_ns,
        )

    def asked_for(self, started_ns: int) -> None:
        """The sandbox was made ahead and somebody who asked at ``started_ns`` (CLOCK_MONOTONIC) has it now."""
        self._started_ns, self._forked_ns = started_ns, time.monotonic_ns()

    @property
    def kernel(self) -> Kernel:
        """The guest's kernel, for those who want to look inside."""
        return self._kernel

    @property
    def machine(self) -> Machine:
        """The VM."""
        return self._machine

    def stop(self) -> None:
        """End the run at once, from any thread; :meth:`run` then returns a result of status ``timeout``."""
        self._machine.stop()

    def close(self) -> None:
        """Destroy the VM; twice is fine."""
        if not self._closed:
            self._closed = True
            try:
                self._machine.close()
            finally:
                self._kernel.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sandbox pid={self._kernel.first_process.pid} {self._machine!r}>"


AnySandbox = Sandbox | KernelSandbox


class Template:
    """A loaded template, from which sandboxes are forked. Threads may share it."""

    def __init__(self, host: Host, snapshot: Snapshot, image: Image) -> None:
        self.host, self.snapshot, self.image = host, snapshot, image
        #: What is closed with the template.
        self._owned = ExitStack()
        kind = snapshot.manifest.kind
        if kind not in ("process", KERNEL):
            raise SnapshotError(f"{snapshot.path}: a guest of kind {kind!r}, which cannot be run here")
        facts = snapshot.manifest.facts
        self._limits = Limits(memory_bytes=snapshot.manifest.memory_limit)
        try:
            self.name: str = facts["name"]
            #: What its programs are written in, and the name of a program's file when it has none of its own.
            self.language: str = facts["language"]
            self.script: str = facts["script"]
            self._frozen = self._freeze() if kind == "process" else None
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotError(f"{snapshot.path}: its guest's state makes no sense: {error!r}") from error

    def _freeze(self) -> FrozenGuest:
        snapshot = self.snapshot
        tsc_khz = int(snapshot.manifest.facts["tsc_khz"])
        processor = ProcessorFacts(
            tsc_khz, self.host.hwcap, len(snapshot.vcpu.xsave), self.host.xcr0, self.host.cpuinfo
        )
        return FrozenGuest(snapshot.guest, self.image, self._limits, processor)

    @classmethod
    def load(
        cls,
        name: str = "python",
        *,
        guest: GuestKind | None = None,
        host: Host | None = None,
        cache: TemplateCache | None = None,
    ) -> Self:
        """Load the newest template of that name; a language's own is named as the language.

        :param guest: ``linux`` for the one whose guest is stock Linux (``python-linux``).
        :raises TemplateNotFound: none has been built; the message names the command.
        :raises SnapshotError: it is damaged, or of another version or processor.
        :raises HostError: this host cannot run it.
        """
        entry = (cache or TemplateCache()).latest(template_name(name, guest))
        return cls.open(entry.path, host=host)

    @classmethod
    def open(cls, path: Path, *, host: Host | None = None) -> Self:
        """Load the template in the folder ``path``; errors as :meth:`load`."""
        with ExitStack() as undo:
            if host is None:
                host = undo.enter_context(Host())
            snapshot = undo.enter_context(Snapshot.load(path, host.processor))
            image = undo.enter_context(Image.open(path))
            template = cls(host, snapshot, image)
            template._owned = undo.pop_all()
        return template

    @classmethod
    def build(
        cls,
        recipe: str | Path = "python",
        *,
        host: Host | None = None,
        progress: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Self:
        """Build the template of a recipe unless it is there already, and load it. Errors as
        :func:`pyvmm.template.build.build`.
        """
        from pyvmm.template.build import build

        return cls.open(build(recipe, progress or (lambda step: None), host=host, **options), host=host)

    @property
    def memory_mb(self) -> int:
        """MiB of memory that a sandbox may use."""
        return self.snapshot.manifest.memory_limit >> 20

    def fork(
        self,
        *,
        output_limit: int | None = None,
        sinks: tuple[Sink | None, Sink | None] = (None, None),
        tracer: "Tracer | None" = None,
    ) -> AnySandbox:
        """A new sandbox.

        :param output_limit: bytes kept of each stream (1 MiB); a program that writes more is stopped.
        :param sinks: called with what the program writes to descriptors 1 and 2, as it comes.
        :param tracer: sees the system calls; of a process guest only.
        :raises ForkFailed: the VM could not be made; the message says why.
        :raises ValueError: a tracer for a guest that has a kernel of its own.
        """
        started_ns = time.monotonic_ns()
        streams = Streams(output_limit or self._limits.output_bytes, sinks=sinks)
        if self._frozen is None:
            if tracer is not None:
                raise ValueError(
                    f"the system calls of {self.name!r} are served by Linux in the guest: nobody sees them"
                )
            return KernelSandbox(self.host, self.snapshot, self.script, (streams.stdout, streams.stderr))
        try:
            machine = fork(self.host, self.snapshot)
        except HostError as error:
            raise ForkFailed(f"the VM could not be made: {error}") from error
        try:
            kernel = self._frozen.thaw(machine.memory, machine.vcpu.run_page, streams)
            kernel.attach(machine.vcpu, machine)
            kernel.tracer = tracer
        except OSError as error:
            machine.close()
            raise ForkFailed(f"the VM could not be made fresh: {error}") from error
        except BaseException:
            machine.close()
            raise
        return Sandbox(machine, kernel, streams, self.script, self.snapshot, started_ns, time.monotonic_ns())

    def run(self, code: str | bytes, **options: Any) -> Result:
        """Fork, run ``code``, throw the fork away; options as :meth:`Sandbox.run`."""
        with self.fork() as sandbox:
            return sandbox.run(code, **options)

    def close(self) -> None:
        """Let go of snapshot and image; to be done when no sandbox is alive any more. Twice is fine."""
        self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Template {self.name!r} {self.memory_mb} MiB>"
