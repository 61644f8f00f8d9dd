"""A sandbox whose guest is stock Linux: what :class:`pyvmm.sandbox.Sandbox` is for process guests."""

import time
from collections.abc import Mapping, Sequence
from signal import SIGKILL, SIGXFSZ

from pyvmm.agent_session import AgentSession
from pyvmm.board.power import Ending, How
from pyvmm.errors import ForkFailed, HostError
from pyvmm.host import Host
from pyvmm.kernel_guest import KernelGuest
from pyvmm.linux.output import OutputStream
from pyvmm.machine import Machine
from pyvmm.program import make_program
from pyvmm.result import Result, make_result
from pyvmm.snapshot import Snapshot

__all__ = ["KernelSandbox"]


class KernelSandbox:
    """A forked VM that waits for its program. It runs one, and is then of no use but to be closed."""

    def __init__(self, host: Host, snapshot: Snapshot, script: str, streams: tuple[OutputStream, OutputStream]) -> None:
        """Fork ``snapshot``.

        :raises ForkFailed: the VM could not be made; the message says why.
        """
        self._started_ns = time.monotonic_ns()
        self._script, self._streams = script, streams
        self._session = AgentSession(streams, self._changed)
        try:
            self._guest = KernelGuest.fork(host, snapshot, ports=self._session.ports)
        except HostError as error:
            raise ForkFailed(f"the VM could not be made: {error}") from error
        self._used = False
        self._forked_ns = time.monotonic_ns()

    def _changed(self) -> None:
        if self._session.finished:
            self._guest.board.pause()

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
        """As :meth:`pyvmm.sandbox.Sandbox.run`.

        :raises ForkFailed: the VM could not be given fresh randomness and time; nothing of ``code`` ran.
        :raises ValueError: a name or path cannot be used, or the sandbox has been used.
        """
        if self._used:
            raise ValueError("a sandbox runs one program; fork the template again for the next")
        self._used = True
        program = make_program(code, self._script if name is None else name, argv, files)
        begun_ns = time.monotonic_ns()
        self._session.start(program, stdin)
        ending = self._guest.run(timeout)
        return self._result(ending, begun_ns, time.monotonic_ns(), timeout)

    def _result(self, ending: Ending | None, begun_ns: int, ended_ns: int, timeout: float) -> Result:
        session = self._session
        if not session.ready:
            why = session.failure or (ending.message if ending else "") or "it did not answer"
            said = self._guest.record.last_words()
            raise ForkFailed(f"the fork was not made fresh within {timeout:g} s ({why}). Its console said: {said!r}")
        status, code, message = self._outcome(ending)
        return make_result(
            self._streams,
            status,
            code,
            message,
            asked_ns=self._started_ns,
            forked_ns=self._forked_ns,
            begun_ns=begun_ns,
            ended_ns=ended_ns,
        )

    def _outcome(self, ending: Ending | None) -> tuple[str, int, str]:
        """Status, exit code, and what else is to be said."""
        session = self._session
        if session.too_much_output:
            return "output_limit", 128 + SIGXFSZ, ""
        if session.exit is not None:
            code, oom_kills = session.exit
            if code == 128 + SIGKILL and oom_kills:
                return "oom", code, "Killed: the guest's memory is exhausted"
            # A shell shows 128 + n for death by signal n, and for a program that exits so itself.
            return "ok" if code == 0 else "crashed" if 128 < code <= 192 else "error", code, ""
        if session.failure:
            return "protocol_error", 1, session.failure
        if ending is None or ending.how in (How.TIMEOUT, How.STOPPED):
            return "timeout", -1, ""
        # Its kernel is gone: the program's doing, or the want of memory.
        said = self._guest.record.last_words()
        return "crashed", 1, f"the guest's kernel ended: {ending.how.value}. {ending.message} Its console said:\n{said}"

    def asked_for(self, started_ns: int) -> None:
        """The sandbox was made ahead and somebody who asked at ``started_ns`` (CLOCK_MONOTONIC) has it now."""
        self._started_ns, self._forked_ns = started_ns, time.monotonic_ns()

    @property
    def machine(self) -> Machine:
        """The VM."""
        return self._guest.machine

    @property
    def exits(self) -> int:
        """Exits that the guest has taken since it was forked."""
        return self._guest.board.exits

    @property
    def interruptions(self) -> int:
        """How many of them the host caused, by its timer or a signal."""
        return self._guest.board.interruptions

    def stop(self) -> None:
        """End the run at once, from any thread; :meth:`run` then returns a result of status ``timeout``."""
        self._guest.stop()

    def close(self) -> None:
        """Destroy the VM; twice is fine."""
        self._guest.close()

    def __enter__(self) -> "KernelSandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<KernelSandbox {self._guest!r}>"
