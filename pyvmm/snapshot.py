"""A machine on disk: a folder that holds everything a fork starts from, and that is checked before it is believed.

::

    manifest.json    format version, kind of guest, processor, sizes, SHA-256 of each other file, facts
    memory.bin       guest physical memory from address 0, sparse
    vcpu.bin         state of the virtual processor (MessagePack)
    guest.bin        state of the guest that is not in its memory (MessagePack), whose meaning only its kind knows

The memory is copied, while it is checked, into a sealed memfd: what forks map can then neither change nor shrink,
whatever happens to the folder.
"""

import ctypes
import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from pyvmm.errors import SnapshotError
from pyvmm.memory import PAGE_SIZE
from pyvmm.vcpu_state import VcpuState

#: Rises with every change of what the files mean. A snapshot of another version is refused, not guessed at.
FORMAT_VERSION = 4

MANIFEST, MEMORY, VCPU, GUEST = "manifest.json", "memory.bin", "vcpu.bin", "guest.bin"

_CHUNK = 1 << 20
_F_ADD_SEALS = 1033
_F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW, _F_SEAL_WRITE = 1, 2, 4, 8
_libc = ctypes.CDLL(None, use_errno=True)


class Manifest(msgspec.Struct, kw_only=True):
    """What ``manifest.json`` says."""

    format_version: int
    kind: str
    processor: str
    #: Bytes: what the guest may have, and what of it the snapshot holds.
    memory_limit: int
    memory_size: int
    #: Bytes from address 0 that a fork is sure to write to: worth having copies of before it runs.
    hot_size: int
    sha256: dict[str, str]
    #: What the builder wants to remember: name, recipe, packages, times; shown by ``pyvmm template inspect``.
    facts: dict[str, Any]
    #: SHA-256 of this manifest with an empty digest.
    digest: str = ""

    def compute_digest(self) -> str:
        """What ``digest`` must be."""
        return hashlib.sha256(msgspec.json.encode(structs.replace(self, digest=""))).hexdigest()


class Snapshot:
    """A loaded snapshot: read-only, shared by all forks. Close it when no more forks are to be made; live ones go
    on.
    """

    def __init__(self, path: Path, manifest: Manifest, memory_fd: int, vcpu: VcpuState, guest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        self.memory_fd = memory_fd
        self.vcpu, self.guest = vcpu, guest

    @classmethod
    def load(cls, path: Path, processor: str) -> "Snapshot":
        """Load and check the snapshot in the folder ``path`` for a host whose processor is ``processor``.

        :raises SnapshotError: it is not complete, was altered, or belongs to another version or processor; the
            message says which.
        """
        manifest = read_manifest(path)
        if manifest.processor != processor:
            raise SnapshotError(
                f"{path}: taken on another processor ({manifest.processor}) than this one ({processor}); "
                "build the template again here"
            )
        parts = {}
        for name in (VCPU, GUEST):
            data = _read(path / name)
            _check(path / name, hashlib.sha256(data).hexdigest(), manifest)
            parts[name] = data
        try:
            state = VcpuState.from_data(msgspec.msgpack.decode(parts[VCPU]))
            guest = msgspec.msgpack.decode(parts[GUEST])
        except (msgspec.DecodeError, RecursionError, TypeError, ValueError) as error:
            raise SnapshotError(f"{path}: its state cannot be read: {error}") from error
        if not isinstance(guest, dict):
            raise SnapshotError(f"{path}: its state cannot be read: {GUEST} holds no map")
        fd = _sealed_copy(path / MEMORY, manifest)
        return cls(path, manifest, fd, state, guest)

    def close(self) -> None:
        """Let go of the memory; twice is fine."""
        fd, self.memory_fd = self.memory_fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> "Snapshot":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Snapshot {str(self.path)!r} {self.manifest.kind} {self.manifest.memory_size >> 20} MiB>"


def write(
    path: Path,
    *,
    kind: str,
    processor: str,
    memory_limit: int,
    memory: memoryview,
    hot_size: int,
    vcpu: VcpuState,
    guest: dict[str, Any],
    facts: dict[str, Any],
) -> None:
    """Write a snapshot into the existing folder ``path``; the manifest comes last, so an unfinished one has none."""
    sums = {MEMORY: _write_sparse(path / MEMORY, memory)}
    for name, state in ((VCPU, vcpu.to_data()), (GUEST, guest)):
        data = msgspec.msgpack.encode(state)
        (path / name).write_bytes(data)
        sums[name] = hashlib.sha256(data).hexdigest()
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        kind=kind,
        processor=processor,
        memory_limit=memory_limit,
        memory_size=len(memory),
        hot_size=hot_size,
        sha256=sums,
        facts=facts,
    )
    manifest.digest = manifest.compute_digest()
    (path / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))


