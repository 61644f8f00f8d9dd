"""The parts of the test suite that run in the lab: a name, what it shows, and pytest's arguments."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """``arguments`` select tests as on pytest's command line, from the checkout's folder."""

    shows: str
    arguments: tuple[str, ...]


PARTS = {
    "kvm": Part("the door: every ioctl that is used, on hardware", ("tests/kvm", "tests/test_machine.py")),
}
