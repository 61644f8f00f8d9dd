"""The host's end of a Linux template, with a modelled driver and init at the other end."""

import io
import struct
import tarfile
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pyvmm.agent_session import AgentSession
from pyvmm.linux.output import OutputStream
from pyvmm.program import make_program
from tests.devices.virtio_driver import Board, Driver

CONTROL, AGENT, STDIN, STDOUT, STDERR = range(5)


class Init:
    """What init does on its ports."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.streams = OutputStream(limit), OutputStream(limit)
        self.changes = 0
        self.session = AgentSession(self.streams, self._changed)
        self.driver = Driver(Board(list(self.session.ports))).probe()
        for port in range(5):
            self.driver.open(port)

    def _changed(self) -> None:
        self.changes += 1

    def say(self, line: bytes) -> None:
        self.driver.write(CONTROL, line)

    def start(self, code: str = "print(1)", stdin: bytes = b"", files: dict[str, bytes] | None = None) -> bytes:
        """The fork is given its program; the token."""
        self.session.start(make_program(code, "main.py", ["one"], files), stdin)
        self.driver.interrupt()
        head, _, self.tar = bytes(self.driver.received[CONTROL]).partition(b"\n")
        token, size = head.split()
        assert int(size) == len(self.tar)
        return token

    def be_fresh(self) -> bytes:
        """What the agent then reads."""
        self.say(b"fresh\n")
        self.driver.interrupt()
        return bytes(self.driver.received[AGENT])

    def run_to_end(self, token: bytes, code: bytes = b"0 0") -> None:
        self.driver.write(STDOUT, token)
        self.driver.write(STDERR, token)
        self.say(b"exit " + code + b"\n")


def test_ports_have_the_names_that_init_looks_for() -> None:
    init = Init()

    names = ["pyvmm.control", "pyvmm.agent", "pyvmm.stdin", "pyvmm.stdout", "pyvmm.stderr"]
    assert [init.driver.names[port] for port in range(5)] == names


def test_a_template_is_frozen_when_init_says_so() -> None:
    init = Init()

    init.say(b"froz")
    assert not init.session.frozen
    init.say(b"en\n")

    assert init.session.frozen
    assert init.changes == 1


def test_files_come_as_tar_with_their_owner_and_the_folders_on_their_way() -> None:
    init = Init()

    init.start("print(2)", files={"a/b/c.txt": b"text", "a/d": b""})

    with tarfile.open(fileobj=io.BytesIO(init.tar)) as archive:
        members = {member.name: member for member in archive}
        assert list(members) == [
            "run/pyvmm/fresh",
            "home/user/a",
            "home/user/a/b",
            "home/user/a/b/c.txt",
            "home/user/a/d",
            "home/user/main.py",
        ]
        assert members["home/user/a"].isdir()
        assert {member.uid for name, member in members.items() if name.startswith("home")} == {1000}
        assert archive.extractfile("home/user/main.py").read() == b"print(2)"  # type: ignore[union-attr]
        assert archive.extractfile("home/user/a/b/c.txt").read() == b"text"  # type: ignore[union-attr]


def test_two_forks_are_given_the_time_and_different_entropy() -> None:
    given_to = []
    for _ in range(2):
        init = Init()
        init.start()
        with tarfile.open(fileobj=io.BytesIO(init.tar)) as archive:
            given_to.append(archive.extractfile("run/pyvmm/fresh").read())  # type: ignore[union-attr]

    for fresh in given_to:
        seconds, nanoseconds, bits, size = struct.unpack_from("<qqii", fresh)
        assert abs(seconds + nanoseconds / 1e9 - time.time()) < 60
        assert (bits, size, len(fresh)) == (512, 64, 88)
    assert given_to[0][24:] != given_to[1][24:]


def test_the_agent_gets_the_program_only_when_the_fork_is_fresh() -> None:
    init = Init()
    init.start("print(2)")

    assert init.driver.received[AGENT] == b""
    assert init.be_fresh() == b"23 8\n/home/user/main.py\0one\0print(2)"


def test_output_ends_at_the_token_and_what_comes_after_is_dropped() -> None:
    init = Init()
    token = init.start()
    init.driver.write(AGENT, b"ready")

    init.driver.write(STDOUT, b"hello\n" + token + b"from a process that stayed")
    init.driver.write(STDOUT, b"more of it")
    init.run_to_end(token, b"3 0")

    assert init.session.finished
    assert init.session.ready
    assert init.session.exit == (3, 0)
    assert [stream.value() for stream in init.streams] == [b"hello\n", b""]


def test_a_session_is_not_finished_before_both_streams_are() -> None:
    init = Init()
    token = init.start()

    init.say(b"exit 0 0\n")
    assert not init.session.finished
    init.driver.write(STDOUT, token)
    assert not init.session.finished
    init.driver.write(STDERR, token)

    assert init.session.finished


@given(
    st.lists(st.one_of(st.binary(max_size=8), st.integers(1, 31)), max_size=8),
    st.lists(st.integers(0, 300), max_size=6),
)
def test_output_is_exact_however_it_is_cut_into_pieces(parts: list[bytes | int], cuts: list[int]) -> None:
    init = Init()
    token = init.start()
    # Text that nearly is the token, over and over: a number stands for so many of its bytes.
    text = b"".join(part if isinstance(part, bytes) else token[:part] for part in parts)
    stream = text + token
    assume(stream.find(token) == len(text))  # its last byte may be its first one too
    ends = [*sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in zip([0, *ends], ends, strict=False):
        if start < end:
            init.driver.write(STDOUT, stream[start:end])

    assert init.streams[0].value() == text


def test_a_program_that_writes_too_much_ends_the_session() -> None:
    init = Init(limit=1000)
    init.start()

    init.driver.write(STDOUT, b"x" * 4000)

    assert init.session.too_much_output
    assert init.session.finished
    assert init.streams[0].value() == b"x" * 1000


def test_input_that_is_larger_than_the_port_keeps_arrives_whole_and_then_ends() -> None:
    init = Init()
    data = bytes(range(256)) * 2000

    init.start(stdin=data)
    for _ in range(100):
        init.driver.interrupt()

    assert init.driver.received[STDIN] == data
    assert init.driver.host_open[STDIN] is False


def test_a_program_without_input_reads_the_end_at_once() -> None:
    init = Init()

    init.start()

    assert init.driver.host_open[STDIN] is False


@pytest.mark.parametrize(
    "line",
    [b"", b"exit", b"exit 0", b"exit -1 0", b"exit 1000 0", b"exit 0 0 0", b"exit 0 9999999999", b"fresh", b"\xff\0"],
)
def test_a_line_that_makes_no_sense_ends_the_session(line: bytes) -> None:
    init = Init()

    init.say(line + b"\n")

    assert init.session.failure
    assert init.session.finished
    assert init.changes == 1


def test_a_line_without_an_end_is_not_kept() -> None:
    init = Init()

    for _ in range(20):
        init.say(b"x" * 4096)

    assert init.session.failure == "a line that does not end"
    assert len(init.session._line) < 8192


def test_what_init_says_of_its_own_failure_is_told() -> None:
    init = Init()

    init.say(b"failed cannot load virtio_console\n")

    assert init.session.failure == "cannot load virtio_console"


def test_an_agent_that_says_something_else_is_not_ready() -> None:
    init = Init()
    init.start()

    init.driver.write(AGENT, b"no")

    assert not init.session.ready
    assert init.session.failure


@given(st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=300)), max_size=12))
def test_whatever_the_guest_writes_raises_nothing_and_is_bounded(writes: list[tuple[int, bytes]]) -> None:
    init = Init(limit=1000)
    init.start()

    for port, data in writes:
        if data:
            init.driver.write(port, data)

    assert len(init.session._line) <= 4096
    assert all(len(stream.value()) <= 1000 for stream in init.streams)
