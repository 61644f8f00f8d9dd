"""What a guest's files may take, and what comes back."""

import struct
import tracemalloc
from errno import EFBIG, EINVAL, ENOMEM, ENOSPC

import pytest

from pyvmm.linux.limits import Limits
from pyvmm.linux.vfs.content import CHUNK
from pyvmm.linux.vfs.nodes import RegularInode
from pyvmm.linux.vfs.quota import INODE_COST
from tests.linux.vfs_guest import Guest

O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_DIRECTORY = 1, 2, 0o100, 0o1000, 0o200000


@pytest.fixture
def guest() -> Guest:
    return Guest()


def test_writing_until_full_ends_in_enospc_and_room_comes_back() -> None:
    guest = Guest(limits=Limits(file_bytes=2 << 20, inodes=100))
    fd = guest.open(b"/tmp/a", O_CREAT | O_RDWR)
    total = 0
    while (done := guest.write(fd, b"I love beans\n" * 5000)) > 0:
        total += done
    assert done == -ENOSPC
    assert (2 << 20) - (2 * CHUNK) < total <= 2 << 20
    guest.call("close", fd)
    assert guest.open(b"/tmp/more", O_CREAT | O_WRONLY) > 0
    guest.call("unlink", b"/tmp/a")
    guest.spill(b"/tmp/b", bytes(1 << 20))
    guest.call("unlink", b"/tmp/b")
    guest.call("unlink", b"/tmp/more")
    assert guest.vfs.bytes_used == 0 or guest.call("close", 3) == 0


def test_a_full_file_system_keeps_what_is_there() -> None:
    guest = Guest(limits=Limits(file_bytes=1 << 20, inodes=100))
    guest.spill(b"/tmp/keep", b"x" * 1000)
    fd = guest.open(b"/tmp/a", O_CREAT | O_RDWR)
    while guest.write(fd, bytes(50000)) > 0:
        pass
    assert guest.slurp(b"/tmp/keep") == b"x" * 1000
    assert guest.call("rename", b"/tmp/keep", b"/tmp/a") == 0
    assert guest.slurp(b"/tmp/a") == b"x" * 1000


def test_empty_files_end_in_enospc() -> None:
    guest = Guest(limits=Limits(file_bytes=1 << 20, inodes=50))
    results = [guest.call("mknod", b"/tmp/f%d" % number, 0o100644, 0) for number in range(60)]
    assert results == [0] * 50 + [-ENOSPC] * 10
    assert guest.call("unlink", b"/tmp/f0") == 0
    assert guest.call("mkdir", b"/tmp/d", 0o755) == 0
    assert guest.call("symlink", b"x", b"/tmp/l") == -ENOSPC


def test_names_and_targets_count_too() -> None:
    guest = Guest(limits=Limits(file_bytes=200_000, inodes=1000))
    guest.spill(b"/tmp/a", b"")
    results = {guest.call("link", b"/tmp/a", b"/tmp/" + b"%0250d" % number) for number in range(2000)}
    assert results == {0, -ENOSPC}
    before = guest.vfs.bytes_used
    for name in guest.names(b"/tmp"):
        if len(name) == 250:
            guest.call("unlink", b"/tmp/" + name)
    assert guest.vfs.bytes_used < INODE_COST + 1000 < before
    results = {guest.call("symlink", b"t" * 4000, b"/tmp/l%d" % number) for number in range(100)}
    assert results == {0, -ENOSPC}


def test_single_bytes_far_apart_cost_whole_blocks() -> None:
    guest = Guest(limits=Limits(file_bytes=1 << 20, inodes=100))
    fd = guest.open(b"/tmp/a", O_CREAT | O_RDWR)
    results = [guest.call("pwrite64", fd, guest.place(b"x"), 1, number << 30) for number in range(300)]
    assert 200 < results.count(1) < 257
    assert results[-1] == -ENOSPC


def test_extended_attributes_are_counted_and_limited(guest: Guest) -> None:
    used = guest.vfs.bytes_used
    guest.spill(b"/tmp/f", b"")
    results = [guest.call("setxattr", b"/tmp/f", b"user.%d" % n, bytes(60_000), 60_000, 0) for n in range(4)]
    assert results == [0, 0, -ENOSPC, -ENOSPC]
    assert guest.vfs.bytes_used - used > 120_000
    guest.call("unlink", b"/tmp/f")
    assert guest.vfs.bytes_used == used


