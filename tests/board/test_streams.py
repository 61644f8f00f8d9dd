"""Snapshots in the middle of a console's traffic: each fork carries on where the original was, byte for byte."""

import struct

import pytest

from pyvmm.board.power import Ending, How
from pyvmm.board.teaching import find
from tests.board.programs import mov, poke
from tests.board.virtio import (
    AVAILABLE,
    BUFFERS,
    NOTIFY,
    QUEUE_SIZE,
    RECEIVE,
    TRANSMIT,
    USED,
    console_program,
    ring,
)

pytestmark = pytest.mark.kvm

LAST = 3000
EXIT_0 = Ending(How.EXIT, 0)


def streaming_program() -> bytes:
    """Send the numbers from 0 to LAST, eight bytes each, with up to eight buffers in flight and one notification for
    three of them; then leave.
    """

    def absolute(opcode: bytes, address: int) -> bytes:
        return opcode + struct.pack("<I", address)

    loop = b"".join(
        (
            absolute(b"\x0f\xb7\x04\x25", TRANSMIT + USED + 2),  # l: movzx eax, word [used.idx]
            b"\x44\x89\xe1\x66\x29\xc1\x66\x83\xf9\x08",  # mov ecx, r12d; sub cx, ax; cmp cx, 8
            b"\x73\x2f",  # jae notify
            b"\x44\x89\xe0\x83\xe0\x07",  # mov eax, r12d; and eax, 7
            absolute(b"\x4c\x89\x24\xc5", BUFFERS),  # mov [BUFFERS + rax * 8], r12
            b"\x49\xff\xc4",  # inc r12
            absolute(b"\x66\x44\x89\x24\x25", TRANSMIT + AVAILABLE + 2),  # mov [avail.idx], r12w
            b"\x49\x81\xfc" + struct.pack("<I", LAST + 1) + b"\x74\x0b",  # cmp r12, LAST + 1; je notify
            b"\x44\x89\xe0\x31\xd2\xf7\xf6\x85\xd2\x75\xbc",  # mov eax, r12d; xor edx, edx; div esi; test edx, edx; jnz
            poke(NOTIFY, 1),
            b"\x49\x81\xfc" + struct.pack("<I", LAST + 1) + b"\x72\xa8",  # cmp r12, LAST + 1; jb l
            absolute(b"\x0f\xb7\x04\x25", TRANSMIT + USED + 2),  # movzx eax, word [used.idx]
            b"\x44\x39\xe0\x75\xf3",  # cmp eax, r12d; jne the one before
            b"\xb0\x00\xe6\xf4",
        )
    )
    return console_program() + b"\x4d\x31\xe4" + mov("esi", 3) + loop  # xor r12, r12


def numbers(first: int = 0) -> bytes:
    return b"".join(struct.pack("<Q", number) for number in range(first, LAST + 1))


def with_output(fork, guest, count):
    """Forks, and with each what it writes."""
    outputs = [bytearray() for _ in range(count)]
    return list(zip(outputs, fork(guest, count, [output.extend for output in outputs]), strict=True))


def streaming(boot, **options):
    guest = boot(streaming_program(), **options)
    ring(guest, [(BUFFERS + 8 * number, 8) for number in range(QUEUE_SIZE)], available=False)
    return guest


def test_a_stream_arrives_whole(boot):
    said = bytearray()
    guest = streaming(boot, console=said.extend)
    assert guest.run(20) == EXIT_0
    assert said == numbers()
    assert guest.board.virtio[0].violations == 0
    assert guest.board.exits < 1100  # a notification for three buffers


@pytest.mark.parametrize("at", [1, 8, 1000, 8 * 1500 + 3, 8 * LAST])
def test_ten_forks_of_a_stream_continue_it_exactly(boot, fork, at):
    """At byte ``at`` the host takes no more: buffers are in flight, one of them perhaps half taken."""
    said = bytearray()

    def sink(data: memoryview) -> int:
        piece = bytes(data[: at - len(said)])
        said.extend(piece)
        if len(said) == at:
            guest.board.pause()
        return len(piece)

    guest = streaming(boot)
    guest.hvc0.sink = sink
    assert guest.run(20) is None
    assert said == numbers()[:at]
    for rest, twin in with_output(fork, guest, 10):
        twin.board.call(twin.hvc0.resume)
        assert twin.run(20) == EXIT_0
        assert said + rest == numbers()
        assert twin.board.virtio[0].violations == 0


