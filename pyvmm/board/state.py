"""What the ``guest.bin`` of a kernel guest's snapshot says, and the check that it says it.

The devices believe the state that they are made with. It comes from a file, so types and ranges are checked here; what
depends on the devices (how many ports and queues there are, whether rings lie in memory) they check themselves.
"""

from typing import Annotated, Any, TypedDict

import msgspec
from msgspec import Meta

from pyvmm.devices.ioapic import PINS

__all__ = ["BoardState", "GuestState", "guest_state"]

_U8 = Annotated[int, Meta(ge=0, le=0xFF)]
_U16 = Annotated[int, Meta(ge=0, le=0xFFFF)]
_U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
_U64 = Annotated[int, Meta(ge=0)]  # MessagePack has none that are larger


class _IoApic(TypedDict):
    ioregsel: _U8
    id: _U8
    redirection: Annotated[list[_U64], Meta(min_length=PINS, max_length=PINS)]
    lines: _U32


class _Serial(TypedDict):
    ier: _U8
    lcr: _U8
    mcr: _U8
    fcr: _U8
    scr: _U8
    divisor: _U16
    overrun: bool
    thre_pending: bool
    msr_delta: _U8
    fifo: list[tuple[_U8, _U8]]
    backlog: bytes


class _Queue(TypedDict):
    size: _U32
    desc: _U64
    avail: _U64
    used: _U64
    ready: bool
    next: _U16


class _Transport(TypedDict):
    status: _U8
    driver_features: _U64
    device_features_sel: _U32
    driver_features_sel: _U32
    queue_sel: _U32
    interrupt_status: _U8
    config_generation: _U32
    queues: list[_Queue]
    unfinished: list[_U8]
    violations: _U64


class _Port(TypedDict):
    guest_ready: bool
    guest_open: bool
    host_open: bool
    blocked: bool
    taken: _U64
    input: bytes
    refused: bool
    dropped: _U64
    violations: _U64


class _Console(TypedDict):
    driver_ready: bool
    columns: _U16
    rows: _U16
    messages: list[Annotated[list[_U16], Meta(min_length=2, max_length=2)]]
    violations: _U64
    ports: list[_Port]


class BoardState(TypedDict):
    """What ``Board.save`` gives."""

    ioapic: _IoApic
    serial: _Serial
    virtio: list[tuple[_Console, _Transport]]


class GuestState(TypedDict):
    """The board, and the names of the ports of its first console after port 0."""

    board: BoardState
    ports: list[str]


def guest_state(data: Any) -> GuestState:
    """``data``, checked.

    :raises ValueError: it is not the state of a board.
    """
    try:
        return msgspec.convert(data, GuestState)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
