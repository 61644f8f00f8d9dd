"""``pyvmm run`` and ``pyvmm strace``: one program, one fork."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import click

if TYPE_CHECKING:
    from pyvmm.linux.strace import Tracer
    from pyvmm.template.recipe import GuestKind

TIMED_OUT = 124
"""The exit code of ``timeout(1)``."""

READER_LEFT = 141
"""The exit code of a program whose reader left, such as ``head``: 128 + SIGPIPE."""

YEAR = 365 * 86400.0
"""Seconds; the longest time limit."""

_ANYTHING = {"allow_interspersed_args": False, "ignore_unknown_options": False}


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """What both commands take."""
    for option in (
        click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[SCRIPT | -] [ARGS]..."),
        click.option("--time", "show_time", is_flag=True, help="Print the times of fork and execution on stderr."),
        click.option("--stdin", "pass_stdin", is_flag=True, help="Hand stdin to the program; else it reads nothing."),
        click.option("--timeout", type=click.FloatRange(0, YEAR, min_open=True), default=30.0, show_default=True,
                     metavar="SECONDS", help="End the program after this time."),
        click.option("--output-limit", type=click.IntRange(1), default=64, show_default=True, metavar="MIB",
                     help="End the program when it has written more than this to stdout or stderr."),
        click.option("-l", "--language", help="What the program is written in.  [default: by the script's suffix, "
                     "else python]"),
        click.option("--guest", type=click.Choice(["process", "linux"]), default="process", show_default=True,
                     help="What it runs on: pyvmm's own Linux personality, or stock Linux in the VM."),
        click.option("--template", help="The template to fork.  [default: the language's own]"),
        click.option("-c", "code", metavar="CODE", help="The program itself, instead of a script."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command(context_settings=_ANYTHING)
@_options
@click.option("--trace", is_flag=True, help="Show system calls on stderr, as strace does.")
def run(trace: bool, **options: Any) -> None:
    """Run a program in a freshly forked VM.

    The program is a script, the text after -c, or what is read from stdin (-). What it writes comes out as it is,
    stdout and stderr apart, and its exit code is this command's: 124 says that it ran out of time, 128+n that it died
    by signal n, 125 that pyvmm itself failed.

    \b
    Examples:
      pyvmm run -c 'print(1 + 1)'
      pyvmm run --time script.py one two
      pyvmm run -l node -c 'console.log(1 + 1)'
      echo 'import numpy; print(numpy.arange(5))' | pyvmm run -
      pyvmm run --stdin -c 'print(len(input()))' < data.txt
      pyvmm run --timeout 2 -c 'while True: pass'; echo $?
    """
    sys.exit(_run(trace=trace, **options))


@click.command(context_settings=_ANYTHING)
@_options
def strace(**options: Any) -> None:
    """Run a program and show its system calls on stderr (the same as run --trace).

    \b
    Examples:
      pyvmm strace -c 'open("/etc/hosts").read()'
      pyvmm strace script.py 2> calls.txt
    """
    sys.exit(_run(trace=True, **options))


def _run(
    *,
    trace: bool,
    language: str | None,
    template: str | None,
    guest: "GuestKind",
    timeout: float,
    output_limit: int,
    show_time: bool,
    **program: Any,
) -> int:
    """Runs the program, shows what it writes as it comes, and returns the exit code for this process."""
    if language and template:
        raise click.UsageError("--language and --template exclude each other: a template has one language")
    source, name, argv, stdin = _program(**program)
    from pyvmm import Template
    from pyvmm.template.recipe import LINUX_SUFFIX, language_of, template_name

    chosen = template_name(template or language or language_of(name or "") or "python", guest)
    if trace and chosen.endswith(LINUX_SUFFIX):
        raise click.UsageError("system calls that Linux in the guest serves cannot be shown here: run strace in it")
    out, err = Outlet(sys.stdout.buffer), Outlet(sys.stderr.buffer)
    with Template.load(chosen) as loaded:
        sandbox = loaded.fork(output_limit=output_limit << 20, sinks=(out, err), tracer=_tracer() if trace else None)
        out.sandbox = err.sandbox = sandbox
        with sandbox:
            result = sandbox.run(source, argv=argv, name=name, stdin=stdin, timeout=timeout)
    # The end of stderr may be what pyvmm has to say of how the program died.
    out(result.stdout[out.count :])
    err(result.stderr[err.count :])
    if out.gone or err.gone:
        return READER_LEFT
    for stream, cut in (("stdout", result.stdout_truncated), ("stderr", result.stderr_truncated)):
        if cut:
            click.echo(f"pyvmm: the program was stopped: it wrote more than {output_limit} MiB to {stream}", err=True)
    if show_time:
        times = (1000 * each for each in (result.fork_seconds, result.exec_seconds, result.total_seconds))
        click.echo("pyvmm: fork {:.2f} ms, exec {:.2f} ms, total {:.2f} ms".format(*times), err=True)
    if result.status == "timeout":
        click.echo(f"pyvmm: the program was stopped after {timeout:g} s", err=True)
        return TIMED_OUT
    return result.exit_code & 0xFF


class Stoppable(Protocol):
    """What writes to an outlet."""

    def stop(self) -> None:
        """End it, from any thread."""


class Outlet:
    """Passes what the program writes to a stream of this process, byte for byte and at once.

    Stops the sandbox when the stream's reader has left, and never raises: it is called in the middle of a system call.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.sandbox: Stoppable | None = None
        self.count = 0
        self.gone = False
        self._stream = stream

    def __call__(self, data: bytes) -> None:
        self.count += len(data)
        if self.gone:
            return
        try:
            self._stream.write(data)
            self._stream.flush()
        except OSError:
            self.gone = True
            _silence(self._stream)
            if self.sandbox is not None:
                self.sandbox.stop()


def _silence(stream: BinaryIO) -> None:
    """Puts ``/dev/null`` behind a stream, so that Python does not complain of it again when it flushes at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _program(
    code: str | None, arguments: tuple[str, ...], pass_stdin: bool
) -> tuple[str | bytes, str | None, list[str], bytes]:
    """The source, a name for its file if it has one, its arguments and its stdin."""
    stdin = b""
    if pass_stdin:
        if code is None and arguments[:1] == ("-",):
            raise click.UsageError("--stdin and - exclude each other: stdin is the program")
        stdin = sys.stdin.buffer.read()
    if code is not None:
        return code, None, list(arguments), stdin
    if not arguments:
        raise click.UsageError("nothing to run: give a script, - for stdin, or -c CODE")
    script, *rest = arguments
    if script == "-":
        return sys.stdin.buffer.read(), None, rest, stdin
    try:
        return Path(script).read_bytes(), Path(script).name, rest, stdin
    except OSError as error:
        raise click.UsageError(f"cannot read {script}: {error.strerror}") from error


def _tracer() -> "Tracer":
    from pyvmm.linux.strace import Tracer

    lines = Outlet(sys.stderr.buffer)
    return Tracer(lambda line: lines(line.encode(errors="backslashreplace") + b"\n"))
