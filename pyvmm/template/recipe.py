"""Recipes: what a template is made of, read from small TOML files.

A recipe is one of those that come with pyvmm (``pyvmm/guest/*.toml``), asked for by its name, or a file of the
user's, asked for by its path. Its name is the file's name without ``.toml``.

What is the same for all templates of a language is in the ``[runtime]`` table of the recipe that brings the language;
others name that recipe: ``runtime = "python"``.
"""

import functools
import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import structs

from pyvmm.errors import RecipeError
from pyvmm.template.tools import TOOL

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

# A version specifier is allowed, but no URL, path or option of pip: what gets into a template comes from the
# configured index.
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?:\[[A-Za-z0-9._-]+(?: *, *[A-Za-z0-9._-]+)*\])?"
    r"(?: *(?:===?|>=|<=|~=|!=|<|>) *[A-Za-z0-9.*+!_-]+(?: *, *(?:===?|>=|<=|~=|!=|<|>) *[A-Za-z0-9.*+!_-]+)*)?"
)
_MODULE = re.compile(r"[^\W\d]\w*(?:[.:/-][^\W\d]\w*)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,16}")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


GuestKind = Literal["process", "linux"]
#: Behind the name of a recipe that is to have stock Linux as its guest.
LINUX_SUFFIX = "-linux"


