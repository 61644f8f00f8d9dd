"""``pyvmm lab``: test, serve, list."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

from pyvmm.cli.output import Steps, print_table

_UPGRADE = click.option("--upgrade", is_flag=True, help="Ask Debian for a newer kernel first.")


@click.group()
def lab() -> None:
    """Run pyvmm on a real AMD KVM host, emulated: for machines without KVM, or with another kind.

    QEMU emulates an AMD machine with SVM and nested paging, on any x86-64 host and without KVM. It boots Debian's
    stock kernel, whose kvm_amd then serves the very pyvmm that you run here: some ten times slower, but hardware
    KVM to the last bit. Nothing is installed; what is fetched and built stays in the cache.

    It needs QEMU (apt install qemu-system-x86), apt to fetch the kernel, 4 GiB of memory, and at the first time
    a minute and a network.
    """


@lab.command(context_settings={"ignore_unknown_options": True})
@click.argument("names", nargs=-1, metavar="[PART|TEST|OPTION]...")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write pytest's report (JUnit) here.")
@click.option("--minutes", type=click.FloatRange(min=0.1), default=30.0, show_default=True, help="Stop it after these.")
@_UPGRADE
def test(names: tuple[str, ...], report: Path | None, minutes: float, upgrade: bool) -> None:
    """Run tests inside; all parts when none is named. The exit code is pytest's.

    A PART is one of those that `pyvmm lab list` shows. Anything else goes to pytest as it is: a file, a test's
    name, an option.

    \b
    Examples:
      pyvmm lab test
      pyvmm lab test process --report lab.xml
      pyvmm lab test tests/kvm/test_vcpu.py -x
      pyvmm lab test kvm -k interrupt
    """
    from pyvmm import lab as the_lab
    from pyvmm.lab.parts import select

    the_lab.find_qemu()
    _end_with_sigterm()
    arguments = select(names)
    with Steps("the lab's contents") as progress:
        contents = the_lab.prepare(progress, upgrade=upgrade)
    results = the_lab.test(contents, arguments, _console(), seconds=minutes * 60, colour=sys.stdout.isatty())
    if report is not None:
        report.write_bytes(results.report)
    sys.exit(results.status)


@lab.command("list")
def list_parts() -> None:
    """List the parts of the test suite that run inside."""
    from pyvmm.lab import PARTS

    print_table(["PART", "SHOWS"], [[name, part.shows] for name, part in PARTS.items()])


@lab.command(context_settings={"show_default": True})
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, help="Port.")
@_UPGRADE
def serve(host: str, port: int, upgrade: bool) -> None:
    """Answer HTTP requests inside, at a port of this host: slow, but complete, and without any KVM here.

    The python template is built first, which takes some minutes; the service is ready when it says so.

    \b
    Example:
      pyvmm lab serve --port 9000
      curl -d '{"code": "print(1 + 1)"}' -H 'Content-Type: application/json' http://127.0.0.1:9000/v1/exec
    """
    from pyvmm import lab as the_lab

    the_lab.find_qemu()
    _end_with_sigterm()
    with Steps("the lab's contents") as progress:
        contents = the_lab.prepare(progress, upgrade=upgrade)
    sys.exit(the_lab.serve(contents, _console(), host=host, port=port).status)


def _end_with_sigterm() -> None:
    """Let SIGTERM end this as SIGINT does, so that QEMU ends with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _console() -> Callable[[bytes], object]:
    """Shows what is printed inside as it comes."""

    def write(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    return write
