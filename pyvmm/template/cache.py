"""Where templates live, and how they come to be there whole or not at all.

::

    <home>/templates/<name>/<key>/      finished templates: what is here is complete, for it came by one rename
    <home>/layers/<kind>/<key>          what builds share: byte code, installed packages
    <home>/building/<name>.<random>/    builds under way, and what killed builds left; swept by the next build of that
    name <home>/locks/<name>                 locked while a build of that name runs (released by the kernel, however
    the build ends)

``<home>`` is ``$PYVMM_HOME``, or ``pyvmm`` under ``$XDG_CACHE_HOME`` or ``~/.cache``. The key is a digest of all that
the contents depend on, so a template is found exactly when building it again would make the same.
"""

import errno
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pyvmm.errors import TemplateError, TemplateNotFound
from pyvmm.template.recipe import NAME

_POLL_SECONDS = 0.05
_STALE_SECONDS = 3600.0

# os.lockf excludes other processes only: all threads of one process own its locks together.
_thread_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


class TemplateEntry(msgspec.Struct, frozen=True):
    """A finished template; ``built_at`` in seconds since 1970, ``disk_bytes`` as the file system counts them."""

    name: str
    key: str
    path: Path
    built_at: float
    disk_bytes: int


def cache_home() -> Path:
    """The folder for everything that pyvmm keeps; it need not exist yet."""
    if home := os.environ.get("PYVMM_HOME"):
        return Path(home).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a path that is not absolute is to be ignored.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "pyvmm"


def content_key(parts: Mapping[str, object]) -> str:
    """32 hexadecimal digits that depend on names and values (texts, bytes, numbers, lists), not on their order."""
    return hashlib.sha256(msgspec.msgpack.encode(sorted(parts.items()))).hexdigest()[:32]


class TemplateCache:
    """The templates on this machine. Its methods may be called by several threads and processes at once."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or cache_home()
        self._templates = self.home / "templates"
        self._building = self.home / "building"

    def __repr__(self) -> str:
        return f"<TemplateCache {str(self.home)!r}>"

    def entry_path(self, name: str, key: str) -> Path:
        """The folder of the template of that name and key, whether it is there or not."""
        return self._templates / name / key

    def find(self, name: str, key: str) -> TemplateEntry | None:
        """The finished template of that name and key."""
        return self._entry(name, self._templates / name / key) if NAME.fullmatch(name) else None

    def entries(self, name: str | None = None) -> list[TemplateEntry]:
        """All finished templates, or those of one name, the newest first within a name."""
        names = [name] if name is not None else sorted(self._names(self._templates))
        found = [
            entry
            for each in names
            for key in self._names(self._templates / each)
            if (entry := self._entry(each, self._templates / each / key))
        ]
        return sorted(found, key=lambda entry: (entry.name, -entry.built_at, entry.key))

    def latest(self, name: str) -> TemplateEntry:
        """The newest template of that name. Raises :class:`TemplateNotFound`, which says how to build it."""
        found = self.entries(name) if NAME.fullmatch(name) else []
        if not found:
            raise TemplateNotFound(
                f"no template named {name!r} on this machine: build it with `pyvmm template build {name}`"
            )
        return found[0]

    def remove(self, name: str, key: str | None = None) -> int:
        """Removes the templates of that name, or only the one with that key; returns how many they were.

        What has them open keeps working, since their files live until they are closed.
        """
        if not NAME.fullmatch(name):
            return 0
        with self._lock(name):
            doomed = [entry for entry in self.entries(name) if key in (None, entry.key)]
            for entry in doomed:
                self._discard(name, entry.path)
            return len(doomed)

    @contextmanager
    def build(
        self, name: str, key: str, *, replace: bool = False, waiting: Callable[[str], None] | None = None
    ) -> Iterator[Path | None]:
        """Gives an empty folder to build in, which becomes the template when the block ends without an exception.

        Waits for another build of the same name (``waiting`` is told once, with a sentence). Gives ``None`` when the
        template is there, perhaps only just made by the other build; ``replace`` builds it all the same.
        """
        if not NAME.fullmatch(name):
            raise TemplateError(f"not a name for a template: {name!r}")
        final = self._templates / name / key
        with self._lock(name, waiting):
            self._sweep(name)
            if final.is_dir() and not replace:
                yield None
                return
            folder = self._work_folder(name)
            try:
                yield folder
                _sync_tree(folder)
                final.parent.mkdir(parents=True, exist_ok=True)
                if final.is_dir():
                    self._discard(name, final)
                folder.rename(final)
                _sync(final.parent)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def layer_file(self, kind: str, key: str) -> Path:
        """Where a layer that is one file belongs; written by :meth:`write_file`."""
        return self.home / "layers" / kind / key

    def write_file(self, path: Path, data: bytes) -> None:
        """Writes a file of a layer so that it is seen whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._building.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(prefix="+file.", suffix=".part", dir=self._building)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)

    @contextmanager
    def layer_folder(
        self, kind: str, key: str, waiting: Callable[[str], None] | None = None
    ) -> Iterator[tuple[Path, bool]]:
        """Gives a layer's folder and whether it is finished; if not, what the block makes there becomes the layer."""
        final = self.home / "layers" / kind / key
        if final.is_dir():
            yield final, True
            return
        own = f"+{kind}"  # no template can have this name
        with self._lock(own, waiting):
            self._sweep(own)
            if final.is_dir():
                yield final, True
                return
            folder = self._work_folder(own)
            try:
                yield folder, False
                final.parent.mkdir(parents=True, exist_ok=True)
                _sync_tree(folder)
                folder.rename(final)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _lock(self, name: str, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        path = self.home / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _thread_locks[str(path)]:
            # The file stays: removing it would let two builds lock two files of the same name.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                told = False
                while not _try_lock(descriptor):
                    if waiting and not told:
                        owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
                        waiting(f"waiting for another build of {name!r} (process {owner or 'unknown'})")
                        told = True
                    time.sleep(_POLL_SECONDS)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                yield
            finally:
                os.close(descriptor)

    def _work_folder(self, name: str) -> Path:
        self._building.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{name}.", suffix=".part", dir=self._building))

    def _discard(self, name: str, path: Path) -> None:
        """Takes a template away by one rename, then deletes it at leisure; the caller holds the lock."""
        doomed = self._work_folder(name)
        path.rename(doomed / "old")
        shutil.rmtree(doomed, ignore_errors=True)

    def _sweep(self, name: str) -> None:
        """Deletes what killed builds of that name left behind; the caller holds the lock, so none is under way."""
        for leftover in self._building.glob(f"{name}.????????.part"):
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in self._building.glob("+file.*.part"):
            try:
                if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                    leftover.unlink()
            except FileNotFoundError:
                pass  # a build under way has just put it in its place

    def _entry(self, name: str, path: Path) -> TemplateEntry | None:
        try:
            built_at = path.stat().st_mtime
            size = sum(file.stat().st_blocks * 512 for file in path.rglob("*"))
        except OSError:
            return None
        return TemplateEntry(name, path.name, path, built_at, size) if path.is_dir() else None

    @staticmethod
    def _names(folder: Path) -> list[str]:
        try:
            return os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []


def _try_lock(descriptor: int) -> bool:
    try:
        os.lockf(descriptor, os.F_TLOCK, 0)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def _sync_tree(folder: Path) -> None:
    """Brings all files and folders of a tree to the disk, so that the rename that follows never points at less."""
    for parent, _, files in os.walk(folder, topdown=False):
        for file in files:
            path = os.path.join(parent, file)
            if not os.path.islink(path):
                _sync(path)
        _sync(parent)


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
