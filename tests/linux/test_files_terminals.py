"""Pseudo-terminals, on the host and in a guest. Whose they are: see ``tests/differential``."""

import os
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linux.vfs_guest import Guest, run_in_guest
from tests.linux.vfs_native import run_natively
from tests.linux.vfs_scenarios import AT_FDCWD, O_NONBLOCK, O_RDWR, Machine, read, write

O_NOCTTY = 0o400
TCGETS, TCSETS, TCSETSF, TCFLSH, TCXONC, FIONREAD, TIOCPKT = 0x5401, 0x5402, 0x5404, 0x540B, 0x540A, 0x541B, 0x5420
TIOCGWINSZ, TIOCSWINSZ, TIOCGPTN, TIOCSPTLCK, TIOCGPTLCK = 0x5413, 0x5414, 0x80045430, 0x40045431, 0x80045439
TIOCGPTPEER, TIOCNOTTY, TIOCGPGRP, TIOCSPGRP, TIOCGSID = 0x5441, 0x5422, 0x540F, 0x5410, 0x5429
ICANON, ECHO, ISIG = 2, 8, 1
TERMIOS = struct.Struct("<4IB19s")

Program = Callable[[Machine], Any]


def on_a_terminal(program: Program) -> Callable[[], None]:
    """As ``as_on_the_host``. Linux hands on what is typed when it finds time for it, so the program pauses after each
    step, and is tried again with longer pauses before it counts as different.
    """

    @pytest.mark.skipif(os.geteuid() != 0, reason="becomes user 1000, which only root can")
    def test() -> None:
        compare(program)

    return test


#: How long the host has to hand on what was typed, in milliseconds.
_pause = [1]


def compare(program: Program) -> None:
    mine = run_in_guest(program)
    for _pause[0] in (1, 20, 200):
        theirs = run_natively(program)
        if mine == theirs:
            break
    assert mine == theirs


def settle(m: Machine) -> None:
    m.call("poll", m.nowhere, 0, _pause[0])


