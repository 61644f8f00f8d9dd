"""``pyvmm boot``: a guest with a kernel of its own."""

import os
import sys
import tempfile
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyvmm.cli.output import print_table
from pyvmm.cli.run import TIMED_OUT, YEAR, Outlet
from pyvmm.errors import HostError

if TYPE_CHECKING:
    from pyvmm.board.power import Ending
    from pyvmm.host import Host
    from pyvmm.kernel_guest import KernelGuest

_CHUNK = 4096


@click.command()
@click.argument("image", required=False)
@click.option("--list", "show_list", is_flag=True, help="List the teaching guests that come with pyvmm.")
@click.option(
    "-m",
    "--memory",
    type=click.IntRange(1, 3072),
    default=128,
    show_default=True,
    metavar="MIB",
    help="Memory of the guest.",
)
@click.option("-a", "--append", "command_line", default="", metavar="TEXT", help="The kernel's command line.")
@click.option(
    "-i", "--initrd", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="An initramfs for Linux."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, YEAR, min_open=True),
    metavar="SECONDS",
    help="End the guest after this time.  [default: never]",
)
@click.option(
    "--output-limit",
    type=click.FloatRange(0, min_open=True),
    default=64,
    show_default=True,
    metavar="MIB",
    help="End the guest when it has written more than this.",
)
@click.option(
    "--snapshot",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="When the guest says that it is time, write a snapshot there and go on.",
)
@click.option(
    "--forks",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="When the guest says that it is time, fork it N times; the twins run when it has ended.",
)
@click.option(
    "--from",
    "snapshot_from",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Fork a snapshot instead of booting an image.",
)
@click.option("--stats", is_flag=True, help="Print on stderr how many exits the guest took.")
def boot(
    image: str | None,
    show_list: bool,
    snapshot_from: Path | None,
    **options: Any,
) -> None:  # fmt: skip
    """Boot IMAGE: a Linux kernel (bzImage or vmlinux), another ELF64 program, a flat real-mode program, or one of the
    teaching guests by its name.

    The guest's serial port and virtio console are this terminal. Its exit code is this command's, 0 if it powered off,
    reset or halted, 1 if its processor could not go on, 124 if it ran out of time.

    \b
    Examples:
      pyvmm boot --list
      pyvmm boot long-mode
      pyvmm boot fork-demo --forks 3
      pyvmm boot vmlinuz --initrd initrd.img -a 'console=ttyS0' -m 512
      pyvmm boot ./mine.elf --timeout 5 --stats
      pyvmm boot fork-demo --snapshot /tmp/twin && pyvmm boot --from /tmp/twin
    """
    if show_list:
        _list()
        return
    if (image is None) == (snapshot_from is None):
        raise click.UsageError("give an image or the name of a teaching guest, or a snapshot with --from")
    from pyvmm.host import Host

    with Host() as host:
        sys.exit(_boot(host, image, snapshot_from, **options))


def _list() -> None:
    from pyvmm.board.teaching import teaching_guests

    rows = [[guest.name, guest.title, guest.needs or "any KVM"] for guest in teaching_guests()]
    print_table(["NAME", "WHAT IT SHOWS", "NEEDS"], rows)


def _boot(
    host: "Host",
    image: str | None,
    snapshot_from: Path | None,
    *,
    memory: int,
    command_line: str,
    initrd: Path | None,
    timeout: float | None,
    output_limit: float,
    snapshot: Path | None,
    forks: int | None,
    stats: bool,
) -> int:
    from pyvmm.kernel_guest import KernelGuest
    from pyvmm.snapshot import Snapshot

    console = Outlet(sys.stdout.buffer)
    limits: dict[str, Any] = {"console": console, "output_limit": int(output_limit * (1 << 20))}
    if snapshot_from is not None:
        with Snapshot.load(snapshot_from, host.processor) as saved:
            guest = KernelGuest.fork(host, saved, **limits)
    else:
        assert image is not None
        data = _read_image(host, image)
        guest = KernelGuest.boot(
            host,
            data,
            memory=memory << 20,
            command_line=command_line,
            initramfs=initrd.read_bytes() if initrd else b"",
            **limits,
        )
    with guest, tempfile.TemporaryDirectory(prefix="pyvmm-") as temporary:
        if snapshot is not None or forks is not None:
            guest.pause_when_announced()
        console.sandbox = guest
        folder = snapshot if snapshot is not None else Path(temporary)
        with _typing(guest):
            begun = time.monotonic()
            ending = guest.run(timeout)
            if is_saved := ending is None:
                left = None if timeout is None else timeout - (time.monotonic() - begun)
                _save(guest, folder)
                ending = guest.run(left)
        code = _report(guest, ending, timeout, stats)
        if (snapshot is not None or forks is not None) and not is_saved:
            raise click.ClickException("the guest ended before it said that it is time for a snapshot")
        if forks is not None:
            with Snapshot.load(folder, host.processor) as saved:
                for number in range(1, forks + 1):
                    with KernelGuest.fork(host, saved, twin=number, **limits) as twin:
                        console.sandbox = twin
                        code = max(code, _report(twin, twin.run(timeout), timeout, stats))
    return code


def _save(guest: "KernelGuest", folder: Path) -> None:
    """Write the snapshot; the guest may say again that it is time, and nothing comes of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        guest.save(folder)
    except HostError:  # KvmError is an OSError too
        raise
    except OSError as error:
        raise click.ClickException(f"the snapshot cannot be written to {folder}: {error.strerror}") from error
    guest.ignore_announcements()


def _read_image(host: "Host", image: str) -> bytes:
    from pyvmm.board.teaching import find
    from pyvmm.boot.loader import is_linux

    teaching = find(image) if "/" not in image else None
    if teaching is not None:
        if teaching.needs:
            host.require_hardware(f"the teaching guest {image}")
        return teaching.image
    try:
        data = Path(image).read_bytes()
    except OSError as error:
        raise click.UsageError(
            f"{image}: {error.strerror}; it is no teaching guest either (pyvmm boot --list)"
        ) from error
    if is_linux(data):
        host.require_hardware("booting Linux")
    return data


def _report(guest: "KernelGuest", ending: "Ending | None", timeout: float | None, stats: bool) -> int:
    """Say how the guest ended, if it is not plain; the exit code."""
    from pyvmm.board.power import How

    if stats:
        click.echo(f"pyvmm: {guest.board.exits} exits", err=True)
    if ending is None:
        return 0
    if ending.how is How.TIMEOUT:
        click.echo(f"pyvmm: the guest was stopped after {timeout:g} s", err=True)
        return TIMED_OUT
    if ending.message:
        click.echo(f"pyvmm: {ending.message}", err=True)
    return ending.code


@contextmanager
def _typing(guest: "KernelGuest") -> Iterator[None]:
    """What is typed, or comes on stdin, goes to the guest's serial port."""
    if sys.stdin is None:  # closed, as `<&-` does: nobody types
        yield
        return
    terminal = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = termios.tcgetattr(terminal) if terminal is not None else None
    if terminal is not None:
        # Byte for byte and without echo, which is the guest's business; Ctrl-C still ends pyvmm.
        tty.setcbreak(terminal)
    threading.Thread(target=_type, args=(guest,), name="pyvmm-stdin", daemon=True).start()
    try:
        yield
    finally:
        if terminal is not None and before is not None:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _type(guest: "KernelGuest") -> None:
    while data := os.read(0, _CHUNK):
        taken = threading.Event()
        guest.send(data, taken.set)
        taken.wait()
