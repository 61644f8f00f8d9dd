"""Fixtures of the raw layer: an open /dev/kvm, and boards on it."""

from collections.abc import Callable, Iterator

import pytest

from pyvmm.kvm import Kvm
from tests.kvm.board import Board


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    with Kvm() as kvm:
        yield kvm


@pytest.fixture
def make_board(kvm: Kvm) -> Iterator[Callable[..., Board]]:
    """Makes boards: ``make_board(prepare=function of the Vm, flags=of the memory slot)``."""
    boards: list[Board] = []

    def make(**arguments: object) -> Board:
        boards.append(Board(kvm, **arguments))  # type: ignore[arg-type]
        return boards[-1]

    yield make
    for board in boards:
        board.close()


@pytest.fixture
def board(make_board: Callable[..., Board]) -> Board:
    return make_board()