def test_huge_sizes_allocate_nothing(guest: Guest) -> None:
    fd = guest.open(b"/tmp/a", O_CREAT | O_RDWR)
    zero = guest.open(b"/dev/zero")
    tracemalloc.start()
    try:
        assert guest.call("ftruncate", fd, 1 << 60) == 0
        assert guest.call("pread64", fd, guest.buffer, 1 << 40, 1 << 59) > 0
        assert guest.call("pread64", fd, guest.buffer, 100, (1 << 60) - 10) == 10
        assert guest.call("read", zero, guest.buffer, 0x7FFFFFFF) > 0
        assert guest.call("fallocate", fd, 0, 0, 1 << 59) == -ENOSPC
        assert guest.call("lseek", fd, 0, 3) < 0
        assert guest.call("lseek", fd, 5, 4) == 5
        assert guest.call("ftruncate", fd, 0) == 0
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_the_largest_offset_is_the_last(guest: Guest) -> None:
    fd = guest.open(b"/tmp/a", O_CREAT | O_RDWR)
    last = (1 << 63) - 1
    assert guest.call("pwrite64", fd, guest.place(b"ab"), 2, last) == -EFBIG
    assert guest.call("pwrite64", fd, guest.place(b"ab"), 2, last - 1) == 1
    assert guest.stat(b"/tmp/a")[7] == last  # type: ignore[index]
    assert guest.call("fallocate", fd, 0, last, 5) == -EFBIG
    assert guest.call("lseek", fd, last, 0) == last
    assert guest.call("lseek", fd, 1, 1) == -EINVAL


def test_making_and_removing_for_ever_keeps_nothing(guest: Guest) -> None:
    for _ in range(3000):
        guest.call("mknod", b"/tmp/f", 0o100644, 0)
        guest.call("unlink", b"/tmp/f")
    store = guest.vfs.store
    assert len(store._live) < 20
    assert not store._forgotten
    assert (store.quota.bytes_used, store.quota.inodes_used) == (0, 0)


def test_a_file_without_names_lives_while_it_is_open(guest: Guest) -> None:
    fd = guest.open(b"/tmp/a", O_CREAT | O_RDWR)
    guest.write(fd, b"x" * 5000)
    other = guest.call("dup", fd)
    guest.call("unlink", b"/tmp/a")
    guest.call("close", fd)
    assert guest.call("pread64", other, guest.buffer, 10, 0) == 10
    assert guest.vfs.bytes_used == 8192 + INODE_COST
    guest.call("close", other)
    assert guest.vfs.bytes_used == 0


def test_a_file_without_names_lives_while_it_is_mapped(guest: Guest) -> None:
    guest.spill(b"/tmp/a", b"mapped")
    inode = guest.vfs.find(b"/tmp/a")
    assert inode is not None
    guest.vfs.hold(inode.ino)
    guest.call("unlink", b"/tmp/a")
    assert guest.vfs.inode(inode.ino).read_at(0, 10) == b"mapped"
    guest.vfs.drop(inode.ino)
    assert guest.vfs.bytes_used == 0


def test_reading_and_writing_go_through_shared_pages(guest: Guest) -> None:
    frames = bytearray(8 << 12)
    guest.vfs.store.frame_view = lambda frame: memoryview(frames)[frame << 12 : (frame + 1) << 12]
    guest.spill(b"/tmp/a", b"a" * 4096 + b"b" * 100)
    inode = guest.vfs.find(b"/tmp/a")
    assert isinstance(inode, RegularInode)
    inode.share_page(1, 3)
    assert (inode.shared_frame(0), inode.shared_frame(1)) == (None, 3)
    assert frames[3 << 12 : (3 << 12) + 101] == b"b" * 100 + b"\0"
    frames[3 << 12] = ord("Z")
    assert guest.slurp(b"/tmp/a")[4094:4098] == b"aaZb"
    fd = guest.open(b"/tmp/a", O_RDWR)
    guest.call("pwrite64", fd, guest.place(b"12345"), 5, 4094)
    assert frames[3 << 12 : (3 << 12) + 4] == b"345b"
    guest.call("ftruncate", fd, 4098)
    guest.call("ftruncate", fd, 4100)
    assert frames[3 << 12 : (3 << 12) + 4] == b"34\0\0"
    frames[(3 << 12) + 1] = ord("!")
    assert inode.unshare_pages() == [3]
    assert guest.slurp(b"/tmp/a")[4094:] == b"123!\0\0"


def test_a_pipe_says_that_there_is_no_memory_instead_of_waiting_for_it() -> None:
    guest = Guest(limits=Limits(file_bytes=64 << 10, inodes=100))
    assert guest.call("pipe2", guest.buffer, 0) == 0
    _, writer = struct.unpack("<ii", guest.peek(guest.buffer, 8))
    guest.vfs.store.quota.take(guest.vfs.store.quota.bytes_free - 100)
    assert guest.write(writer, b"x" * 100) == 100
    assert guest.write(writer, b"x" * 100) == -ENOMEM
    assert guest.write(writer, b"x" * 10_000) == -ENOMEM
