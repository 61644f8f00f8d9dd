"""``pyvmm boot``: the teaching guests as a user starts them, on a real KVM."""

import subprocess
import sys
from pathlib import Path

import pytest

from pyvmm import Host

PYVMM = Path(sys.executable).with_name("pyvmm")
#: ``mov al, 7; out 0xf4, al``.
EXIT_7 = bytes.fromhex("b007 e6f4")
#: ``mov dx, 0x3f8; mov al, 'x'; again: out dx, al; jmp again``.
FLOOD = bytes.fromhex("baf803 b078 ee ebfd")
#: ``again: jmp again``.
SPIN = bytes.fromhex("ebfe")


def boot(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [PYVMM, "boot", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "program.bin"


def test_the_list_names_every_teaching_guest() -> None:
    answer = boot("--list")

    names = [line.split()[0] for line in answer.stdout.decode().splitlines()[1:]]
    assert {"real-mode", "long-mode", "fork-demo", "virtio-echo"} <= set(names)
    assert answer.returncode == 0


def test_a_teaching_guest_goes_by_its_name(host: Host) -> None:
    answer = boot("long-mode")

    assert (answer.stdout, answer.stderr, answer.returncode) == (b"Hello from long mode!\n", b"", 0)


def test_the_exit_code_is_the_guests(host: Host, image: Path) -> None:
    image.write_bytes(EXIT_7)

    assert boot(image).returncode == 7


def test_stdin_is_typed_at_the_serial_port(host: Host) -> None:
    answer = boot("echo", "--timeout", "20", stdin=b"spam\nquit\n")

    assert b"SPAM" in answer.stdout.upper()
    assert answer.returncode == 0


def test_forks_are_told_apart(host: Host) -> None:
    answer = boot("fork-demo", "--forks", "2")

    assert answer.stdout.decode().splitlines() == [
        "before",
        "after: I am the original, of the same generation",
        "after: I am fork 1, of another generation",
        "after: I am fork 2, of another generation",
    ]


def test_a_snapshot_is_continued_by_a_later_command(host: Host, tmp_path: Path) -> None:
    first = boot("fork-demo", "--snapshot", tmp_path / "twin")
    second = boot("--from", tmp_path / "twin")

    assert first.stdout.startswith(b"before\n")
    assert second.stdout == b"after: I am fork 1, of another generation\n"


def test_a_guest_without_a_good_time_for_a_snapshot_is_an_error(host: Host, image: Path, tmp_path: Path) -> None:
    image.write_bytes(EXIT_7)

    answer = boot(image, "--snapshot", tmp_path / "twin")

    assert answer.returncode != 0
    assert b"ended before it said that it is time for a snapshot" in answer.stderr


def test_a_guest_out_of_time_is_stopped(host: Host, image: Path) -> None:
    image.write_bytes(SPIN)

    answer = boot(image, "--timeout", "0.2")

    assert answer.returncode == 124
    assert answer.stderr == b"pyvmm: the guest was stopped after 0.2 s\n"


def test_a_flood_of_output_ends_the_guest(host: Host, image: Path) -> None:
    image.write_bytes(FLOOD)

    answer = boot(image, "--output-limit", "0.03125", "--timeout", "50")

    assert (len(answer.stdout), answer.returncode) == (1 << 15, 1)
    assert b"it wrote more than 0.03125 MiB" in answer.stderr


def test_a_triple_fault_is_explained(host: Host) -> None:
    answer = boot("triple-fault")

    assert answer.returncode == 1
    assert b"triple fault at 0x" in answer.stderr


def test_the_number_of_exits_is_told_on_demand(host: Host) -> None:
    assert boot("long-mode", "--stats").stderr.startswith(b"pyvmm: ")


def test_a_file_that_cannot_be_booted_is_refused_with_what_it_is(host: Host, image: Path) -> None:
    image.write_bytes(b"\x1f\x8b" + bytes(100))

    answer = boot(image)

    assert answer.returncode == 125
    assert b"gzip file; unpack it first" in answer.stderr


def test_an_unknown_name_points_to_the_list(host: Host) -> None:
    answer = boot("no-such-guest")

    assert answer.returncode == 2
    assert b"pyvmm boot --list" in answer.stderr


def test_image_and_snapshot_exclude_each_other(tmp_path: Path) -> None:
    assert boot("long-mode", "--from", tmp_path).returncode == 2
    assert boot().returncode == 2


def test_what_needs_hardware_says_so_in_one_sentence(host: Host) -> None:
    if not host.is_software:
        pytest.skip("this host has hardware KVM")

    answer = boot("breakpoint")

    assert answer.returncode == 125
    assert b"needs hardware KVM (kvm_intel or kvm_amd), and this host has software KVM" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1
