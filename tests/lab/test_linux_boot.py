"""Debian's stock kernel on pyvmm's board. It needs hardware KVM, so the lab is where this runs."""

import io
from pathlib import Path
from typing import Protocol

import pytest

from pyvmm import Host
from pyvmm.board.power import How
from pyvmm.board.record import Sink
from pyvmm.debian import Kernel, fetch_kernel, fetch_package
from pyvmm.initramfs import Archive
from pyvmm.kernel_guest import KernelGuest
from pyvmm.snapshot import Snapshot
from pyvmm.template.cache import TemplateCache
from pyvmm.template.linux import COMMAND_LINE

SECONDS = 120
_MOUNT = "bb=/bin/busybox; $bb mkdir /proc /sys; $bb mount -t proc proc /proc; $bb mount -t sysfs sysfs /sys\n"


@pytest.fixture(scope="module")
def hardware(host: Host) -> Host:
    if host.is_software:
        pytest.skip("stock Linux needs hardware KVM (kvm_intel or kvm_amd): pyvmm lab test linux")
    return host


@pytest.fixture(scope="module")
def packages(hardware: Host) -> tuple[Kernel, Path]:
    cache = TemplateCache()
    _, folder = fetch_package("busybox-static", cache, print)
    return fetch_kernel(cache, print), folder / "bin/busybox"


class Boot(Protocol):
    """Makes a guest whose first process is a script for busybox."""

    def __call__(self, script: str, console: Sink | None = None) -> KernelGuest: ...


@pytest.fixture
def boot(hardware: Host, packages: tuple[Kernel, Path]) -> Boot:
    kernel, busybox = packages

    def make(script: str, console: Sink | None = None) -> KernelGuest:
        archive = Archive()
        archive.add_device("/dev/console", 5, 1)
        archive.add_file("/bin/busybox", busybox, 0o755)
        archive.add_file("/init", f"#!/bin/busybox sh\n{_MOUNT}{script}".encode(), 0o755)
        initramfs = io.BytesIO()
        archive.write(initramfs)
        return KernelGuest.boot(
            hardware,
            kernel.bzimage.read_bytes(),
            memory=192 << 20,
            command_line=COMMAND_LINE,
            initramfs=initramfs.getvalue(),
            console=console,
        )

    return make


def test_linux_finds_what_the_acpi_tables_name_and_powers_off(boot: Boot) -> None:
    script = """
$bb cat /proc/interrupts /sys/devices/system/clocksource/clocksource0/current_clocksource
$bb ls /sys/bus/acpi/devices
$bb poweroff -f
"""
    with boot(script) as guest:
        ending = guest.run(SECONDS)

        said = guest.record.last_words(8000)
        assert ending is not None and ending.how is How.POWER_OFF, said
        assert "kvm-clock" in said
        for device in ("LNRO0005:00", "PNP0501:00", "ACPI0013:00"):
            assert device in said
        assert "4-edge      ttyS0" in said


def test_a_reboot_is_a_reset(boot: Boot) -> None:
    with boot("$bb reboot -f") as guest:
        ending = guest.run(SECONDS)

        assert ending is not None and ending.how is How.RESET, guest.record.last_words()


def test_a_panic_ends_the_guest_and_the_console_tells_why(boot: Boot) -> None:
    with boot("exit 3") as guest:
        ending = guest.run(SECONDS)

        assert ending is not None and ending.how is How.RESET
        assert "Kernel panic - not syncing: Attempted to kill init!" in guest.record.last_words(4000)


def test_what_is_typed_reaches_a_shell(boot: Boot) -> None:
    # Typed before the driver is up it would be lost, as on any machine: the driver clears the FIFO.
    said = bytearray()

    def listen(data: bytes) -> None:
        said.extend(data)
        if said.endswith(b"well?"):
            guest.send(b"spam and eggs\n")

    with boot("echo well?; read -r line; echo heard $line; $bb poweroff -f", listen) as guest:
        ending = guest.run(SECONDS)

        assert ending is not None and ending.how is How.POWER_OFF
        assert "heard spam and eggs" in guest.record.last_words()


def test_forks_of_a_running_linux_go_on_by_themselves(boot: Boot, hardware: Host, tmp_path: Path) -> None:
    said = bytearray()

    def listen(data: bytes) -> None:
        said.extend(data)
        if said.endswith(b"well?"):
            guest.board.pause()

    script = "echo well?; read -r line; echo heard $line; $bb usleep 50000; echo slept; $bb poweroff -f"
    with boot(script, listen) as guest:
        assert guest.run(SECONDS) is None, guest.record.last_words()
        guest.save(tmp_path)
    with Snapshot.load(tmp_path, hardware.processor) as snapshot:
        for number in range(1, 4):
            with KernelGuest.fork(hardware, snapshot, twin=number) as twin:
                twin.send(b"fork %d\n" % number)
                ending = twin.run(SECONDS)

                words = twin.record.last_words()
                assert ending is not None and ending.how is How.POWER_OFF, words
                assert f"heard fork {number}" in words
                assert "slept" in words