class Runtime(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the programs of a language are run.

    ``agent`` is a file beside the recipe: what waits in the frozen template for a program and then runs it. ``command``
    starts it in the guest, ``{agent}`` being its path there, ``{script}`` that of a program without a name of its own,
    ``{random}`` a number of this build; the recipe's ``warm`` follows as further arguments. ``suffixes`` are those of
    the language's files, the usual one first. ``rehearsal`` is a program that prints 2: what it touches is what a fork
    has ready.

    The userland has the ``tools`` of this host, and out of Python ``packages`` the ``files``: path in the guest to
    path in the folder of packages. ``python`` adds the interpreter that runs pyvmm, its standard library and all
    packages.
    """

    language: str
    agent: str
    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    suffixes: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    rehearsal: str
    aliases: tuple[str, ...] = ()
    python: bool = False
    tools: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    files: dict[str, str] = {}

    @property
    def script(self) -> str:
        """The name of a program's file when it has none of its own."""
        return f"main{self.suffixes[0]}"

    def agent_source(self) -> bytes:
        """The agent. Raises :class:`RecipeError`."""
        try:
            if "/" in self.agent:
                return Path(self.agent).read_bytes()
            return resources.files("pyvmm.guest").joinpath(self.agent).read_bytes()
        except OSError as error:
            raise RecipeError(f"cannot read the agent {self.agent}: {error.strerror}") from error


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A template's recipe.

    ``packages`` are requirements for pip, ``exclude`` are glob patterns under the folder of packages whose matches
    stay out of the image, ``tools`` are programs of this host, ``warm`` are modules imported before the snapshot,
    ``env`` is the guest's whole environment. ``guest`` says what the programs run on: pyvmm's own Linux personality, or
    stock Linux, for which a name ends in ``-linux``.
    ``stdlib_tests`` keeps the tests of the standard library, which take more room than all the rest of it.
    """

    name: str
    runtime: Runtime
    description: str = ""
    packages: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    tools: tuple[str, ...] = ("@usual",)
    warm: tuple[str, ...] = ()
    guest: GuestKind = "process"
    memory_mb: Annotated[int, msgspec.Meta(ge=64, le=1 << 16)] = 512
    env: dict[str, str] = {}
    stdlib_tests: bool = False

    @property
    def all_tools(self) -> tuple[str, ...]:
        """The runtime's and the recipe's own."""
        return (*self.runtime.tools, *self.tools)

    @property
    def all_packages(self) -> tuple[str, ...]:
        """The runtime's and the recipe's own."""
        return (*self.runtime.packages, *self.packages)

    def encode(self) -> bytes:
        """The recipe as bytes that are equal for equal recipes, whatever comments and order their files have."""
        return msgspec.json.encode(self, order="sorted")


def builtin_recipes() -> list[str]:
    """The names of the recipes that come with pyvmm, sorted."""
    files = resources.files("pyvmm.guest").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


@functools.cache
def builtin_runtimes() -> dict[str, Runtime]:
    """The languages that the built-in recipes bring, by their names and aliases; each is the recipe's name as well."""
    runtimes: dict[str, Runtime] = {}
    for name in builtin_recipes():
        fields = tomllib.loads(_builtin(name).decode())
        if isinstance(fields["runtime"], dict):
            runtime = msgspec.convert({"language": name, **fields["runtime"]}, Runtime)
            runtimes |= dict.fromkeys((runtime.language, *runtime.aliases), runtime)
    return runtimes


def language_of(script: str) -> str | None:
    """The language of a file of that name, as far as its suffix tells."""
    return next((each.language for each in builtin_runtimes().values() if script.endswith(each.suffixes)), None)


def load_recipe(name_or_path: str | Path, guest: GuestKind | None = None) -> Recipe:
    """The built-in recipe of that name, or the one in that file (anything with a slash or ending in ``.toml``).

    ``guest`` replaces what the recipe says; ``python-linux`` is ``python`` with Linux as its guest.

    Raises :class:`RecipeError` with the file and the field at fault.
    """
    text = str(name_or_path)
    if text.endswith(LINUX_SUFFIX) and guest != "process":
        text, guest = text.removesuffix(LINUX_SUFFIX), "linux"
    recipe = _load(text if isinstance(name_or_path, str) else name_or_path)
    kind = guest or recipe.guest
    if kind == "linux" and not recipe.name.endswith(LINUX_SUFFIX):
        return structs.replace(recipe, name=recipe.name + LINUX_SUFFIX, guest=kind)
    return structs.replace(recipe, guest=kind)


def _load(name_or_path: str | Path) -> Recipe:
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith(".toml"):
        path = Path(name_or_path)
        try:
            return parse_recipe(path.stem, path.read_bytes(), str(path), path.absolute().parent)
        except OSError as error:
            raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    known = builtin_recipes()
    name = canonical_language(text)
    if name not in known:
        raise RecipeError(f"no recipe named {text!r}: there are {', '.join(known)}, or give the path of a .toml file")
    return parse_recipe(name, _builtin(name), f"{name}.toml")


def canonical_language(name: str) -> str:
    """The language that has ``name`` as an alias; anything else stays as it is."""
    runtime = builtin_runtimes().get(name)
    return name if runtime is None else runtime.language


def template_name(name: str, guest: GuestKind | None = None) -> str:
    """What the template of that name, or of the language with that alias, is called if ``guest`` runs its programs."""
    base = name.removesuffix(LINUX_SUFFIX)
    return canonical_language(base) + (LINUX_SUFFIX if guest == "linux" or base != name else "")


def _builtin(name: str) -> bytes:
    return resources.files("pyvmm.guest").joinpath(f"{name}.toml").read_bytes()


def parse_recipe(name: str, source: bytes, where: str, folder: Path | None = None) -> Recipe:
    """The recipe in ``source`` (TOML, UTF-8); ``where`` names its origin in errors (:class:`RecipeError`).

    :param folder: where a runtime's agent is; otherwise with those of pyvmm.
    """
    if not NAME.fullmatch(name):
        raise RecipeError(f"{where}: a recipe's name is made of a-z, 0-9, '.', '_' and '-', not {name!r}")
    try:
        fields: dict[str, Any] = tomllib.loads(source.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{where}: not TOML: {error}") from error
    if "name" in fields:
        raise RecipeError(f"{where}: no field 'name' here: the file's name is the recipe's name")
    try:
        fields["runtime"] = _runtime(name, fields.get("runtime"), folder)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None
    try:
        recipe = msgspec.convert({**fields, "name": name}, Recipe)
    except msgspec.ValidationError as error:
        raise RecipeError(f"{where}: {error}") from error
    for fault in _faults(recipe):
        raise RecipeError(f"{where}: {fault}")
    return recipe


def _runtime(name: str, given: Any, folder: Path | None) -> Any:
    """What a recipe has under ``runtime``, with the name of a language replaced by what it stands for."""
    if given is None:
        raise RecipeError("missing required field `runtime`: the name of a language, or a table that describes one")
    if isinstance(given, str):
        runtime = builtin_runtimes().get(given)
        if runtime is None:
            raise RecipeError(
                f"runtime: no language named {given!r}: there are {', '.join(sorted(builtin_runtimes()))}"
            )
        return msgspec.to_builtins(runtime)
    if not isinstance(given, dict):
        return given
    agent = given.get("agent")
    beside = {"agent": str(folder / agent)} if folder is not None and isinstance(agent, str) else {}
    return {"language": name, **given, **beside}


def canonical_name(requirement: str) -> str:
    """The normalised name of the package that a requirement asks for (PEP 503)."""
    match = _REQUIREMENT.match(requirement)
    return re.sub(r"[-_.]+", "-", match["name"]).lower() if match else requirement


def _faults(recipe: Recipe) -> Iterator[str]:
    yield from _runtime_faults(recipe.runtime)
    if recipe.packages and not recipe.runtime.python:
        yield f"packages: these are Python's, and programs in {recipe.runtime.language} have no use for them"
    seen: set[str] = set()
    for requirement in recipe.all_packages:
        if not _REQUIREMENT.fullmatch(requirement):
            yield f"packages: not a package with an optional version: {requirement!r}"
        elif canonical_name(requirement) in seen:
            yield f"packages: {canonical_name(requirement)!r} is named twice"
        seen.add(canonical_name(requirement))
    for pattern in recipe.exclude:
        if not pattern or pattern.startswith("/") or "\0" in pattern or ".." in pattern.split("/"):
            yield f"exclude: not a pattern below the folder of packages: {pattern!r}"
    for tool in recipe.all_tools:
        if not TOOL.fullmatch(tool):
            yield f"tools: not the name of a program: {tool!r}"
    for module in recipe.warm:
        if not _MODULE.fullmatch(module):
            yield f"warm: not the name of a module: {module!r}"
    for variable, value in recipe.env.items():
        if not _VARIABLE.fullmatch(variable):
            yield f"env: not the name of a variable: {variable!r}"
        if "\0" in value:
            yield f"env: {variable} has a null character in its value"


def _runtime_faults(runtime: Runtime) -> Iterator[str]:
    for name in (runtime.language, *runtime.aliases):
        if not NAME.fullmatch(name):
            yield f"runtime: not the name of a language: {name!r}"
    for suffix in runtime.suffixes:
        if not _SUFFIX.fullmatch(suffix):
            yield f"runtime.suffixes: not like '.py': {suffix!r}"
    if not runtime.command[0].startswith("/"):
        yield f"runtime.command: not the absolute path of a program in the guest: {runtime.command[0]!r}"
    for part in runtime.command:
        for unknown in set(_PLACEHOLDER.findall(part)) - {"agent", "script", "random"}:
            yield f"runtime.command: {{{unknown}}} stands for nothing"
        if "\0" in part:
            yield "runtime.command: null character"
    for place, source in runtime.files.items():
        if not _plain(place.removeprefix("/")) or not place.startswith("/"):
            yield f"runtime.files: not a plain absolute path: {place!r}"
        if not _plain(source):
            yield f"runtime.files: not a path below the folder of packages: {source!r}"


def _plain(path: str) -> bool:
    return "\0" not in path and all(part not in ("", ".", "..") for part in path.split("/"))
