"""Programs of this host for an image: the shell and the small tools that programs expect of any Linux system.

A recipe names them as a shell would. ``ps?`` is left out where the host has none, anything else is then an error, and
``@usual`` stands for the usual ones: of these, the utilities of POSIX are required, for every system has them, and the
others come along where they are there.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from pyvmm.errors import TemplateError

#: A tool in a recipe.
TOOL = re.compile(r"@usual|[A-Za-z0-9\[][A-Za-z0-9._+-]{0,63}\??")

_POSIX = (
    "sh", "[", "awk", "basename", "cat", "chmod", "cmp", "comm", "cp", "cut", "date", "df", "diff", "dirname",
    "du", "echo", "env", "expr", "false", "find", "fold", "grep", "head", "id", "join", "ln", "ls", "mkdir",
    "mkfifo", "mv", "nl", "od", "paste", "printf", "pwd", "rm", "rmdir", "sed", "sleep", "sort", "split",
    "tail", "tee", "test", "touch", "tr", "true", "tty", "uname", "uniq", "wc", "xargs",
)  # fmt: skip
# kill and ps are POSIX as well; but they come from procps, which small systems do without, and kill is in every shell.
_OTHERS = (
    "arch", "base64", "bash", "egrep", "expand", "fgrep", "getconf", "gunzip", "gzip", "hostname", "kill",
    "md5sum", "mktemp", "nproc", "pgrep", "pkill", "ps", "readlink", "realpath", "rev", "seq", "sha1sum",
    "sha256sum", "sha512sum", "shuf", "stat", "stdbuf", "sync", "tac", "tar", "timeout", "truncate", "unexpand",
    "which", "whoami", "yes", "zcat",
)  # fmt: skip
#: Scripts run by this shell are as good as programs.
_SHELL = (b"#!/bin/sh\n", b"#! /bin/sh\n", b"#!/bin/sh -", b"#!/bin/sh ")


def find_tools(names: Iterable[str]) -> dict[str, Path]:
    """Where this host has the tools of a recipe, links resolved: an alternative, such as ``awk``, is a link to
    another program.

    Raises :class:`TemplateError` with all that are missing.
    """
    found, missing = {}, []
    for name, required in _expand(names):
        if name in found:
            continue
        path = _find(name)
        if path is not None:
            found[name] = path
        elif required:
            missing.append(name)
    if missing:
        raise TemplateError(f"this host has no {', '.join(missing)}, which the recipe asks for (tools)")
    return found


def tools_identity(names: Iterable[str]) -> list[str]:
    """What tells these tools from others, for keys of caches; missing ones are not there."""
    identity = []
    for name in sorted({name for name, _ in _expand(names)}):
        path = _find(name)
        if path is not None:
            facts = path.stat()
            identity.append(f"{name}|{path}|{facts.st_size}|{facts.st_mtime_ns}")
    return identity


def _expand(names: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Each tool, and whether it is required."""
    for name in names:
        if name == "@usual":
            yield from ((each, True) for each in _POSIX)
            yield from ((each, False) for each in _OTHERS)
        else:
            yield name.removesuffix("?"), not name.endswith("?")


def _find(name: str) -> Path | None:
    """The file of a program; what the system brings comes before what its user has put into ``PATH``."""
    path = os.pathsep.join(filter(None, (os.confstr("CS_PATH"), os.environ.get("PATH"))))
    found = shutil.which(name, path=path)
    if found is None:
        return None
    real = Path(os.path.realpath(found))
    try:
        with real.open("rb") as file:
            head = file.read(16)
    except OSError:
        return None
    return real if head.startswith((b"\x7fELF", *_SHELL)) else None
