"""The file tree of a guest: image, writable layer, names, directories."""

from errno import EACCES, EMLINK, ENAMETOOLONG, ENOENT, EXDEV
from pathlib import Path

import pytest

from pyvmm.image import Image
from pyvmm.linux.vfs.content import CHUNK
from pyvmm.linux.vfs.nodes import LINK_MAX
from tests.linux.vfs_guest import Guest

O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_DIRECTORY = 1, 2, 0o100, 0o1000, 0o200000


@pytest.fixture
def guest() -> Guest:
    return Guest()


def test_the_image_is_read_through(guest: Guest) -> None:
    assert guest.slurp(b"/lib/big") == bytes(range(256)) * 1024
    assert guest.slurp(b"/etc/absolute").startswith(b"root:")
    assert guest.stat(b"/bin/program")[3:6] == (0o100755, 0, 0)  # type: ignore[index]


def test_an_image_file_that_is_changed_keeps_the_rest_of_its_bytes(guest: Guest) -> None:
    guest.creds.fsuid = 0
    fd = guest.open(b"/usr/lib/big", O_RDWR)
    guest.call("pwrite64", fd, guest.place(b"XYZ"), 3, CHUNK - 1)
    guest.call("pwrite64", fd, guest.place(b"end"), 3, 4 * CHUNK + 5)
    expected = bytearray(bytes(range(256)) * 1024 + bytes(8))
    expected[CHUNK - 1 : CHUNK + 2] = b"XYZ"
    expected[4 * CHUNK + 5 :] = b"end"
    assert guest.slurp(b"/lib/big") == expected
    assert Guest().slurp(b"/lib/big") == bytes(range(256)) * 1024


def test_an_image_file_that_was_cut_off_does_not_come_back(guest: Guest) -> None:
    guest.creds.fsuid = 0
    assert guest.call("truncate", b"/usr/lib/big", 10) == 0
    assert guest.call("truncate", b"/usr/lib/big", 20) == 0
    assert guest.slurp(b"/usr/lib/big") == bytes(range(10)) + bytes(10)


def test_names_of_the_image_can_be_removed_and_moved(guest: Guest) -> None:
    guest.creds.fsuid = 0
    assert guest.call("unlink", b"/etc/passwd") == 0
    assert guest.call("rename", b"/usr/share/many", b"/usr/share/few") == 0
    assert guest.open(b"/etc/passwd") == -ENOENT
    assert guest.slurp(b"/usr/share/few/file7") == b"7"
    assert Guest().slurp(b"/usr/share/many/file7") == b"7"


def test_forks_of_one_image_do_not_see_each_other() -> None:
    first, second = Guest(), Guest()
    first.spill(b"/tmp/secret", b"of the first")
    first.call("mkdir", b"/home/user/d", 0o755)
    assert second.open(b"/tmp/secret") == -ENOENT
    assert second.names(b"/home/user") == [b".", b".."]
    for folder in (b"/tmp", b"/var/tmp", b"/dev/shm"):
        first.spill(folder + b"/x", b"x")
        assert second.open(folder + b"/x") == -ENOENT


def test_inode_numbers_are_stable_and_devices_distinct(guest: Guest) -> None:
    guest.spill(b"/tmp/a", b"")
    paths = (b"/", b"/tmp/a", b"/etc/passwd", b"/dev/null", b"/proc/self/stat", b"/sys", b"/dev/shm")
    first = [guest.stat(path)[:2] for path in paths]  # type: ignore[index]
    assert first == [guest.stat(path)[:2] for path in paths]  # type: ignore[index]
    assert all(ino for _, ino in first)
    assert len({dev for dev, _ in first}) == 5


def test_mount_points_cannot_be_removed_or_crossed(guest: Guest) -> None:
    guest.creds.fsuid = 0
    guest.spill(b"/tmp/a", b"x")
    assert guest.call("rename", b"/tmp/a", b"/dev/shm/a") == -EXDEV
    assert guest.call("link", b"/tmp/a", b"/dev/shm/a") == -EXDEV
    assert guest.call("rmdir", b"/proc") < 0
    assert guest.call("rename", b"/proc", b"/old") < 0
    assert guest.names(b"/dev/..") == guest.names(b"/")


def test_the_parent_of_the_root_is_the_root(guest: Guest) -> None:
    for path in (b"/../../../../etc/secret", b"/proc/self/root/../../etc/secret", b"/proc/300/root/../etc/secret"):
        assert guest.open(path) == -EACCES
    assert guest.open(b"/proc/1/root") == -ENOENT
    assert guest.open(b"/../" * 200 + b"etc/shadow") == -ENOENT