@pytest.mark.parametrize("exits", [20, 21, 22, 50, 333])
def test_forks_from_an_arbitrary_exit_continue_the_stream(boot, fork, exits):
    said = bytearray()
    guest = streaming(boot, console=said.extend)
    serve = guest.board.handle_exit

    def handle_exit(reason: int) -> bool:
        if guest.board.exits == exits:
            guest.board.pause()
            return serve(reason) and False
        return serve(reason)

    guest.board.handle_exit = handle_exit
    assert guest.run(20) is None
    for rest, twin in with_output(fork, guest, 3):
        assert twin.run(20) == EXIT_0
        assert said + rest == numbers()


def test_forks_taken_by_the_clock_continue_the_stream(boot, fork):
    """Not at an exit, but wherever the guest is when the time is over."""
    said = bytearray()
    guest = streaming(boot, console=said.extend)
    for _ in range(3):
        assert guest.run(0.02).how is How.TIMEOUT
        for rest, twin in with_output(fork, guest, 2):
            assert twin.run(20) == EXIT_0
            assert said + rest == numbers()


def test_ten_forks_get_the_half_of_an_input_that_was_not_delivered_and_then_their_own(boot, fork):
    """The guest echoes pages; of 60,000 bytes some have come back when the snapshot is taken."""
    data = bytes(number % 251 for number in range(60_000))
    said = bytearray()

    def console(piece: bytes) -> None:
        said.extend(piece)
        if said == b"ready\n":
            assert guest.hvc0.send(data) == len(data)
        elif len(said) > 20_000:
            guest.board.pause()

    guest = boot(image=find("virtio-echo").image, console=console)
    assert guest.run(20) is None
    assert 20_000 < len(said) < 40_000
    for number, (rest, twin) in enumerate(with_output(fork, guest, 10)):
        own = f"this is for number {number}".encode() * 500
        assert twin.hvc0.send(own) == len(own)
        while len(said) + len(rest) < 6 + len(data) + len(own):
            assert twin.run(0.05).how is How.TIMEOUT
        twin.hvc0.send(b"quit")
        assert twin.run(20) == EXIT_0
        assert said + rest == b"ready\n" + data + own + b"bye\n"


def test_buffers_for_input_that_wait_are_filled_in_each_fork(boot, fork):
    # l: cmp word [used.idx], 8; jne l; leave
    wait = b"\x66\x83\x3c\x25" + struct.pack("<I", RECEIVE + USED + 2) + b"\x08\x75\xf5\xb0\x00\xe6\xf4"
    guest = boot(console_program(), poke(NOTIFY, 0), b"\xe6\xf5", wait)
    ring(guest, [(BUFFERS + 16 * number, 16) for number in range(QUEUE_SIZE)], RECEIVE)
    guest.pause_when_announced()
    assert guest.run(5) is None
    guest.hvc0.send(b"three of eight buffers are full here, and ")
    for number, twin in enumerate(fork(guest, 10)):
        twin.hvc0.send(bytes([65 + number]) * 100)
        assert twin.run(10) == EXIT_0
        lengths = struct.unpack_from("<" + "II" * QUEUE_SIZE, twin.machine.memory.view, RECEIVE + USED + 4)[1::2]
        got = b"".join(
            bytes(twin.machine.memory.view[BUFFERS + 16 * place : BUFFERS + 16 * place + length])
            for place, length in enumerate(lengths)
        )
        expected = b"three of eight buffers are full here, and " + bytes([65 + number]) * 100
        assert expected.startswith(got) and len(got) == 16 + 16 + 10 + 5 * 16
