"""``pyvmm serve``."""

import gc
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pyvmm.sandbox import Template


@click.command(context_settings={"show_default": True})
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, help="Port; 0 lets the kernel choose one.")
@click.option(
    "--template",
    "recipes",
    multiple=True,
    metavar="RECIPE",
    help="A template to serve, one for each language; what is missing is built first.  "
    "[default: python, and the other languages whose templates are built]",
)
@click.option("--max-running", type=click.IntRange(1), help="VMs alive at once.  [default: by memory, at most 64]")
@click.option("--ready", type=click.IntRange(0), default=4, help="Forks kept ready for the next requests.")
@click.option("--max-waiting", type=click.IntRange(0), default=64, help="Runs that may wait for a VM; more are 503.")
@click.option(
    "--requests-per-second", type=click.IntRange(1), default=100, help="Limit for each API key; more are 429."
)
@click.option(
    "--drain-seconds", type=click.FloatRange(0), default=30.0, help="Time for running requests after SIGTERM."
)
def serve(
    host: str,
    port: int,
    recipes: tuple[str, ...],
    max_running: int | None,
    ready: int,
    max_waiting: int,
    requests_per_second: int,
    drain_seconds: float,
) -> None:
    """Answer HTTP requests, each in a VM of its own.

    API keys are read from api_keys.json in this directory, or from the file that ZEROBOOT_API_KEYS_FILE names; without
    one, anybody who reaches the port can run code.

    \b
    Examples:
      pyvmm serve
      pyvmm serve --port 9000 --template ./mine.toml --template node
      curl -d '{"code": "print(1 + 1)"}' -H 'Content-Type: application/json' http://127.0.0.1:8080/v1/exec
    """
    from pyvmm.api import Settings
    from pyvmm.api import serve as serve_http
    from pyvmm.pool import LocalPool

    settings = Settings(requests_per_second=requests_per_second, drain_seconds=drain_seconds)
    with ExitStack() as stack:
        templates = _templates(recipes or _default_recipes(), stack)
        # What is loaded by now stays: collections need not look at it again.
        gc.collect()
        gc.freeze()
        with LocalPool(templates, max_running=max_running, max_waiting=max_waiting, ready=ready) as pool:
            stack.pop_all()  # the pool closes them from here on
            serve_http(pool, host, port, settings)


def _default_recipes() -> tuple[str, ...]:
    """Python, and what else has been built on this machine as it would be built now."""
    from pyvmm import Host
    from pyvmm.template.build import template_key
    from pyvmm.template.cache import TemplateCache
    from pyvmm.template.recipe import builtin_runtimes, load_recipe

    cache = TemplateCache()
    names = sorted({runtime.language for runtime in builtin_runtimes().values()} - {"python"})
    chosen = ["python"]
    with Host() as host:
        for name in names:
            if cache.find(name, template_key(load_recipe(name), host.processor)):
                chosen.append(name)
            elif cache.entries(name):
                click.echo(f"{name} is not served, its template is out of date: pyvmm template build {name}", err=True)
    return tuple(chosen)


def _templates(recipes: tuple[str, ...], stack: ExitStack) -> dict[str, "Template"]:
    """The templates by language, built where they are missing."""
    from pyvmm import Template
    from pyvmm.cli.output import Steps
    from pyvmm.template.recipe import load_recipe

    templates: dict[str, Template] = {}
    for recipe in recipes:
        language = load_recipe(recipe).runtime.language
        if language in templates:
            raise click.UsageError(f"{recipe} and {templates[language].name} are both templates for {language}")
        with Steps(f"template {recipe}") as progress:
            templates[language] = stack.enter_context(Template.build(recipe, progress=progress))
    return templates
