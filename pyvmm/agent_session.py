"""The host's end of a Linux template: what is said over the ports of its virtio console (``guest/linux/init``).

A template's init says ``frozen`` when the agent waits for its program; the snapshot is taken there. A fork is given a
token, its files and what makes it fresh, answers ``fresh``, gets the program, and ends with ``exit CODE OOM-KILLS``.
Behind the last byte of stdout and of stderr comes the token, which the program cannot know.

All of it comes from the guest, and is hostile: lines are short, and what makes no sense ends the session.
"""

import io
import os
import re
import secrets
import struct
import tarfile
import time
from collections.abc import Callable

from pyvmm.devices.virtio.port import Port
from pyvmm.linux.errors import OutputLimitReached
from pyvmm.linux.output import OutputStream
from pyvmm.program import Program

__all__ = ["AgentSession"]

_LINE_MAX = 256
_EXIT = re.compile(rb"exit (\d{1,3}) (\d{1,9})")
_USER_ID = 1000
_ENTROPY = 64
_FRESH = "run/pyvmm/fresh"


class AgentSession:
    """The session of one guest.

    :param streams: where stdout and stderr go.
    :param changed: called when the guest has said something that the host waits for.
    """

    def __init__(self, streams: tuple[OutputStream, OutputStream], changed: Callable[[], None]) -> None:
        self._changed = changed
        self._line = b""
        self._program = b""
        self._stdout, self._stderr = (_MarkedStream(stream, self._stream_changed) for stream in streams)
        self._control = Port("pyvmm.control", self._hear)
        self._agent = Port("pyvmm.agent", self._hear_agent)
        self._stdin = Port("pyvmm.stdin")
        self.ports = (
            self._control,
            self._agent,
            self._stdin,
            Port("pyvmm.stdout", self._stdout.write),
            Port("pyvmm.stderr", self._stderr.write),
        )
        #: Whether the template waits for a program; whether the agent of a fork has said that it is fresh.
        self.frozen = self.ready = False
        #: The exit code, and how many processes the guest's kernel killed for want of memory; None before.
        self.exit: tuple[int, int] | None = None
        #: Whether the program wrote more than it may.
        self.too_much_output = False
        #: Why the session cannot go on.
        self.failure = ""

    @property
    def finished(self) -> bool:
        """Whether nothing more is to come."""
        ended = self.exit is not None and self._stdout.ended and self._stderr.ended
        return ended or self.too_much_output or bool(self.failure)

    def start(self, program: Program, stdin: bytes) -> None:
        """Give a fork its program."""
        token = b"\0" + secrets.token_hex(16).encode()
        self._stdout.token = self._stderr.token = token
        self._program = program.message
        tar = _tar(program.files)
        _feed(self._control, b"%s %d\n" % (token[1:], len(tar)) + tar)
        _feed(self._stdin, stdin, self._stdin.close)

    def _hear(self, data: memoryview) -> int:
        """init says something."""
        self._line += bytes(data[: _LINE_MAX + 1])
        while b"\n" in self._line:
            line, _, self._line = self._line.partition(b"\n")
            self._obey(line)
        if len(self._line) > _LINE_MAX:
            self._fail("a line that does not end")
        return len(data)

    def _obey(self, line: bytes) -> None:
        ended = _EXIT.fullmatch(line)
        if line == b"frozen":
            self.frozen = True
        elif line == b"fresh" and self._program:
            program, self._program = self._program, b""
            _feed(self._agent, program)
            return
        elif ended and self.exit is None:
            self.exit = int(ended[1]), int(ended[2])
        elif line.startswith(b"failed "):
            self._fail(line[7:].decode("utf-8", "replace"))
        else:
            self._fail(f"not expected: {line!r}")
        self._changed()

    def _hear_agent(self, data: memoryview) -> int:
        """The agent says that its generators are fresh; whatever comes after is of no interest."""
        if not self.ready:
            self.ready = bytes(data) == b"ready"
            if not self.ready:
                self._fail("the agent said something else than that it is ready")
                self._changed()
        return len(data)

    def _stream_changed(self, too_much: bool) -> None:
        self.too_much_output |= too_much
        self._changed()

    def _fail(self, why: str) -> None:
        self.failure = self.failure or why


class _MarkedStream:
    """A stream that ends with a token."""

    def __init__(self, stream: OutputStream, changed: Callable[[bool], None]) -> None:
        self._stream, self._changed = stream, changed
        self._kept = b""
        self.token = b""
        self.ended = False

    def write(self, data: memoryview) -> int:
        """What the guest wrote; all of it is taken."""
        if self.ended or not self.token:
            return len(data)  # a template that warms up, or who came too late
        text = self._kept + bytes(data)
        end = text.find(self.token[1:])
        if end >= 0:
            self.ended, self._kept = True, b""
            text = text[:end]
        else:
            # The beginning of the token may be the end of this piece.
            keep = _overlap(text, self.token[1:])
            text, self._kept = text[: len(text) - keep], text[len(text) - keep :]
        try:
            self._stream.write(text)
        except OutputLimitReached:
            self.ended = True
            self._changed(True)
        else:
            if self.ended:
                self._changed(False)
        return len(data)


def _overlap(text: bytes, token: bytes) -> int:
    """The length of the longest end of ``text`` that ``token`` begins with."""
    for length in range(min(len(token) - 1, len(text)), 0, -1):
        if text.endswith(token[:length]):
            return length
    return 0


def _feed(port: Port, data: bytes, done: Callable[[], None] = lambda: None) -> None:
    """Send all of ``data``, as the guest takes it."""
    rest = memoryview(data)

    def send() -> None:
        nonlocal rest
        rest = rest[port.send(rest) :]
        if rest:
            port.on_room = send
        else:
            port.on_room = None
            done()

    send()


def _tar(files: dict[bytes, bytes]) -> bytes:
    """What init unpacks at the root: the files, which are the user's, and the input of ``guest/linux/refresh``."""
    now = time.time_ns()
    fresh = struct.pack("<qqii", now // 10**9, now % 10**9, 8 * _ENTROPY, _ENTROPY) + os.urandom(_ENTROPY)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        made: set[str] = set()
        for path, data in ((_FRESH, fresh), *((os.fsdecode(path)[1:], data) for path, data in files.items())):
            owner = 0 if path == _FRESH else _USER_ID
            parents = path.split("/")[2:-1]
            for depth in range(len(parents)):
                folder = "/".join(path.split("/")[: 3 + depth])
                if folder not in made and owner:
                    made.add(folder)
                    archive.addfile(_entry(folder, tarfile.DIRTYPE, 0o755, owner, 0, now))
            archive.addfile(_entry(path, tarfile.REGTYPE, 0o644, owner, len(data), now), io.BytesIO(data))
    return buffer.getvalue()


def _entry(path: str, kind: bytes, mode: int, owner: int, size: int, now_ns: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.uid, entry.gid, entry.size = kind, mode, owner, owner, size
    entry.mtime = now_ns // 10**9
    return entry