def terminal(m: Machine) -> tuple[int, int]:
    master = m.call("openat", AT_FDCWD, b"/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, 0)
    m.call("ioctl", master, TIOCSPTLCK, m.place(bytes(4)))
    return int(master), int(m.call("ioctl", master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK))


def get(m: Machine, fd: int, request: int, size: int) -> Any:
    result = m.call("ioctl", fd, request, m.buffer)
    return result or m.peek(m.buffer, size)


def change(
    m: Machine, fd: int, *, add: int = 0, drop: int = 0, oflag: int | None = None, iflag: int | None = None, **keys: int
) -> int:
    """Other settings: bits of lflag, whole other flags, keys by their index (``k6=0``)."""
    fields = list(TERMIOS.unpack(get(m, fd, TCGETS, TERMIOS.size)))
    fields[3] = fields[3] & ~drop | add
    fields[0] = fields[0] if iflag is None else iflag
    fields[1] = fields[1] if oflag is None else oflag
    cc = bytearray(fields[5])
    for name, value in keys.items():
        cc[int(name[1:])] = value
    fields[5] = bytes(cc)
    return int(m.call("ioctl", fd, TCSETS, m.place(TERMIOS.pack(*fields))))


def poll(m: Machine, *fds: int) -> list[int]:
    at = m.place(b"".join(struct.pack("<ihh", fd, 0x7FFF, 0) for fd in fds))
    m.call("poll", at, len(fds), 0)
    return [struct.unpack_from("<h", m.peek(at, 8 * len(fds)), 8 * index + 6)[0] for index in range(len(fds))]


def typed(m: Machine, master: int, slave: int, keys: bytes) -> Any:
    result = write(m, master, keys)
    settle(m)
    return (
        result,
        read(m, master),
        get(m, slave, FIONREAD, 4),
        poll(m, master, slave),
        read(m, slave),
        read(m, slave, 3),
    )


@on_a_terminal
def test_a_new_terminal(m: Machine) -> Any:
    master = m.call("openat", AT_FDCWD, b"/dev/ptmx", O_RDWR | O_NOCTTY, 0)
    number = int.from_bytes(get(m, master, TIOCGPTN, 4), "little")
    name = b"/dev/pts/%d" % number
    locked = m.call("openat", AT_FDCWD, name, O_RDWR | O_NOCTTY, 0), get(m, master, TIOCGPTLCK, 4)
    m.call("ioctl", master, TIOCSPTLCK, m.place(bytes(4)))
    slave = m.call("openat", AT_FDCWD, name, O_RDWR | O_NOCTTY, 0)
    same = [get(m, fd, TCGETS, 36) for fd in (master, slave)]
    sizes = m.call("ioctl", slave, TIOCSWINSZ, m.place(struct.pack("<4H", 24, 80, 1, 2))), get(m, master, TIOCGWINSZ, 8)
    odd = [m.call("lseek", fd, 0, 0) for fd in (master, slave)] + [
        m.call("ioctl", slave, request, m.buffer) for request in (1, TIOCGPTN)
    ]
    odd += [m.call("ioctl", fd, TCGETS, m.nowhere) for fd in (master, slave)]
    link = m.call("readlink", b"/proc/self/fd/%d" % slave, m.buffer, 100)
    path = m.peek(m.buffer, link) == name
    gone = m.call("close", master), m.call("openat", AT_FDCWD, name, O_RDWR, 0)
    return locked, slave - master, same, sizes, odd, path, gone, m.call("openat", AT_FDCWD, b"/dev/tty", O_RDWR, 0)


@on_a_terminal
def test_lines_can_be_corrected_before_they_are_read(m: Machine) -> Any:
    master, slave = terminal(m)
    lines = [b"hello\n", b"hellx\x7fo\r", b"one two\x17three\n", b"gone\x15new\n", b"half", b" line\n", b"\x16\x03\n"]
    lines += [
        b"\x01\x02\n",
        b"a\tb\x7f\x7f\x7f\n",
        b"ab\x12\n",
        b"\x7f\x15\x17\n",
        b"one\ntwo\nthree\n",
        b"\xc3\xa9\x7f\n",
    ]
    return [typed(m, master, slave, line) for line in lines]


@on_a_terminal
def test_the_end_of_a_file(m: Machine) -> Any:
    master, slave = terminal(m)
    results = [typed(m, master, slave, keys) for keys in (b"\x04", b"abc\x04", b"abcd\x04\x04", b"x\n\x04")]
    write(m, master, b"abc\x04def\n")
    settle(m)
    return (
        results,
        [read(m, slave, 3) for _ in range(3)],
        change(m, slave, k11=ord("!")),
        typed(m, master, slave, b"wow! such\n"),
    )


@on_a_terminal
def test_raw_input(m: Machine) -> Any:
    master, slave = terminal(m)
    changed = change(m, slave, drop=ICANON | ECHO | ISIG, iflag=0)
    results = [typed(m, master, slave, keys) for keys in (b"ab", b"\r\n\x03\x04\x7f", b"x" * 10)]
    settings = []
    for least, time in ((0, 0), (3, 0), (0, 1), (3, 1)):
        settings.append(change(m, slave, k6=least, k5=time))
        settings.append(read(m, slave))
        settings.append(typed(m, master, slave, b"yz"))
        settings.append(typed(m, master, slave, b"abcd"))
    return changed, results, settings


@on_a_terminal
def test_what_was_typed_stays_when_the_mode_changes(m: Machine) -> Any:
    master, slave = terminal(m)
    write(m, master, b"half")
    settle(m)
    results = [read(m, slave), change(m, slave, drop=ICANON), read(m, slave, 2), change(m, slave, add=ICANON)]
    results += [poll(m, slave), read(m, slave), read(m, slave)]
    write(m, master, b"one\ntwo")
    settle(m)
    results += [change(m, slave, drop=ICANON), read(m, slave)]
    write(m, master, b"lost")
    settle(m)
    fields = get(m, slave, TCGETS, 36)
    return results, m.call("ioctl", slave, TCSETSF, m.place(fields)), read(m, slave), m.call("ioctl", slave, TCFLSH, 3)


@on_a_terminal
def test_output_gets_its_line_ends(m: Machine) -> Any:
    master, slave = terminal(m)
    results = []
    for oflag in (5, 0, 1, 1 | 8, 1 | 16, 1 | 32, 1 | 0x1800, 5 | 2):
        change(m, slave, oflag=oflag)
        results.append(write(m, slave, b"a\nb\r\rc\td\x08\n"))
        settle(m)
        results.append(read(m, master))
    return results


@on_a_terminal
def test_output_can_be_stopped(m: Machine) -> Any:
    master, slave = terminal(m)
    write(m, master, b"\x13")
    settle(m)
    stopped = write(m, slave, b"x"), read(m, master)
    write(m, master, b"\x11")
    settle(m)
    going = write(m, slave, b"y")
    settle(m)
    return stopped, going, read(m, master), [m.call("ioctl", slave, TCXONC, action) for action in (0, 1, 4)]


@on_a_terminal
def test_the_ends_know_when_the_other_is_closed(m: Machine) -> Any:
    master, slave = terminal(m)
    number = int.from_bytes(get(m, master, TIOCGPTN, 4), "little")
    write(m, slave, b"last words")
    settle(m)
    m.call("close", slave)
    settle(m)
    left = poll(m, master), read(m, master), read(m, master), write(m, master, b"x")
    again = m.call("openat", AT_FDCWD, b"/dev/pts/%d" % number, O_RDWR | O_NOCTTY | O_NONBLOCK, 0)
    back = poll(m, master)[0] & 16, read(m, master) == -11
    m.call("close", master)
    settle(m)
    dead = poll(m, again), read(m, again), write(m, again, b"x")
    return (
        left,
        again - slave,
        back,
        dead,
        [m.call("ioctl", again, request, m.buffer) for request in (TCGETS, TIOCSPGRP, FIONREAD)],
    )


@on_a_terminal
def test_who_has_no_terminal_cannot_ask_whose_it_is(m: Machine) -> Any:
    master, slave = terminal(m)
    requests = (TIOCGPGRP, TIOCGSID, TIOCSPGRP, TIOCNOTTY)
    pid = m.place(struct.pack("<i", 1))
    return [m.call("ioctl", fd, request, pid) for fd in (master, slave) for request in requests]


def test_terminals_cost_room_and_their_buffers_are_bounded() -> None:
    guest = Guest()
    quota = guest.vfs.store.quota
    used = quota.bytes_used
    master, slave = terminal(guest)
    assert quota.bytes_used > used
    for _ in range(300):
        guest.call("write", master, guest.buffer, 4096)
        guest.call("write", slave, guest.buffer, 4096)
    assert guest.call("write", master, guest.buffer, 4096) == 4096, "a line without an end loses it"
    assert guest.call("write", slave, guest.buffer, 4096) == -11
    inner = guest.files.get(master).terminal  # type: ignore[attr-defined]
    assert inner.shown < 80_000
    change(guest, slave, drop=ICANON)
    results = [guest.call("write", master, guest.buffer, 4096) for _ in range(30)]
    assert results[-1] == -11
    guest.call("close", master)
    guest.call("close", slave)
    assert quota.bytes_used == used
    quota.max_bytes = used
    assert guest.call("openat", AT_FDCWD, b"/dev/ptmx", O_RDWR, 0) == -28


#: Not among them: tab, since how far it reaches depends on the screen; stop, since the host may be in the middle of
#: an echo.
_keys = st.lists(
    st.sampled_from(
        [bytes((key,)) for key in (*range(1, 32), 127) if key not in (9, 0x13)]
        + [b"a", b"b c", b"\n", b"\r", b"\x7f", b"\xc3\xa9"]
    ),
    max_size=12,
).map(b"".join)
_settings = st.fixed_dictionaries(
    {
        "drop": st.sampled_from((0, 0, 1, 2, 8, 0x10, 0x20, 0x800, 0x8000, 0x200, 10, 0x8A3B)),
        "add": st.sampled_from((0, 0, 0x40, 0x80)),
        "iflag": st.sampled_from((0x500, 0x500, 0, 0x20, 0x40, 0x80, 0x100, 0x400, 0xC00, 0x4500)),
        "oflag": st.sampled_from((5, 5, 0, 1)),
    }
)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes user 1000, which only root can")
@settings(max_examples=15)
@given(st.lists(st.tuples(_settings, st.lists(_keys, min_size=1, max_size=3)), min_size=1, max_size=3))
def test_any_keys_under_any_settings_do_the_same_as_on_the_host(steps: list[Any]) -> None:
    def program(m: Machine) -> Any:
        master, slave = terminal(m)
        results: list[Any] = []
        for how, keys in steps:
            results.append(
                change(
                    m,
                    slave,
                    drop=0x8A3B,
                    add=0x8A3B & ~how["drop"] | how["add"],
                    iflag=how["iflag"],
                    oflag=how["oflag"],
                )
            )
            results += [typed(m, master, slave, each) for each in keys if each]
        return results

    compare(program)
