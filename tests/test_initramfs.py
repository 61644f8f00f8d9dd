"""cpio archives: what is written can be read back, is the same every time, and has nothing of this host in it."""

import io
import os
import stat
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvmm.image import Image, ImageWriter
from pyvmm.initramfs import ALIGNMENT, Archive


class Entry(NamedTuple):
    mode: int
    owner: tuple[int, int]
    device: tuple[int, int]
    data: bytes


def written(archive: Archive) -> bytes:
    stream = io.BytesIO()
    assert archive.write(stream) == len(stream.getvalue())
    return stream.getvalue()


def read(data: bytes) -> dict[str, Entry]:
    """The entries of an archive in their order, as init/initramfs.c reads them."""
    entries: dict[str, Entry] = {}
    place = 0
    while True:
        assert data[place : place + 6] == b"070701"
        fields = [int(data[place + 6 + 8 * n : place + 14 + 8 * n], 16) for n in range(13)]
        _, mode, uid, gid, _, mtime, size, _, _, major, minor, length, checksum = fields
        assert (mtime, checksum) == (0, 0)
        name = data[place + 110 : place + 110 + length - 1].decode()
        assert data[place + 110 + length - 1] == 0
        place += (110 + length + 3) & ~3
        content = data[place : place + size]
        place += (size + 3) & ~3
        if name == "TRAILER!!!":
            assert set(data[place:]) <= {0}
            return entries
        entries[name] = Entry(mode, (uid, gid), (major, minor), content)


_NAMES = st.text("abc.-_é", min_size=1, max_size=5).filter(lambda name: name not in (".", ".."))


@given(st.dictionaries(_NAMES, st.binary(max_size=70)))
def test_files_are_read_back(files):
    archive = Archive()
    for name, content in files.items():
        archive.add_file(f"/x/{name}", content)
    entries = read(written(archive))
    assert {name.removeprefix("x/"): entry.data for name, entry in entries.items() if name != "x"} == files


@given(st.permutations(["/b", "/a/c", "/a/b", "/d/e/f"]))
def test_the_order_in_which_entries_are_added_does_not_matter(paths):
    archive, other = Archive(), Archive()
    for path in paths:
        archive.add_file(path, path.encode())
    for path in sorted(paths):
        other.add_file(path, path.encode())
    assert written(archive) == written(other)


def test_folders_come_before_what_is_in_them():
    archive = Archive()
    archive.add_file("/usr/lib/x/y", b"")
    assert [*read(written(archive))] == ["usr", "usr/lib", "usr/lib/x", "usr/lib/x/y"]


def test_every_kind_of_entry_has_its_mode_and_contents():
    archive = Archive()
    archive.add_directory("/tmp", 0o1777)
    archive.add_symlink("/bin", "usr/bin")
    archive.add_device("/dev/console", 5, 1)
    archive.add_device("/dev/vda", 254, 0, block=True)
    archive.add_file("/init", b"#!/bin/sh\n", 0o755)
    entries = read(written(archive))
    assert entries["tmp"].mode == stat.S_IFDIR | 0o1777
    assert (entries["bin"].mode, entries["bin"].data) == (stat.S_IFLNK | 0o777, b"usr/bin")
    assert (entries["dev/console"].mode, entries["dev/console"].device) == (stat.S_IFCHR | 0o600, (5, 1))
    assert (entries["dev/vda"].mode, entries["dev/vda"].device) == (stat.S_IFBLK | 0o600, (254, 0))
    assert (entries["init"].mode, entries["init"].data) == (stat.S_IFREG | 0o755, b"#!/bin/sh\n")


def test_a_second_archive_may_follow():
    archive = Archive()
    archive.add_file("/a", b"12345")
    assert len(written(archive)) % ALIGNMENT == 0


def test_a_tree_is_taken_without_byte_code_and_with_links(tmp_path: Path):
    (tmp_path / "sub/__pycache__").mkdir(parents=True)
    (tmp_path / "sub/__pycache__/m.pyc").write_bytes(b"x")
    (tmp_path / "sub/m.py").write_text("1")
    (tmp_path / "run").write_text("#!")
    (tmp_path / "run").chmod(0o700)
    os.symlink("sub/m.py", tmp_path / "link")
    archive = Archive()
    archive.add_tree("/t", tmp_path)
    entries = read(written(archive))
    assert [*entries] == ["t", "t/link", "t/run", "t/sub", "t/sub/m.py"]
    assert (entries["t/link"].data, entries["t/run"].mode & 0o777) == (b"sub/m.py", 0o755)


def test_an_image_is_taken_whole_or_below_a_folder(tmp_path: Path):
    with ImageWriter(tmp_path) as writer:
        writer.file("/lib/a.so", b"library")
        writer.directory("/home/user", uid=1000, gid=1000)
        writer.symlink("/bin", "usr/bin")
        writer.finish()
    whole, part = Archive(), Archive()
    with Image.open(tmp_path) as image:
        whole.add_image(image)
        part.add_image(image, "/lib")
        entries = read(written(whole))
        assert [*read(written(part))] == ["lib", "lib/a.so"]
    assert [*entries] == ["bin", "home", "home/user", "lib", "lib/a.so"]
    assert (entries["lib/a.so"].data, entries["home/user"].owner) == (b"library", (1000, 1000))


def test_a_file_that_shrinks_meanwhile_is_an_error(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(bytes(100))
    archive = Archive()
    archive.add_file("/f", path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="became shorter"):
        archive.write(io.BytesIO())


@pytest.mark.parametrize("path", ["", "/", "a//b", "../a", "a/./b", "a/", "a\0b"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(ValueError, match="not a path"):
        Archive().add_file(path, b"")
