"""The teaching guests that come with pyvmm: tiny bare-metal programs in ``guest/bare``, each with its source.

A source begins with comments that say what it is::

    # title: Hello from long mode
    # what: one sentence
    # needs: hardware KVM, because …          (only if it cannot run everywhere)
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

__all__ = ["TeachingGuest", "find", "teaching_guests"]

_HEADER = re.compile(r"# (title|what|needs): (.*)")


@dataclass(frozen=True, slots=True)
class TeachingGuest:
    """One of them; ``needs`` is empty if any KVM will do."""

    name: str
    title: str
    what: str
    needs: str
    image: bytes


def teaching_guests() -> Iterator[TeachingGuest]:
    """All, by name."""
    folder = resources.files("pyvmm.guest").joinpath("bare")
    files = {file.name: file for file in folder.iterdir()}
    for source in sorted(name for name in files if name.endswith(".s")):
        name = source.removesuffix(".s")
        image = files.get(f"{name}.elf") or files.get(f"{name}.bin")
        if image is None:
            continue
        fields = {"title": "", "what": "", "needs": ""}
        for line in files[source].read_text().splitlines():
            match = _HEADER.fullmatch(line)
            if match:
                fields[match[1]] = match[2]
            elif not line.startswith("#"):
                break
        yield TeachingGuest(name, **fields, image=image.read_bytes())


def find(name: str) -> TeachingGuest | None:
    """The one of that name."""
    return next((guest for guest in teaching_guests() if guest.name == name), None)
