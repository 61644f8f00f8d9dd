"""The settings file: TOML whose tables are commands and whose keys are their options."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click


def find_config(given: str | None) -> dict[str, Any]:
    """The settings in the file that was given, or in the first that is there; raises :class:`click.UsageError`.

    Dashes and underscores in keys are the same.
    """
    if given is not None:
        return _read(Path(given))
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~/.config"))
    for path in (Path("pyvmm.toml"), folder / "pyvmm" / "pyvmm.toml"):
        if path.is_file():
            return _read(path)
    return {}


def check_settings(ctx: click.Context, settings: Mapping[str, Any], invoked: str) -> None:
    """Raises :class:`click.UsageError` for tables that are no command, and options that the invoked command has not."""
    group = ctx.command
    if not isinstance(group, click.Group):
        return
    for table, values in settings.items():
        if table not in group.list_commands(ctx) or not isinstance(values, dict):
            raise click.UsageError(f"settings file: {table!r} is not the table of a command")
    if command := group.get_command(ctx, invoked):
        _check_options(ctx, command, settings.get(invoked, {}), invoked)


def _check_options(ctx: click.Context, command: click.Command, values: Mapping[str, Any], where: str) -> None:
    options = {parameter.name for parameter in command.params if isinstance(parameter, click.Option)}
    for name, value in values.items():
        if isinstance(command, click.Group) and isinstance(value, dict):
            below = command.get_command(ctx, name)
            if below is None:
                raise click.UsageError(f"settings file: there is no command {where} {name!s}")
            _check_options(ctx, below, value, f"{where}.{name}")
        elif name not in options:
            raise click.UsageError(f"settings file: [{where}] has no option {name!r}")


def _read(path: Path) -> dict[str, Any]:
    try:
        return _underscored(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise click.UsageError(f"cannot read the settings file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"the settings file {path} is not TOML: {error}") from error


def _underscored(table: dict[str, Any]) -> dict[str, Any]:
    return {
        name.replace("-", "_"): _underscored(value) if isinstance(value, dict) else value
        for name, value in table.items()
    }
