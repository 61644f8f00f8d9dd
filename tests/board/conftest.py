"""A way to boot guests of a few bytes, and to fork them; all are closed when the test ends."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pyvmm import Host
from pyvmm.board.record import Sink
from pyvmm.kernel_guest import KernelGuest
from pyvmm.snapshot import Snapshot
from tests.board.programs import MEMORY, catch, program

Boot = Callable[..., KernelGuest]
Fork = Callable[..., list[KernelGuest]]


@pytest.fixture
def descriptors() -> Callable[[], int]:
    """How many descriptors this process has open."""
    return lambda: len(os.listdir("/proc/self/fd"))


@pytest.fixture
def owned() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def boot(host: Host, owned: ExitStack) -> Boot:
    """``boot(code, code, …, handlers={vector: code})``: a guest in long mode that is about to run them."""

    def make(*parts: bytes, handlers: dict[int, bytes] | None = None, **options: Any) -> KernelGuest:
        image = options.pop("image", None) or program(*parts)
        guest = owned.enter_context(KernelGuest.boot(host, image, memory=MEMORY, **options))
        if handlers:
            catch(guest, handlers)
        return guest

    return make


@pytest.fixture
def fork(host: Host, owned: ExitStack, tmp_path: Path) -> Fork:
    """``fork(guest, count)``: saves the guest as it stands, and makes that many forks of it. What number n writes
    goes to ``consoles[n]``.
    """

    def make(guest: KernelGuest, count: int = 1, consoles: Sequence[Sink] | None = None) -> list[KernelGuest]:
        folder = tmp_path / f"snapshot{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        guest.save(folder)
        snapshot = owned.enter_context(Snapshot.load(folder, host.processor))
        return [
            owned.enter_context(
                KernelGuest.fork(host, snapshot, twin=number + 1, console=consoles[number] if consoles else None)
            )
            for number in range(count)
        ]

    return make
