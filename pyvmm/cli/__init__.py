"""The command line: parse, call the Python API, print. One file for each group of commands.

Commands are imported when they are run, and import what they need inside: ``pyvmm --help``
waits for none of it.
"""

import importlib
import sys
from typing import Any

import click

from pyvmm.cli.config import check_settings, find_config
from pyvmm.errors import PyvmmError

OWN_FAILURE = 125
"""The exit code when pyvmm itself fails, as ``timeout`` and ``docker run`` have it: programs rarely use it."""

_COMMANDS = {
    "run": ("run", "Run a program in a freshly forked VM."),
    "strace": ("run", "Run a program and show its system calls on stderr."),
    "boot": ("boot", "Boot a guest with a kernel of its own: Linux, or a bare-metal program."),
    "serve": ("serve", "Answer HTTP requests, each in a VM of its own."),
    "template": ("template", "Build, list, inspect and remove templates."),
    "lab": ("lab", "Run tests or the service on an emulated AMD host with hardware KVM."),
    "doctor": ("doctor", "Say what this host offers, and what to do about what is missing."),
}


class Failure(click.ClickException):
    """An error of pyvmm's own, shown as one line."""

    exit_code = OWN_FAILURE

    def show(self, file: Any = None) -> None:
        click.echo(f"pyvmm: {self.format_message()}", err=True)


class LazyGroup(click.Group):
    """Finds commands by name in ``_COMMANDS`` and imports only the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"pyvmm.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PyvmmError as error:
            raise Failure(" ".join(str(error).splitlines()) or type(error).__name__) from error
        except KeyboardInterrupt:
            sys.exit(130)


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "auto_envvar_prefix": "PYVMM"}


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@click.version_option(package_name="pyvmm", message="%(prog)s %(version)s")
@click.option(
    "--config",
    metavar="FILE",
    help="Settings file; otherwise ./pyvmm.toml, then pyvmm/pyvmm.toml in ~/.config.",
)
@click.pass_context
def cli(ctx: click.Context, config: str | None) -> None:
    """Fork virtual machines from Python.

    \b
    Examples:
      pyvmm doctor                          can this host do it?
      pyvmm template build python           build the template (once)
      pyvmm run -c 'print(1 + 1)'           run code in a fork of it
      pyvmm run --time script.py a b        ... a script with arguments
      pyvmm run -l bash -c 'ls | wc -l'     ... in another language (template build bash)
      pyvmm serve                           ... over HTTP

    Every option can also be set in the environment (PYVMM_SERVE_PORT=9000) and in the settings file ([serve] port =
    9000); the command line wins over the environment, and the environment over the file.

    Exit code 125 says that pyvmm itself failed, 124 that the program ran out of time.
    """
    ctx.default_map = find_config(config)
    if ctx.invoked_subcommand and ctx.default_map:
        check_settings(ctx, ctx.default_map, ctx.invoked_subcommand)


def main() -> None:
    """Entry point of the console script."""
    cli(prog_name="pyvmm")
