"""``pyvmm template``: build, list, inspect, remove."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyvmm.cli.output import Steps, format_size, print_table

if TYPE_CHECKING:
    from pyvmm.template.cache import TemplateEntry
    from pyvmm.template.recipe import GuestKind


@click.group()
def template() -> None:
    """Build, list, inspect and remove templates.

    A template is made from a recipe: a small TOML file that names the packages, the modules to warm up and the
    memory. Those that come with pyvmm go by their name; your own by the path of their file.
    """


@template.command()
@click.argument("recipe", default="python")
@click.option(
    "--guest",
    type=click.Choice(["process", "linux"]),
    help="What programs run on: pyvmm's own Linux personality, or stock Linux.  [default: the recipe's]",
)
@click.option("--force", is_flag=True, help="Build even when it is there.")
@click.option("--upgrade", is_flag=True, help="Ask the package index for newer versions; implies --force.")
def build(recipe: str, guest: "GuestKind | None", force: bool, upgrade: bool) -> None:
    """Build the template of RECIPE (python by default), unless it is there.

    With stock Linux as its guest it is called RECIPE-linux, and needs hardware KVM (kvm_intel or kvm_amd).

    \b
    Examples:
      pyvmm template build
      pyvmm template build ./mine.toml
      pyvmm template build python --upgrade
      pyvmm template build python --guest linux     # then: pyvmm run --guest linux -c 'print(1 + 1)'
    """
    from pyvmm import Template

    with Steps(f"template {recipe}") as progress:
        Template.build(recipe, progress=progress, guest=guest, replace=force, upgrade=upgrade).close()


@template.command("list")
@click.option("--json", "as_json", is_flag=True, help="A JSON array instead of a table.")
def list_templates(as_json: bool) -> None:
    """List the templates on this machine, the newest of a name first."""
    from pyvmm.template.cache import TemplateCache

    entries = TemplateCache().entries()
    if as_json:
        click.echo(json.dumps([_plain(entry) for entry in entries], indent=2))
    elif entries:
        rows = [[entry.name, entry.key[:12], format_size(entry.disk_bytes), _when(entry.built_at)] for entry in entries]
        print_table(["NAME", "KEY", "SIZE", "BUILT"], rows)
    else:
        click.echo("no templates yet: pyvmm template build python", err=True)


@template.command()
@click.argument("name", default="python")
@click.option("--files", is_flag=True, help="List the files of the image: mode, size, path.")
@click.option("--json", "as_json", is_flag=True, help="All that the manifest says, as JSON.")
def inspect(name: str, files: bool, as_json: bool) -> None:
    """Show what the newest template of NAME is made of.

    \b
    Examples:
      pyvmm template inspect
      pyvmm template inspect python --files | sort -rnk2 | head
    """
    from pyvmm.template.cache import TemplateCache

    entry = TemplateCache().latest(name)
    if files:
        _list_files(entry.path)
        return
    facts = {**_plain(entry), "manifest": _manifest(entry.path)}
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        facts["disk_bytes"] = format_size(entry.disk_bytes)
        _print_facts(facts, "")


@template.command()
@click.argument("name")
@click.option("--key", help="Only the template with this key, or whose key begins so.")
@click.option("--old", is_flag=True, help="All but the newest of that name.")
def rm(name: str, key: str | None, old: bool) -> None:
    """Remove the templates of NAME.

    What runs on them keeps running: their files are gone when the last user closes them.
    """
    from pyvmm.template.cache import TemplateCache

    cache = TemplateCache()
    cache.latest(name)
    entries = cache.entries(name)[1 if old else 0 :]
    doomed = [entry for entry in entries if entry.key.startswith(key or "")]
    count = sum(cache.remove(name, entry.key) for entry in doomed)
    click.echo(f"removed {count} of {name}, {format_size(sum(entry.disk_bytes for entry in doomed))}")


def _plain(entry: "TemplateEntry") -> dict[str, Any]:
    return {
        "name": entry.name,
        "key": entry.key,
        "path": str(entry.path),
        "built_at": _when(entry.built_at),
        "disk_bytes": entry.disk_bytes,
    }


def _manifest(folder: Path) -> Any:
    try:
        return json.loads((folder / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return None


def _print_facts(facts: dict[str, Any], indent: str) -> None:
    for name, value in facts.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{name}:")
            _print_facts(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            click.echo(f"{indent}{name}:")
            for item in value:
                click.echo(f"{indent}  {' '.join(str(each) for each in item.values())}")
        elif isinstance(value, list):
            click.echo(f"{indent}{name}: {', '.join(map(str, value))}")
        else:
            click.echo(f"{indent}{name}: {value}")


def _list_files(folder: Path) -> None:
    import stat

    from pyvmm.image import INDEX_NAME, Image

    where = next(
        (path.parent for path in [folder / INDEX_NAME, *folder.glob(f"*/{INDEX_NAME}")] if path.exists()), folder
    )
    with Image.open(where, verify=False) as image:
        for path, inode in image.walk():
            target = f" -> {inode.target.decode(errors='replace')}" if inode.target is not None else ""
            shown = path.encode(errors="surrogateescape").decode(errors="replace")
            click.echo(f"{stat.filemode(inode.mode)} {inode.size:>10} {shown}{target}")


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(seconds))
