"""What has been reviewed of libuv's tests: those that are left out, and those that differ for a reason."""

import tomllib
from pathlib import Path

import msgspec

_LIST = Path(__file__).with_name("tests.toml")


class Reviewed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tests and what there is to say about them."""

    reason: str
    tests: tuple[str, ...]


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tests that are run on neither side, and tests that are known to end otherwise inside than on the host."""

    left_out: tuple[Reviewed, ...] = ()
    differs: tuple[Reviewed, ...] = ()

    def is_left_out(self, test: str) -> bool:
        """Whether the test is run on neither side."""
        return any(test in each.tests for each in self.left_out)


def listed(path: Path = _LIST) -> Listed:
    """The reviewed list."""
    return msgspec.convert(tomllib.loads(path.read_text()), Listed)