def test_an_image_without_mount_points_gets_them(tmp_path: Path) -> None:
    from pyvmm.image import ImageWriter

    with ImageWriter(tmp_path) as writer:
        writer.file("/only", b"this")
        writer.finish()
    with Image.open(tmp_path) as image:
        guest = Guest(image)
        assert guest.names(b"/") == [b".", b"..", b"dev", b"only", b"proc", b"sys"]
        assert guest.slurp(b"/proc/self/comm") == b"program\n"
        assert Guest(image, state=guest.save()).names(b"/") == guest.names(b"/")


@pytest.mark.parametrize(
    "name", [b"\xff", b"a\nb", b"\xe2\x80\xae", b"x" * 255, "e\u0301".encode(), b"...", b" ", b"\x01"], ids=repr
)
def test_names_keep_their_bytes(guest: Guest, name: bytes) -> None:
    guest.spill(b"/tmp/" + name, b"x")
    assert guest.names(b"/tmp") == sorted([b".", b"..", name])


def test_names_and_paths_have_limits(guest: Guest) -> None:
    assert guest.open(b"/tmp/" + b"x" * 256, O_CREAT | O_WRONLY) == -ENAMETOOLONG
    assert guest.open(b"/tmp/" + b"./" * 2100, 0) == -ENAMETOOLONG
    assert guest.call("symlink", b"x" * 4096, b"/tmp/l") == -ENAMETOOLONG
    assert guest.call("symlink", b"x" * 4095, b"/tmp/l") == 0


def test_deep_trees_work_from_within(guest: Guest) -> None:
    guest.call("chdir", b"/tmp")
    for _ in range(900):
        assert guest.call("mkdir", b"d", 0o755) == 0
        assert guest.call("chdir", b"d") == 0
    assert guest.call("getcwd", guest.buffer, 4096) == len(b"/tmp" + b"/d" * 900) + 1


def test_a_file_has_a_limit_of_names(guest: Guest) -> None:
    guest.spill(b"/tmp/a", b"")
    inode = guest.vfs.find(b"/tmp/a")
    assert inode is not None
    inode.nlink = LINK_MAX
    assert guest.call("link", b"/tmp/a", b"/tmp/b") == -EMLINK


def test_reading_a_directory_goes_on_where_it_stopped(guest: Guest) -> None:
    fd = guest.open(b"/usr/share/many", O_DIRECTORY)
    entries = guest.entries(fd, 300)
    assert sorted(name for name, *_ in entries) == guest.names(b"/usr/share/many")
    middle = entries[100][3]
    guest.call("lseek", fd, middle, 0)
    assert guest.entries(fd, 300) == entries[101:]


@pytest.mark.parametrize("folder", [b"/usr/share/many", b"/tmp"])
def test_a_directory_can_be_changed_while_it_is_read(guest: Guest, folder: bytes) -> None:
    guest.creds.fsuid = 0
    if folder == b"/tmp":
        for number in range(300):
            guest.spill(b"/tmp/file%d" % number, b"")
    fd = guest.open(folder, O_DIRECTORY)
    seen: list[bytes] = []
    while count := guest.call("getdents64", fd, guest.buffer, 400):
        assert count > 0
        data = guest.peek(guest.buffer, count)
        at = 0
        while at < count:
            length = int.from_bytes(data[at + 16 : at + 18], "little")
            name = data[at + 19 : at + length].split(b"\0")[0]
            at += length
            if name.startswith(b"file"):
                seen.append(name)
                assert guest.call("unlink", folder + b"/" + name) == 0
                if len(seen) < 50:
                    guest.spill(folder + b"/new%d" % len(seen), b"")
    assert sorted(seen) == sorted(b"file%d" % number for number in range(300))


def test_link_counts_of_directories(guest: Guest) -> None:
    for path in (b"/tmp/a", b"/tmp/a/b", b"/tmp/a/c"):
        guest.call("mkdir", path, 0o755)
    links = lambda path: guest.stat(path)[2]  # type: ignore[index]  # noqa: E731
    assert (links(b"/tmp/a"), links(b"/tmp/a/b")) == (4, 2)
    guest.call("rename", b"/tmp/a/b", b"/tmp/b")
    assert (links(b"/tmp/a"), links(b"/tmp")) == (3, 4)
    guest.call("rmdir", b"/tmp/a/c")
    assert links(b"/tmp/a") == 2


def test_a_directory_that_is_a_group_directory_gives_its_group(guest: Guest) -> None:
    guest.creds.groups = (1000, 50)
    guest.call("mkdir", b"/tmp/g", 0o755)
    guest.call("chown", b"/tmp/g", -1, 50)
    guest.call("chmod", b"/tmp/g", 0o2775)
    guest.spill(b"/tmp/g/f", b"")
    guest.call("mkdir", b"/tmp/g/d", 0o755)
    assert guest.stat(b"/tmp/g/f")[5] == 50  # type: ignore[index]
    assert guest.stat(b"/tmp/g/d")[3:6] == (0o042755, 1000, 50)  # type: ignore[index]
