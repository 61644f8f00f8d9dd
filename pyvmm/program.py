"""The program that a sandbox is to run, as its template's agent gets it."""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Where a program's file lies in the sandbox, and its working directory.
HOME = "/home/user"
#: Names as a program's file may have them: one component of a path.
_NAME_MAX = 255


@dataclass(frozen=True, slots=True)
class Program:
    """``files`` are those that it finds, its own among them, by absolute path; ``message`` is what the agent reads:
    a line with the lengths of head and source, the head (script path and arguments, each with a NUL at its end), the
    source.
    """

    files: dict[bytes, bytes]
    message: bytes


def make_program(
    code: str | bytes, name: str, argv: Sequence[str] = (), files: Mapping[str, bytes] | None = None
) -> Program:
    """A program called ``name``, with arguments ``argv`` and further ``files`` by path relative to its directory.

    :raises ValueError: a name, a path or an argument cannot be used.
    """
    source = code.encode("utf-8", "surrogatepass") if isinstance(code, str) else code
    path = _script_path(name)
    contents: dict[bytes, bytes] = {}
    for relative, data in (files or {}).items():
        if "\0" in relative or any(part in ("", ".", "..") for part in relative.split("/")):
            raise ValueError(f"not a plain path relative to the working directory: {relative!r}")
        contents[posixpath.join(HOME, relative).encode()] = data
    contents[path] = source
    arguments = [path, *(argument.encode("utf-8", "surrogateescape") for argument in argv)]
    if any(b"\0" in argument for argument in arguments):
        raise ValueError("an argument cannot hold a NUL")
    head = b"".join(argument + b"\0" for argument in arguments)
    return Program(contents, b"%d %d\n" % (len(head), len(source)) + head + source)


def _script_path(name: str) -> bytes:
    if (
        not name
        or "/" in name
        or "\0" in name
        or name in (".", "..")
        or len(name.encode("utf-8", "surrogateescape")) > _NAME_MAX
    ):
        raise ValueError(f"not a name for a script: {name!r}")
    return posixpath.join(HOME, name).encode("utf-8", "surrogateescape")
