"""The image format: what goes in comes out, and damage is told."""

import stat
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvmm.errors import SnapshotError
from pyvmm.image import BLOB_NAME, INDEX_NAME, VERSION, Image, ImageWriter

NAMES = st.binary(min_size=1, max_size=8).filter(lambda name: b"/" not in name and b"\0" not in name).map(bytes)


def write_sample(folder: Path) -> None:
    with ImageWriter(folder) as writer:
        writer.file("/bin/hello", b"\x7fELF" + bytes(5000), 0o755, 42)
        writer.file("/empty", b"")
        writer.symlink("/lib64", "usr/lib")
        writer.symlink("/loop", "/loop")
        writer.file("/usr/lib/x.so", b"x" * 10)
        writer.directory("/tmp", 0o1777)
        writer.directory("/home/user", 0o750, uid=1000, gid=1000)
        writer.finish()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sample(tmp_path)
    return tmp_path


def test_round_trip(folder: Path) -> None:
    with Image.open(folder) as image:
        root = image.inodes[0]
        hello = image.lookup("/bin/hello")
        assert hello is not None
        assert [inode.ino for inode in image.inodes] == list(range(1, len(image.inodes) + 1))
        assert sorted(root.children or {}) == [b"bin", b"empty", b"home", b"lib64", b"loop", b"tmp", b"usr"]
        assert (root.nlink, hello.nlink) == (6, 1)
        assert (stat.S_ISREG(hello.mode), stat.S_IMODE(hello.mode)) == (True, 0o755)
        assert (hello.size, hello.mtime_ns) == (5004, 42)
        assert image.read(hello, 2, 4) == b"LF\0\0"
        assert image.read(hello, 5000, 1 << 62) == bytes(4)
        assert image.read(hello, 5004, 10) == b""
        assert image.read(hello, 1 << 62, 10) == b""


def test_links_modes_and_owners(folder: Path) -> None:
    with Image.open(folder) as image:
        inodes = dict(image.walk())
        assert inodes["/lib64"].target == b"usr/lib"
        assert inodes["/lib64"].size == len(b"usr/lib")
        assert image.lookup("/lib64/../lib/./x.so") is inodes["/usr/lib/x.so"]
        assert image.lookup("/loop") is None
        assert image.lookup("/bin/nothing") is None
        assert stat.S_IMODE(inodes["/tmp"].mode) == 0o1777
        assert (inodes["/home/user"].uid, inodes["/home"].uid) == (1000, 0)


def test_order_does_not_matter(tmp_path: Path) -> None:
    for folder, paths in ((tmp_path / "a", "abc"), (tmp_path / "b", "cba")):
        with ImageWriter(folder) as writer:
            for path in paths:
                writer.file(f"/{path}", path.encode())
            writer.finish()
    for name in (INDEX_NAME, BLOB_NAME):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=64), max_size=20))
def test_any_names_and_contents(tmp_path_factory: pytest.TempPathFactory, files: dict[bytes, bytes]) -> None:
    files = {name: content for name, content in files.items() if name not in (b".", b"..")}
    folder = tmp_path_factory.mktemp("image")
    with ImageWriter(folder) as writer:
        for name, content in files.items():
            writer.file("/d/" + name.decode("utf-8", "surrogateescape"), content)
        writer.finish()
    with Image.open(folder) as image:
        found = image.lookup("/d")
        children = found.children if found and found.children else {}
        assert {name: image.read(image.inodes[n - 1], 0, 100) for name, n in children.items()} == files


@pytest.mark.parametrize("path", ["", "a", "/a/../b", "/a//b", "/a/", "/./a", "/a\0b"])
def test_odd_paths_are_refused(tmp_path: Path, path: str) -> None:
    with ImageWriter(tmp_path) as writer, pytest.raises(ValueError, match="not a plain absolute path"):
        writer.file(path, b"")


def test_a_path_twice_is_refused(tmp_path: Path) -> None:
    with ImageWriter(tmp_path) as writer:
        writer.file("/a", b"")
        with pytest.raises(ValueError, match="given twice"):
            writer.file("/a", b"")
        with pytest.raises(ValueError, match="is no directory"):
            writer.file("/a/b", b"")


def test_nothing_is_written_without_finish(tmp_path: Path) -> None:
    with ImageWriter(tmp_path) as writer:
        writer.file("/a", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with ImageWriter(tmp_path / "out") as writer:
        writer.file("/a", tmp_path / "missing")
        with pytest.raises(FileNotFoundError):
            writer.finish()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", [INDEX_NAME, BLOB_NAME])
def test_every_flipped_byte_is_noticed(folder: Path, name: str) -> None:
    path = folder / name
    data = path.read_bytes()
    step = max(1, len(data) // 200)
    for position in range(0, len(data), step):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1 :])
        with pytest.raises(SnapshotError, match=r"damaged|not an image|format version"):
            Image.open(folder)


@pytest.mark.parametrize("name", [INDEX_NAME, BLOB_NAME])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"", lambda data: data + b"\0"])
def test_other_lengths_are_noticed_without_verifying(folder: Path, name: str, change: object) -> None:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(SnapshotError, match="damaged"):
        Image.open(folder, verify=False)


def test_another_version_is_told(folder: Path) -> None:
    path = folder / INDEX_NAME
    data = bytearray(path.read_bytes())
    data[8] = VERSION + 1
    path.write_bytes(data)
    with pytest.raises(SnapshotError, match=f"format version {VERSION + 1}, this pyvmm reads {VERSION}"):
        Image.open(folder)


@pytest.mark.parametrize("name", [INDEX_NAME, BLOB_NAME])
def test_a_missing_file_is_told(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(SnapshotError, match="No such file"):
        Image.open(folder)


def test_truncation_while_open_is_an_error_not_a_signal(folder: Path) -> None:
    with Image.open(folder) as image:
        hello = image.lookup("/bin/hello")
        assert hello is not None
        (folder / BLOB_NAME).write_bytes(b"short")
        with pytest.raises(SnapshotError, match="truncated while in use"):
            image.read(hello, 0, 5004)


def test_closing_twice_is_fine(folder: Path) -> None:
    image = Image.open(folder)
    image.close()
    image.close()
    assert "closed" in repr(image)


def test_a_large_index_loads_quickly(tmp_path: Path) -> None:
    with ImageWriter(tmp_path) as writer:
        for number in range(8000):
            writer.file(f"/usr/lib/python/{number % 97}/module{number}.py", b"x")
        writer.finish()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        Image.open(tmp_path).close()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.060


def test_inodes_cannot_be_changed(folder: Path) -> None:
    with Image.open(folder) as image, pytest.raises(AttributeError):
        image.inodes[0].size = 1  # type: ignore[misc]
    assert msgspec.structs.fields(type(image.inodes[0]))[-1].name == "gid"
