"""The page ``docs/system-calls.md``: which system calls there are, and what of each is partial. Read from the table.

``python -m pyvmm.linux.compatibility`` prints it; a test holds the page against it.
"""

import inspect
from collections import defaultdict

import pyvmm.linux.syscalls  # noqa: F401 - fills the table
from pyvmm.linux.abi.unistd import NAMES
from pyvmm.linux.table import TABLE, SystemCall

_HEAD = """\
# System calls of process guests

Made from the system-call table by `python -m pyvmm.linux.compatibility`. {count} of {all} calls are there; every other
number, those of the x32 ABI too, returns `ENOSYS` and is counted by its name. The note says what a call does where its
name does not, and what differs from Linux.
"""


def page() -> str:
    """The page, as Markdown."""
    families: dict[str, list[SystemCall]] = defaultdict(list)
    for call in TABLE.values():
        families[call.function.__module__.rpartition(".")[2]].append(call)
    lines = [_HEAD.format(count=len(TABLE), all=len(NAMES))]
    for family in sorted(families):
        lines += [f"## `syscalls/{family}.py`", "", "| call | number | note |", "|---|---|---|"]
        for call in sorted(families[family], key=lambda call: call.name):
            lines.append(
                f"| `{call.name}({', '.join(name for name, _ in call.arguments)})` | {call.number} | {_note(call)} |"
            )
        lines.append("")
    missing = sorted(name for number, name in NAMES.items() if number not in TABLE)
    lines += ["## Not there", "", ", ".join(f"`{name}`" for name in missing) + ".", ""]
    return "\n".join(lines)


def _note(call: SystemCall) -> str:
    """The second paragraph of the docstring, or what follows the colon in its first line."""
    if call.note:
        return call.note
    first = (inspect.getdoc(call.function) or "").split("\n\n")[0]
    _, colon, rest = " ".join(first.split()).partition("): ")
    return rest.rstrip(".") if colon else ""


if __name__ == "__main__":
    print(page(), end="")
