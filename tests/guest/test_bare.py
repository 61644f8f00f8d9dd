"""Each teaching guest does what its source says, on a real virtual machine, with exact output."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pyvmm import Host
from pyvmm.board.power import Ending, How
from pyvmm.board.teaching import find, teaching_guests
from pyvmm.devices.virtio.port import Port
from pyvmm.kernel_guest import KernelGuest
from pyvmm.snapshot import Snapshot

pytestmark = pytest.mark.kvm

_MEMORY = 64 << 20
_TIMEOUT = 30.0

Play = Callable[..., tuple[str, Ending | None]]


def image(name: str) -> bytes:
    guest = find(name)
    assert guest is not None
    return guest.image


@pytest.fixture
def play(host: Host) -> Play:
    """Run a guest by its name, with what is typed at COM1; what it wrote, and how it ended."""

    def run(name: str, typed: bytes = b"", timeout: float = _TIMEOUT, **options: int) -> tuple[str, Ending | None]:
        written = bytearray()
        with KernelGuest.boot(host, image(name), memory=_MEMORY, console=written.extend, **options) as guest:
            if typed:
                guest.send(typed)
            ending = guest.run(timeout)
        return written.decode(), ending

    return run


def exits(code: int) -> Ending:
    return Ending(How.EXIT, code)


# The modes of the processor


def test_hello_from_real_mode(play: Play) -> None:
    assert play("real-mode") == ("Hello from real mode!\n", exits(0))


def test_hello_from_long_mode(play: Play) -> None:
    assert play("long-mode") == ("Hello from long mode!\n", exits(0))


def test_a_program_climbs_through_all_modes(play: Play) -> None:
    assert play("modes") == ("16 bits: real mode\n32 bits: protected mode\n64 bits: long mode\n", exits(0))


def test_page_tables_are_walked_level_by_level(play: Play) -> None:
    output, ending = play("page-walk")
    assert output == (
        "our own page\n"
        "  address  0000008000005123\n"
        "  PML4[1]  0000000000102023 A\n"
        "  PDPT[0]  0000000000103023 A\n"
        "  PD  [0]  0000000000104023 A\n"
        "  PT  [5]  0000000000105063 A D\n"
        "  physical 0000000000105123\n"
        "where this program lies\n"
        "  address  0000000000100000\n"
        "  PML4[0]  000000000000a023 A\n"
        "  PDPT[0]  000000000000b023 A\n"
        "  PD  [0]  00000000000000e3 A D\n"
        "  physical 0000000000100000\n"
        "nothing\n"
        "  address  0000010000000000\n"
        "  PML4[2]  0000000000000000 not present\n"
    )
    assert ending == exits(0)


# Exceptions and interrupts


def test_exceptions_are_caught(play: Play) -> None:
    output, ending = play("exceptions")
    assert output == (
        "#DE divide error at start + 0x0043\n"
        "#UD invalid opcode at start + 0x0045\n"
        "#PF page fault, error code 0000, CR2 0000000140000000, at start + 0x0051\n"
        "still here\n"
    )
    assert ending == exits(0)


def test_a_serial_interrupt_wakes_the_guest(play: Play) -> None:
    typed = "Type a line: An interrupt brought: good morning\n"
    assert play("serial-interrupt", b"good morning\n") == (typed, exits(0))


def test_the_timer_ticks(play: Play) -> None:
    assert play("timer") == ("tick 1\ntick 2\ntick 3\ntick 4\ntick 5\n", exits(0))


def test_breakpoint_and_single_steps(play: Play, host: Host) -> None:
    output, ending = play("breakpoint")
    if host.is_software:
        assert output == ""
        assert ending is not None and ending.how is How.CRASHED
        assert "software KVM (kvm_pvm), which interprets ring 0" in ending.message
        return
    lines = output.splitlines()
    assert [line.rpartition("0x")[0] for line in lines] == [
        "#BP breakpoint before start + ",
        *["#DB single step to start + "] * 3,
        "",
    ]
    steps = [int(line[-4:], 16) for line in lines[1:-1]]
    assert steps == [steps[0], steps[0] + 1, steps[0] + 2]
    assert lines[-1] == "and on"
    assert ending == exits(0)


# Devices


def test_serial_echo(play: Play) -> None:
    assert play("echo", b"hello\nIt's 5 o'clock\r\nquit\n") == ("HELLO\nIT'S 5 O'CLOCK\n\nbye\n", exits(0))


def test_serial_echo_of_a_line_that_is_too_long(play: Play) -> None:
    assert play("echo", b"x" * 1000 + b"\nquit\n") == ("X" * 127 + "\nbye\n", exits(0))


def test_virtio_console_echo(host: Host) -> None:
    written = bytearray()
    answers = {b"ready\n": b"hello, virtio\n", b"hello, virtio\n": b"quit\n"}

    def console(data: bytes) -> None:
        written.extend(data)
        if data in answers:
            guest.hvc0.send(answers[data])

    with KernelGuest.boot(host, image("virtio-echo"), memory=_MEMORY, console=console) as guest:
        ending = guest.run(_TIMEOUT)
        assert guest.board.virtio[0].violations == 0
    assert (written, ending) == (b"ready\nhello, virtio\nbye\n", exits(0))


def test_virtio_console_echo_of_much(host: Host) -> None:
    written = bytearray()
    data = bytes(range(256)) * 1000

    def console(piece: bytes) -> None:
        written.extend(piece)
        if written == b"ready\n":
            sent.append(guest.hvc0.send(data[:60000]))
        elif len(written) == 60006:
            guest.hvc0.send(b"quit")

    sent: list[int] = []
    with KernelGuest.boot(host, image("virtio-echo"), memory=_MEMORY, console=console) as guest:
        assert guest.run(_TIMEOUT) == exits(0)
    assert sent == [60000]
    assert written == b"ready\n" + data[:60000] + b"bye\n"


def test_virtio_console_with_several_ports(host: Host) -> None:
    written, agent = bytearray(), bytearray()

    def take(data: memoryview) -> int:
        agent.extend(data)
        return len(data)

    ports = [Port("org.example.agent", take)]
    with KernelGuest.boot(
        host, image("virtio-ports"), memory=_MEMORY, console=written.extend, ports=ports
    ) as guest:  # fmt: skip
        assert guest.run(_TIMEOUT) == exits(0)
        assert guest.board.consoles[0].violations == guest.board.virtio[0].violations == 0
    assert written.decode() == (
        "port 0 is there\n"
        "port 1 is there\n"
        "port 0 is a console\n"
        "port 0 is open\n"
        "hello from port 0\n"
        "port 1 is called org.example.agent\n"
        "port 1 is open\n"
    )
    assert agent == b"hello from port 1\n"


# What the machine tells


def test_the_memory_map(play: Play) -> None:
    output, ending = play("memory-map")
    assert output == (
        "0000000000000000 - 000000000009fbff usable\n"
        "000000000009fc00 - 000000000009ffff reserved\n"
        "00000000000e0000 - 00000000000fffff reserved\n"
        "0000000000100000 - 0000000003ffffff usable\n"
        "usable: 65151 KiB\n"
    )
    assert ending == exits(0)


def test_acpi_tables_are_found_and_their_checksums_are_good(play: Play) -> None:
    output, ending = play("acpi")
    rows = re.findall(r"(\S+) at 000[ef][0-9a-f]{4}(?:, \d+ bytes)?, checksum good\n", output)
    assert rows == ["RSDP", "XSDT", "FACP", "APIC"]
    assert output.count("\n") == len(rows)
    assert ending == exits(0)


def test_the_processor_and_its_hypervisor(play: Play) -> None:
    output, ending = play("cpuid")
    fields = dict(re.findall(r"(\w+): +(.*)\n", output))
    assert list(fields) == ["vendor", "brand", "family", "hypervisor", "features"]
    assert fields["vendor"] in Path("/proc/cpuinfo").read_text()
    assert fields["hypervisor"] == "KVMKVMKVM"
    assert fields["features"].endswith(", with kvmclock")
    assert ending == exits(0)


def test_the_clock_goes(play: Play) -> None:
    output, ending = play("clock")
    match = re.fullmatch(r"nanoseconds: (\d+)\n20 ms later: (\d+)\nsince 1970:  (\d+) s\n", output)
    assert match
    first, second, _ = map(int, match.groups())
    assert second - first >= 20_000_000
    assert ending == exits(0)


# Forks


def test_twins_know_which_they_are(host: Host, tmp_path: Path) -> None:
    written = bytearray()
    with KernelGuest.boot(host, image("fork-demo"), memory=_MEMORY, console=written.extend) as guest:
        guest.pause_when_announced()
        assert guest.run(_TIMEOUT) is None
        assert written == b"before\n"
        guest.save(tmp_path)
        assert guest.run(_TIMEOUT) == exits(0)
    assert written == b"before\nafter: I am the original, of the same generation\n"
    with Snapshot.load(tmp_path, host.processor) as snapshot:
        for number in (1, 2, 200):
            said = bytearray()
            with KernelGuest.fork(host, snapshot, twin=number, console=said.extend) as twin:
                assert twin.run(_TIMEOUT) == exits(0)
            assert said.decode() == f"after: I am fork {number}, of another generation\n"


def test_ten_forks_from_the_middle_of_virtio_traffic_go_on(host: Host, tmp_path: Path) -> None:
    """The snapshot is taken while the device serves a notification: a buffer is on its way out, none is there for
    input, and input waits.
    """

    def pause(data: bytes) -> None:
        if data == b"first\n":
            guest.hvc0.send(b"second\n")
            guest.board.pause()

    with KernelGuest.boot(host, image("virtio-echo"), memory=_MEMORY, console=pause) as guest:
        guest.hvc0.send(b"first\n")
        assert guest.run(_TIMEOUT) is None
        guest.save(tmp_path)
    with Snapshot.load(tmp_path, host.processor) as snapshot:
        for number in range(10):
            assert echoes(host, snapshot, f"this is {number}\n".encode())


def echoes(host: Host, snapshot: Snapshot, text: bytes) -> bool:
    """Whether a fork echoes what waited for it, then ``text``, and ends."""
    written = bytearray()
    answers = {b"second\n": text, text: b"quit"}

    def console(data: bytes) -> None:
        written.extend(data)
        if data in answers:
            twin.hvc0.send(answers[data])

    with KernelGuest.fork(host, snapshot, console=console) as twin:
        ending = twin.run(_TIMEOUT)
        assert twin.board.virtio[0].violations == 0
    return (written, ending) == (b"second\n" + text + b"bye\n", exits(0))


# Endings


def test_power_off(play: Play) -> None:
    assert play("power-off") == ("good night\n", Ending(How.POWER_OFF, 0))


def test_reset(play: Play) -> None:
    assert play("reset") == ("resetting\n", Ending(How.RESET, 0))


def test_a_triple_fault_is_an_error_that_says_so(play: Play) -> None:
    output, ending = play("triple-fault")
    assert output == "three, two, one\n"
    assert ending is not None and (ending.how, ending.code) == (How.CRASHED, 1)
    assert "triple fault" in ending.message


def test_a_flood_is_bounded(play: Play) -> None:
    output, ending = play("flood", output_limit=1 << 13)
    line = "All work and no play makes Jack a dull boy.\n"
    assert output == (line * (1 + (1 << 13) // len(line)))[: 1 << 13]
    assert ending is not None and ending.how is How.OUTPUT_LIMIT


def test_spinning_ends_with_the_time(play: Play) -> None:
    output, ending = play("spin", timeout=0.2)
    assert output == ""
    assert ending is not None and ending.how is How.TIMEOUT


# All of them

_TESTED = set(re.findall(r'(?:play|image)\("([a-z-]+)"', Path(__file__).read_text()))


def test_every_teaching_guest_has_a_test_here() -> None:
    assert {guest.name for guest in teaching_guests()} == _TESTED
