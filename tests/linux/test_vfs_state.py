"""What is saved of a file tree, what forks see of each other, and files that the host puts in."""

import struct

import msgspec
import pytest

from pyvmm.linux.limits import Limits
from tests.linux.vfs_guest import Guest

O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_DIRECTORY = 1, 2, 0o100, 0o1000, 0o200000


@pytest.fixture
def guest() -> Guest:
    return Guest()


def test_a_saved_tree_comes_back_as_it_was(guest: Guest) -> None:
    guest.spill(b"/tmp/a", b"x" * 200_000)
    guest.call("mkdir", b"/home/user/d", 0o700)
    guest.call("symlink", b"../x", b"/home/user/d/l")
    guest.call("link", b"/tmp/a", b"/home/user/d/hard")
    guest.call("mknod", b"/tmp/fifo", 0o010600, 0)
    guest.spill(b"/dev/shm/sem", b"s")
    guest.call("chdir", b"/home/user/d")
    guest.call("umask", 0o077)
    fd = guest.open(b"/tmp/a", O_RDWR)
    guest.call("lseek", fd, 77, 0)
    guest.call("dup2", fd, 20)
    guest.call("ioctl", 20, 0x5451, 0)
    guest.open(b"/etc", O_DIRECTORY)
    guest.open(b"/dev/null", O_RDWR)
    deleted = guest.open(b"/tmp/deleted", O_CREAT | O_RDWR)
    guest.write(deleted, b"still here")
    guest.call("unlink", b"/tmp/deleted")
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(guest.save()))
    fork = Guest(state=state)
    assert fork.slurp(b"/home/user/d/hard") == b"x" * 200_000
    assert fork.call("lseek", fd, 1, 1) == 78 == fork.call("lseek", 20, 0, 1)
    assert [fork.call("fcntl", number, 1, 0) for number in (fd, 20)] == [0, 1]
    assert fork.call("pread64", deleted, fork.buffer, 100, 0) == 10
    assert fork.names(b".") == [b".", b"..", b"hard", b"l"]
    assert fork.call("umask", 0) == 0o077
    assert fork.slurp(b"/dev/shm/sem") == b"s"
    for path in (b"/tmp/a", b"/home/user/d", b"/home/user/d/l", b"/tmp/fifo", b"/home", b"/dev/shm"):
        assert fork.stat(path) == guest.stat(path)
    assert fork.vfs.bytes_used == guest.vfs.bytes_used
    assert Guest(state=fork.save()).save() == fork.save()


def test_what_one_fork_does_to_saved_files_another_does_not_see(guest: Guest) -> None:
    guest.spill(b"/tmp/a", b"x" * 100_000)
    guest.call("mkdir", b"/tmp/d", 0o755)
    guest.spill(b"/tmp/d/b", b"saved")
    state = guest.save()
    first, second = Guest(state=state), Guest(state=state)
    fd = first.open(b"/tmp/a", O_RDWR)
    first.call("pwrite64", fd, first.place(b"mine"), 4, 50_000)
    first.call("unlink", b"/tmp/d/b")
    first.call("rmdir", b"/tmp/d")
    first.spill(b"/tmp/new", b"")
    assert second.slurp(b"/tmp/a") == b"x" * 100_000
    assert second.slurp(b"/tmp/d/b") == b"saved"
    assert second.names(b"/tmp") == [b".", b"..", b"a", b"d"]
    again = Guest(state=first.save())
    assert again.names(b"/tmp") == [b".", b"..", b"a", b"new"]
    assert again.vfs.bytes_used == first.vfs.bytes_used


def test_saved_extended_attributes_are_each_forks_own(guest: Guest) -> None:
    guest.spill(b"/tmp/a", b"")
    guest.call("setxattr", b"/tmp/a", b"user.a", b"value", 5, 0)
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(guest.save()))
    fork, other = Guest(state=state), Guest(state=state)
    fork.call("setxattr", b"/tmp/a", b"user.a", b"longer value", 12, 0)
    assert fork.call("getxattr", b"/tmp/a", b"user.a", fork.buffer, 100) == 12
    assert other.call("getxattr", b"/tmp/a", b"user.a", other.buffer, 100) == 5


def test_a_generated_file_cannot_be_part_of_a_snapshot(guest: Guest) -> None:
    guest.open(b"/proc/cpuinfo")
    with pytest.raises(ValueError, match="cannot be saved"):
        guest.save()


def test_both_ends_of_a_pipe_and_of_a_fifo_share_what_is_in_flight_after_a_snapshot(guest: Guest) -> None:
    assert guest.call("pipe2", guest.buffer, 0) == 0
    r, w = struct.unpack("<ii", guest.peek(guest.buffer, 8))
    assert guest.call("mknod", b"/tmp/fifo", 0o010644, 0) == 0
    both = guest.open(b"/tmp/fifo", O_RDWR)
    extra = guest.call("dup", w)
    for fd in (w, both):
        guest.write(fd, b"before ")
    fork = Guest(state=guest.save())
    for writer, reader in ((w, r), (both, both)):
        fork.write(writer, b"after")
        assert fork.read(reader) == b"before after"
    fork.call("close", w)
    fork.write(extra, b"x")
    assert fork.read(r) == b"x"
    fork.call("close", extra)
    assert fork.read(r) == b""


def test_files_can_be_put_in(guest: Guest) -> None:
    guest.vfs.put_file(b"/home/user/in/put.txt", b"hello", 0o600)
    assert guest.slurp(b"/home/user/in/put.txt") == b"hello"
    assert guest.stat(b"/home/user/in/put.txt")[3:6] == (0o100600, 1000, 1000)  # type: ignore[index]
    guest.vfs.put_file(b"/home/user/in/put.txt", b"again")
    assert guest.slurp(b"/home/user/in/put.txt") == b"again"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (b"../x", "not a plain absolute path"), (b"x", "not a plain absolute path"), (b"", "not a plain absolute path"),
        (b"/a/../../x", "not a plain absolute path"), (b"/a\0b", "not a plain absolute path"), (b"/a//b", "plain"),
        (b"/a/.", "not a plain absolute path"), (b"/", "plain"), (b"/" + b"x" * 100_000, "longer than"),
        (b"/" + b"x" * 256, "longer than"), (b"/d" * 100, "deeper than"), (b"/proc/self/x", "no directory"),
        (b"/dev/null", "no directory"), (b"/etc/passwd/x", "no directory"), (b"/etc", "is no regular file"),
        (b"/lib/x", "a symbolic link"), (b"/etc/absolute", "is no regular file"),
    ],
)  # fmt: skip
def test_files_are_not_put_where_they_do_not_belong(guest: Guest, path: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guest.vfs.put_file(path, b"x")


def test_files_that_are_too_many_or_too_large_are_told() -> None:
    guest = Guest(limits=Limits(file_bytes=100_000, inodes=20))
    with pytest.raises(ValueError, match=r"too large|ENOSPC"):
        guest.vfs.put_file(b"/home/user/big", bytes(200_000))
    with pytest.raises(ValueError, match="ENOSPC"):
        for number in range(30):
            guest.vfs.put_file(b"/home/user/f%d" % number, b"")
