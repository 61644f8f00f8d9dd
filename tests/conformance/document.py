"""``docs/conformance.md``: sections that begin with a heading of the first level, each made by one of the judges."""

import re
from collections.abc import Sequence
from pathlib import Path

DOCUMENT = Path("docs/conformance.md")
_SECTION = re.compile(r"^# .*$(?:\n(?!# ).*$)*", re.MULTILINE)


def read() -> str:
    """The document, or nothing where there is none yet."""
    return DOCUMENT.read_text() if DOCUMENT.exists() else ""


def section(document: str, heading: str) -> str:
    """The section with that heading, or nothing."""
    return next((each for each in _SECTION.findall(document) if each.startswith(f"{heading}\n")), "")


def with_section(document: str, heading: str, text: str) -> str:
    """The document with ``text``, heading and all, in place of the section with that heading, or at its end."""
    found = [each.strip() for each in _SECTION.findall(document)]
    old = section(document, heading).strip()
    new = [text.strip() if each == old else each for each in found]
    return "\n\n".join(new if old else [*found, text.strip()]) + "\n"


def without_sections(document: str, headings: Sequence[str]) -> str:
    """The document without the sections that have these headings."""
    return "\n".join(each for each in _SECTION.findall(document) if each.partition("\n")[0] not in headings)