def read_manifest(path: Path) -> Manifest:
    """The manifest of the snapshot in ``path``, checked for sense.

    :raises SnapshotError: there is none, or it cannot be used.
    """
    data = _read(path / MANIFEST)
    try:
        version = msgspec.json.decode(data)["format_version"]
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError) as error:
        raise SnapshotError(f"{path / MANIFEST}: not a snapshot's manifest: {error}") from error
    if version != FORMAT_VERSION:
        raise SnapshotError(
            f"{path}: snapshot format {version!r}, this pyvmm reads format {FORMAT_VERSION}; build the template again"
        )
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.ValidationError as error:
        raise SnapshotError(f"{path / MANIFEST}: {error}") from error
    if manifest.digest != manifest.compute_digest():
        raise SnapshotError(
            f"{path / MANIFEST}: its own checksum does not match, it was altered; build the template again"
        )
    sizes = (manifest.memory_limit, manifest.memory_size, manifest.hot_size)
    if any(size % PAGE_SIZE or size < 0 for size in sizes) or not sizes[2] <= sizes[1] <= sizes[0] <= 1 << 40:
        raise SnapshotError(f"{path / MANIFEST}: its sizes make no sense")
    return manifest


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SnapshotError(
            f"{path}: {error.strerror}; the snapshot is not complete, build the template again"
        ) from error


def _check(path: Path, digest: str, manifest: Manifest) -> None:
    if manifest.sha256.get(path.name) != digest:
        raise SnapshotError(
            f"{path}: its checksum does not match the manifest, it was altered or cut; build the template again"
        )


def _write_sparse(path: Path, memory: memoryview) -> str:
    """Write ``memory``, leaving holes where it is zero; its SHA-256."""
    digest = hashlib.sha256()
    zero = bytes(PAGE_SIZE)
    with path.open("wb") as file:
        for start in range(0, len(memory), _CHUNK):
            chunk = bytes(memory[start : start + _CHUNK])
            digest.update(chunk)
            for offset in range(0, len(chunk), PAGE_SIZE):
                page = chunk[offset : offset + PAGE_SIZE]
                if page != zero:
                    file.seek(start + offset)
                    file.write(page)
        file.truncate(len(memory))
    return digest.hexdigest()


def _sealed_copy(path: Path, manifest: Manifest) -> int:
    """A sealed memfd with the contents of ``path``, whose size and checksum are right."""
    digest = hashlib.sha256()
    zero = bytes(_CHUNK)
    fd = os.memfd_create("pyvmm-snapshot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        size = manifest.memory_size
        os.ftruncate(fd, size)
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != size:
                raise SnapshotError(f"{path}: not {size} bytes long, it was cut; build the template again")
            position = 0
            buffer = bytearray(_CHUNK)
            while position < size:
                count = file.readinto(buffer)
                if not count:
                    raise SnapshotError(f"{path}: ends early; build the template again")
                chunk = memoryview(buffer)[:count]
                digest.update(chunk)
                # A hole stays one: a page that was never written costs the forks nothing.
                if chunk != zero[:count]:
                    os.pwrite(fd, chunk, position)
                position += count
        _check(path, digest.hexdigest(), manifest)
        seals = _F_SEAL_SEAL | _F_SEAL_SHRINK | _F_SEAL_GROW | _F_SEAL_WRITE
        if _libc.fcntl(fd, _F_ADD_SEALS, seals):
            raise SnapshotError(f"{path}: sealing its copy failed: {os.strerror(ctypes.get_errno())}")
    except OSError as error:
        os.close(fd)
        raise SnapshotError(f"{path}: {error.strerror}") from error
    except BaseException:
        os.close(fd)
        raise
    return fd
