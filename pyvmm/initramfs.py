"""The archive that a Linux kernel unpacks into its first file system: cpio in the form "newc".

The same entries give the same bytes: no clock, owner or number of this host gets in. A kernel takes several archives
one after the other, later files replacing earlier ones, so what changes often can be an archive of its own behind a
big one that is kept.

Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst, init/initramfs.c.
"""

import os
import stat
from pathlib import Path
from typing import BinaryIO

import msgspec

from pyvmm.image import BLOB_NAME, Image

#: The length of an archive is a multiple of this, so that another may follow.
ALIGNMENT = 512
_TRAILER = b"TRAILER!!!"
_CHUNK = 1 << 20
_MAX_FILE = (1 << 32) - 1


class _Entry(msgspec.Struct):
    """``size`` bytes of ``source``, from ``offset`` on if it is a file."""

    mode: int
    size: int = 0
    source: bytes | Path = b""
    offset: int = 0
    device: tuple[int, int] = (0, 0)
    owner: tuple[int, int] = (0, 0)


class Archive:
    """Collects entries by their path; directories on the way are made as needed (mode 0755).

    Paths are absolute or not, the same either way; one with ``.``, ``..`` or an empty part is a :class:`ValueError`. An
    entry that is added again replaces the first.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}

    def __repr__(self) -> str:
        return f"<Archive entries={len(self._entries)}>"

    def __contains__(self, path: str) -> bool:
        return _name(path) in self._entries

    def add_directory(self, path: str, mode: int = 0o755) -> None:
        """A directory, or another mode for one that is there."""
        self._add(path, _Entry(stat.S_IFDIR | mode))

    def add_file(self, path: str, data: bytes | Path, mode: int = 0o644) -> None:
        """A regular file, with the contents of ``data`` if that is a path (read when the archive is written)."""
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        self._add(path, _Entry(stat.S_IFREG | mode, size, data))

    def add_symlink(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._add(path, _Entry(stat.S_IFLNK | 0o777, len(os.fsencode(target)), os.fsencode(target)))

    def add_device(self, path: str, major: int, minor: int, mode: int = 0o600, *, block: bool = False) -> None:
        """A character device, or a block device."""
        self._add(path, _Entry((stat.S_IFBLK if block else stat.S_IFCHR) | mode, device=(major, minor)))

    def add_tree(self, path: str, folder: Path) -> None:
        """All directories, files and links below a folder; files are executable as they are there.

        Byte code that the host's Python keeps (``__pycache__``) stays out.
        """
        self.add_directory(path)
        for parent, folders, files in os.walk(folder):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            inside = f"{path}/{os.path.relpath(parent, folder)}".removesuffix("/.")
            for name in [*folders, *sorted(files)]:
                source = Path(parent) / name
                if source.is_symlink():
                    self.add_symlink(f"{inside}/{name}", os.readlink(source))
                elif source.is_dir():
                    self.add_directory(f"{inside}/{name}")
                elif source.is_file():
                    self.add_file(f"{inside}/{name}", source, 0o755 if os.access(source, os.X_OK) else 0o644)

    def add_image(self, image: Image, below: str = "") -> None:
        """What is in the image of a template, all of it or what lies below a folder."""
        for path, inode in image.walk():
            if path == "/" or not path.startswith(f"{below}/"):
                continue
            entry = _Entry(inode.mode, owner=(inode.uid, inode.gid))
            if inode.target is not None:
                entry.size, entry.source = len(inode.target), inode.target
            elif inode.children is None:
                entry.size, entry.source, entry.offset = inode.size, image.folder / BLOB_NAME, inode.offset
            self._add(path, entry)

    def write(self, stream: BinaryIO) -> int:
        """Write the archive, parents before what is in them; its length in bytes."""
        length = 0
        for number, (name, entry) in enumerate(sorted(self._entries.items()), start=1):
            length += _write_header(stream, name, number, entry)
            length += _write_contents(stream, entry)
        length += _write_header(stream, _TRAILER, 0, _Entry(0))
        padding = -length % ALIGNMENT
        stream.write(bytes(padding))
        return length + padding

    def _add(self, path: str, entry: _Entry) -> None:
        name = _name(path)
        if entry.size > _MAX_FILE:
            raise ValueError(f"{path} has {entry.size} bytes: cpio holds files of less than 4 GiB")
        parent = name.rpartition(b"/")[0]
        while parent and parent not in self._entries:
            self._entries[parent] = _Entry(stat.S_IFDIR | 0o755)
            parent = parent.rpartition(b"/")[0]
        self._entries[name] = entry


def _name(path: str) -> bytes:
    name = os.fsencode(path).removeprefix(b"/")
    if any(part in (b"", b".", b"..") for part in name.split(b"/")) or b"\0" in name:
        raise ValueError(f"not a path for an archive: {path!r}")
    return name


def _write_header(stream: BinaryIO, name: bytes, number: int, entry: _Entry) -> int:
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        number, entry.mode, *entry.owner, links, 0, entry.size, 0, 0, *entry.device, len(name) + 1, 0,
    )  # fmt: skip
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    header += bytes(-len(header) % 4)
    stream.write(header)
    return len(header)


def _write_contents(stream: BinaryIO, entry: _Entry) -> int:
    if isinstance(entry.source, bytes):
        stream.write(entry.source)
    else:
        with entry.source.open("rb") as file:
            file.seek(entry.offset)
            written = _copy(file, stream, entry.size)
        if written != entry.size:
            raise ValueError(f"{entry.source} became shorter while it was written to an archive")
    padding = -entry.size % 4
    stream.write(bytes(padding))
    return entry.size + padding


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> int:
    left = size
    while left and (data := source.read(min(left, _CHUNK))):
        target.write(data)
        left -= len(data)
    return size - left
