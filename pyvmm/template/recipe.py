"""Recipes: what a template is made of, read from small TOML files.

A recipe is one of those that come with pyvmm (``pyvmm/guest/*.toml``), asked for by its name, or a file of the
user's, asked for by its path. Its name is the file's name without ``.toml``.
"""

import re
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from pyvmm.errors import RecipeError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

# A version specifier is allowed, but no URL, path or option of pip: what gets into a template comes from the
# configured index.
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"(?:\[[A-Za-z0-9._-]+(?: *, *[A-Za-z0-9._-]+)*\])?"
    r"(?: *(?:===?|>=|<=|~=|!=|<|>) *[A-Za-z0-9.*+!_-]+(?: *, *(?:===?|>=|<=|~=|!=|<|>) *[A-Za-z0-9.*+!_-]+)*)?"
)
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A template's recipe.

    ``packages`` are requirements for pip, ``exclude`` are glob patterns under the folder of packages whose matches
    stay out of the image, ``warm`` are modules imported before the snapshot, ``env`` is the guest's whole environment.
    ``stdlib_tests`` keeps the tests of the standard library, which take more room than all the rest of it.
    """

    name: str
    runtime: Literal["python"]
    description: str = ""
    packages: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    warm: tuple[str, ...] = ()
    memory_mb: Annotated[int, msgspec.Meta(ge=64, le=1 << 16)] = 512
    env: dict[str, str] = {}
    stdlib_tests: bool = False

    def encode(self) -> bytes:
        """The recipe as bytes that are equal for equal recipes, whatever comments and order their files have."""
        return msgspec.json.encode(self, order="sorted")


def builtin_recipes() -> list[str]:
    """The names of the recipes that come with pyvmm, sorted."""
    files = resources.files("pyvmm.guest").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """The built-in recipe of that name, or the one in that file (anything with a slash or ending in ``.toml``).

    Raises :class:`RecipeError` with the file and the field at fault.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith(".toml"):
        path = Path(name_or_path)
        try:
            return parse_recipe(path.stem, path.read_bytes(), str(path))
        except OSError as error:
            raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    known = builtin_recipes()
    if text not in known:
        raise RecipeError(f"no recipe named {text!r}: there are {', '.join(known)}, or give the path of a .toml file")
    file = resources.files("pyvmm.guest") / f"{text}.toml"
    return parse_recipe(text, file.read_bytes(), f"{text}.toml")


def parse_recipe(name: str, source: bytes, where: str) -> Recipe:
    """The recipe in ``source`` (TOML, UTF-8); ``where`` names its origin in errors (:class:`RecipeError`)."""
    if not NAME.fullmatch(name):
        raise RecipeError(f"{where}: a recipe's name is made of a-z, 0-9, '.', '_' and '-', not {name!r}")
    try:
        fields: dict[str, Any] = tomllib.loads(source.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(f"{where}: not TOML: {error}") from error
    if "name" in fields:
        raise RecipeError(f"{where}: no field 'name' here: the file's name is the recipe's name")
    try:
        recipe = msgspec.convert({**fields, "name": name}, Recipe)
    except msgspec.ValidationError as error:
        raise RecipeError(f"{where}: {error}") from error
    for fault in _faults(recipe):
        raise RecipeError(f"{where}: {fault}")
    return recipe


def canonical_name(requirement: str) -> str:
    """The normalised name of the package that a requirement asks for (PEP 503)."""
    match = _REQUIREMENT.match(requirement)
    return re.sub(r"[-_.]+", "-", match["name"]).lower() if match else requirement


def _faults(recipe: Recipe) -> Iterator[str]:
    seen: set[str] = set()
    for requirement in recipe.packages:
        if not _REQUIREMENT.fullmatch(requirement):
            yield f"packages: not a package with an optional version: {requirement!r}"
        elif canonical_name(requirement) in seen:
            yield f"packages: {canonical_name(requirement)!r} is named twice"
        seen.add(canonical_name(requirement))
    for pattern in recipe.exclude:
        if not pattern or pattern.startswith("/") or "\0" in pattern or ".." in pattern.split("/"):
            yield f"exclude: not a pattern below the folder of packages: {pattern!r}"
    for module in recipe.warm:
        if not _MODULE.fullmatch(module):
            yield f"warm: not the name of a module: {module!r}"
    for variable, value in recipe.env.items():
        if not _VARIABLE.fullmatch(variable):
            yield f"env: not the name of a variable: {variable!r}"
        if "\0" in value:
            yield f"env: {variable} has a null character in its value"
