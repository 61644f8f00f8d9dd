"""The read-only file system of a template: a folder with an index and a blob.

::

    image.index   header (little-endian): magic "PYVMMIMG", version u32, payload length u64, SHA-256 of the payload
                  payload (MessagePack): [blob size, SHA-256 of the blob, [inode, ...]]
    image.blob    the contents of all files, one after the other, in the order of their paths

An inode's place in the list is its number minus one; inode 1 is the root directory. The bytes depend only on what was
put in, not on the order, the clock or the place, so equal images are equal files.
"""

import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from pyvmm.errors import SnapshotError

MAGIC = b"PYVMMIMG"
VERSION = 1
INDEX_NAME = "image.index"
BLOB_NAME = "image.blob"

DEFAULT_MTIME_NS = 1_577_836_800 * 10**9
"""The modification time of everything that has no better one: 2020-01-01T00:00:00Z."""

_HEADER = struct.Struct("<8sIQ32s")
_CHUNK = 1 << 20
_SYMLINKS_LIMIT = 40


class ImageInode(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file, directory or symbolic link; ``mode`` holds the type (``S_IFREG``, ``S_IFDIR``, ``S_IFLNK``) and the
    permissions.

    ``children`` (names to inode numbers, without ``.`` and ``..``) is ``None`` but for directories, ``target`` is
    ``None`` but for symbolic links. ``offset`` counts bytes from the start of the blob.
    """

    ino: int
    mode: int
    size: int
    mtime_ns: int
    nlink: int
    offset: int
    children: dict[bytes, int] | None
    target: bytes | None
    uid: int = 0
    gid: int = 0


class _Index(msgspec.Struct, array_like=True):
    blob_size: int
    blob_sha256: bytes
    inodes: list[ImageInode]


class _Entry(msgspec.Struct):
    """What the writer knows of a path; ``content`` is the source of a file or the target of a link."""

    mode: int
    mtime_ns: int
    uid: int
    gid: int
    content: Path | bytes = b""


class ImageWriter:
    """Collects paths and writes the image when :meth:`finish` is called; without that, nothing is written.

    Paths are absolute and have no ``.``, ``..`` or empty parts (:class:`ValueError`). Directories on the way are made
    as needed (mode 0755, root). A path given twice is a :class:`ValueError`, but for directories, where the last word
    counts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries: dict[bytes, _Entry] = {}
        self.directory("/")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entries.clear()

    def __repr__(self) -> str:
        return f"<ImageWriter {str(self.folder)!r} entries={len(self._entries)}>"

    def __contains__(self, path: str) -> bool:
        return os.fsencode(path) in self._entries

    def directory(self, path: str, mode: int = 0o755, *, uid: int = 0, gid: int = 0) -> None:
        """Adds a directory, or gives one that is there another mode and owner."""
        self._add(path, _Entry(stat.S_IFDIR | mode, DEFAULT_MTIME_NS, uid, gid))

    def file(
        self,
        path: str,
        source: Path | bytes,
        mode: int = 0o644,
        mtime_ns: int = DEFAULT_MTIME_NS,
        *,
        uid: int = 0,
        gid: int = 0,
    ) -> None:
        """Adds a regular file; a ``source`` that is a path is read when the image is written."""
        self._add(path, _Entry(stat.S_IFREG | mode, mtime_ns, uid, gid, source))

    def symlink(self, path: str, target: str) -> None:
        """Adds a symbolic link, whose target need not exist."""
        self._add(path, _Entry(stat.S_IFLNK | 0o777, DEFAULT_MTIME_NS, 0, 0, os.fsencode(target)))

    def finish(self) -> None:
        """Writes blob and index, each under its final name only when complete and on disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        blob, index = self.folder / BLOB_NAME, self.folder / INDEX_NAME
        partial_blob, partial_index = blob.with_suffix(".blob.part"), index.with_suffix(".index.part")
        try:
            payload = self._write_blob(partial_blob)
            header = _HEADER.pack(MAGIC, VERSION, len(payload), hashlib.sha256(payload).digest())
            with partial_index.open("wb") as file:
                file.write(header + payload)
                file.flush()
                os.fsync(file.fileno())
            partial_blob.replace(blob)
            partial_index.replace(index)
        finally:
            partial_blob.unlink(missing_ok=True)
            partial_index.unlink(missing_ok=True)

    def _add(self, path: str, entry: _Entry) -> None:
        name = os.fsencode(path)
        parts = name.split(b"/")[1:] if name != b"/" else []
        if not name.startswith(b"/") or any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
            raise ValueError(f"not a plain absolute path: {path!r}")
        known = self._entries.get(name)
        if known is not None and not (stat.S_ISDIR(known.mode) and stat.S_ISDIR(entry.mode)):
            raise ValueError(f"given twice: {path!r}")
        for depth in range(1, len(parts)):
            parent = b"/" + b"/".join(parts[:depth])
            above = self._entries.setdefault(parent, _Entry(stat.S_IFDIR | 0o755, DEFAULT_MTIME_NS, 0, 0))
            if not stat.S_ISDIR(above.mode):
                raise ValueError(f"{os.fsdecode(parent)!r} is no directory, so {path!r} cannot be in it")
        self._entries[name] = entry

    def _write_blob(self, path: Path) -> bytes:
        """Writes all contents, and gives the payload of the index that describes them."""
        paths = sorted(self._entries, key=lambda name: name.split(b"/") if name != b"/" else [])
        numbers = {name: number for number, name in enumerate(paths, start=1)}
        children: dict[bytes, dict[bytes, int]] = {name: {} for name in paths if stat.S_ISDIR(self._entries[name].mode)}
        for name in paths[1:]:
            parent, _, last = name.rpartition(b"/")
            children[parent or b"/"][last] = numbers[name]
        directories = {
            name: 2 + sum(1 for number in below.values() if paths[number - 1] in children)
            for name, below in children.items()
        }
        digest, offset, inodes = hashlib.sha256(), 0, []
        with path.open("wb") as blob:
            for name in paths:
                entry = self._entries[name]
                size = 0
                if stat.S_ISREG(entry.mode):
                    for chunk in _chunks(entry.content):
                        blob.write(chunk)
                        digest.update(chunk)
                        size += len(chunk)
                link = entry.content if stat.S_ISLNK(entry.mode) and isinstance(entry.content, bytes) else None
                inodes.append(
                    ImageInode(
                        ino=numbers[name],
                        mode=entry.mode,
                        size=len(link) if link is not None else size,
                        mtime_ns=entry.mtime_ns,
                        nlink=directories.get(name, 1),
                        offset=offset if size else 0,
                        children=children.get(name),
                        target=link,
                        uid=entry.uid,
                        gid=entry.gid,
                    )
                )
                offset += size
            blob.flush()
            os.fsync(blob.fileno())
        return msgspec.msgpack.encode(_Index(offset, digest.digest(), inodes))


def _chunks(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


class Image:
    """An image opened for reading; immutable, so all forks may share it.

    Contents are read with ``pread``, never mapped: a blob that somebody truncates then gives a
    :class:`SnapshotError`, where a mapping would kill the process with SIGBUS.
    """

    def __init__(self, folder: Path, descriptor: int, index: _Index) -> None:
        self.folder = folder
        self.inodes = index.inodes
        self.blob_size = index.blob_size
        self.digest = index.blob_sha256
        self._descriptor = descriptor

    @classmethod
    def open(cls, folder: Path, verify: bool = True) -> "Image":
        """Opens the image in ``folder``; ``verify`` reads the whole blob once and compares its checksum.

        Raises :class:`SnapshotError` for an image that is missing, truncated, altered or of another format version.
        """
        index = _load_index(folder / INDEX_NAME)
        blob = folder / BLOB_NAME
        try:
            descriptor = os.open(blob, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SnapshotError(f"cannot open the image: {blob}: {error.strerror}") from error
        try:
            size = os.fstat(descriptor).st_size
            if size != index.blob_size:
                raise SnapshotError(f"the image is damaged: {blob} has {size} bytes, not {index.blob_size}")
            if verify and _digest(descriptor) != index.blob_sha256:
                raise SnapshotError(f"the image is damaged: the checksum of {blob} is wrong")
            return cls(folder, descriptor, index)
        except BaseException:
            os.close(descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._descriptor < 0 else f"{len(self.inodes)} inodes, {self.blob_size} bytes"
        return f"<Image {str(self.folder)!r} {state}>"

    def close(self) -> None:
        """Closes the blob; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, inode: ImageInode, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes of a file from ``offset``; empty at and after its end.

        Raises :class:`SnapshotError` when the blob has become shorter than it was.
        """
        wanted = min(count, inode.size - offset)
        if wanted <= 0 or offset < 0:
            return b""
        data = os.pread(self._descriptor, wanted, inode.offset + offset)
        while len(data) < wanted:
            more = os.pread(self._descriptor, wanted - len(data), inode.offset + offset + len(data))
            if not more:
                raise SnapshotError(f"the image was truncated while in use: {self.folder / BLOB_NAME}")
            data += more
        return data

    def lookup(self, path: str) -> ImageInode | None:
        """The inode at an absolute path, following symbolic links; ``None`` when there is none."""
        todo = os.fsencode(path).split(b"/")[::-1]
        trail = [self.inodes[0]]
        links = 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                trail = trail[:-1] or trail
                continue
            number = (trail[-1].children or {}).get(part)
            if number is None:
                return None
            inode = self.inodes[number - 1]
            if inode.target is None:
                trail.append(inode)
                continue
            links += 1
            if links > _SYMLINKS_LIMIT:
                return None
            if inode.target.startswith(b"/"):
                trail = trail[:1]
            todo += inode.target.split(b"/")[::-1]
        return trail[-1]

    def walk(self) -> Iterator[tuple[str, ImageInode]]:
        """All paths with their inodes, in the order of inode numbers, the root first."""
        paths = {1: ""}
        for inode in self.inodes:
            path = paths.pop(inode.ino)
            yield path or "/", inode
            for name, number in (inode.children or {}).items():
                paths[number] = f"{path}/{os.fsdecode(name)}"


def _load_index(path: Path) -> _Index:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"cannot open the image: {path}: {error.strerror}") from error
    if len(data) < _HEADER.size:
        raise SnapshotError(f"the image is damaged: {path} has only {len(data)} bytes")
    magic, version, length, digest = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise SnapshotError(f"not an image of pyvmm: {path}")
    if version != VERSION:
        raise SnapshotError(
            f"the image has format version {version}, this pyvmm reads {VERSION}: build it again: {path}"
        )
    payload = memoryview(data)[_HEADER.size :]
    if len(payload) != length:
        raise SnapshotError(f"the image is damaged: the index in {path} has {len(payload)} bytes, not {length}")
    if hashlib.sha256(payload).digest() != digest:
        raise SnapshotError(f"the image is damaged: the checksum of {path} is wrong")
    try:
        index = msgspec.msgpack.decode(payload, type=_Index)
    except msgspec.DecodeError as error:
        raise SnapshotError(f"the image is damaged: {path}: {error}") from error
    if not index.inodes or index.inodes[0].children is None:
        raise SnapshotError(f"the image is damaged: {path} has no root directory")
    return index


def _digest(descriptor: int) -> bytes:
    digest, offset = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, _CHUNK, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.digest()
