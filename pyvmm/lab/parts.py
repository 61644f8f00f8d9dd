"""The parts of the test suite that run in the lab: a name, what it shows, and pytest's arguments."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """``arguments`` select tests as on pytest's command line, from the checkout's folder."""

    shows: str
    arguments: tuple[str, ...]


PARTS = {
    "linux": Part(
        "stock Linux: to userland, its template, snapshot, forks with exec",
        ("tests/lab/test_linux_boot.py", "tests/lab/test_linux_template.py"),
    ),
    "guests": Part(
        "bare metal: the teaching guests, the board, interrupts, state in snapshots",
        ("tests/guest/test_bare.py", "tests/board"),
    ),
    "kvm": Part("the door: every ioctl that is used, on hardware", ("tests/kvm", "tests/test_machine.py")),
}


def select(names: Iterable[str]) -> list[str]:
    """pytest's arguments for parts and whatever else is named; those of all parts if nothing but options is."""
    chosen: list[str] = []
    others: list[str] = []
    for name in names:
        (chosen if name in PARTS else others).append(name)
    if not chosen and all(name.startswith("-") for name in others):
        chosen = [*PARTS]
    return [argument for name in chosen for argument in PARTS[name].arguments] + others
