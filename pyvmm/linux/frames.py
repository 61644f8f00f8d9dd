"""Page frames: which parts of guest physical memory are in use.

Frames are numbered from 0 (physical address = number << 12). Those below ``image_frames`` came with the snapshot;
when one of them is freed its old contents can come back (the host shows the snapshot's page again), so it is zeroed
before its next use. All others are given back to the host when freed and read as zero.
"""

from collections.abc import Callable, Iterable

from pyvmm.linux.errors import OutOfMemory
from pyvmm.linux.layout import PAGE_SHIFT, PAGE_SIZE
from pyvmm.memory import GuestMemory

#: (first frame, how many).
Run = tuple[int, int]

#: Frames at most so far apart are forgotten together with what lies between them.
_NEAR = 32

_ZERO_PAGE = bytes(PAGE_SIZE)


class FrameAllocator:
    """Hands out frames, one or a run at a time, never more than the guest's limit."""

    def __init__(self, memory: GuestMemory, first: int) -> None:
        self._memory = memory
        self._view = memory.view
        self.limit = memory.limit >> PAGE_SHIFT
        self._image_frames = memory.image_size >> PAGE_SHIFT
        self._next = first
        self._covered = memory.in_use >> PAGE_SHIFT
        self._free: list[Run] = []
        self._free_count = 0
        #: Frames that more than one address space maps privately -> how many do.
        self.shared: dict[int, int] = {}
        #: Page tables of address spaces that have ended: root, and last-level tables as PageTable knows them.
        self.retired_tables: list[tuple[int, dict[int, int]]] = []
        #: Bytes of the monitor's memory that describe the sandbox's (areas beyond what programs usually have).
        self.described = 0
        #: Bytes that the sandbox's files take of the same limit; set by who knows.
        self.bytes_elsewhere: Callable[[], int] = lambda: 0

    @property
    def used(self) -> int:
        """Frames in use now."""
        return self._next - self._free_count

    @property
    def available(self) -> int:
        """Frames that can still be had."""
        return self.limit - self._next + self._free_count - (self.bytes_elsewhere() + self.described >> PAGE_SHIFT)

    def allocate(self, wanted: int = 1) -> tuple[int, int]:
        """A run of up to ``wanted`` zeroed frames: (first frame, how many, at least one).

        :raises OutOfMemory: the guest has all that it may have.
        """
        wanted = min(wanted, self.available)
        if wanted <= 0:
            raise OutOfMemory
        if self._free:
            first, count = self._free.pop()
            if count > wanted:
                self._free.append((first + wanted, count - wanted))
                count = wanted
            self._free_count -= count
            stale = min(first + count, self._image_frames)
            for frame in range(first, stale):
                self._view[frame << PAGE_SHIFT : (frame + 1) << PAGE_SHIFT] = _ZERO_PAGE
            return first, count
        first = self._next
        count = min(wanted, self.limit - first)
        if first + count > self._covered:
            self._memory.extend((first + count - self._covered) << PAGE_SHIFT)
            self._covered = self._memory.in_use >> PAGE_SHIFT
        self._next = first + count
        return first, count

    def share(self, frames: Iterable[int]) -> None:
        """One more address space maps each of ``frames``."""
        shared = self.shared
        for frame in frames:
            shared[frame] = shared.get(frame, 1) + 1

    def is_shared(self, frame: int) -> bool:
        """Whether another address space has the frame too."""
        return frame in self.shared

    def free(self, runs: Iterable[Run]) -> None:
        """Give back runs of (first frame, count): the host forgets their contents and KVM its translations.

        A frame that others have too is only counted down, and KVM forgets who had it.
        """
        for first, count in self._give_up(runs) if self.shared else runs:
            self._memory.discard(first << PAGE_SHIFT, count << PAGE_SHIFT)
            self._free.append((first, count))
            self._free_count += count

    def _give_up(self, runs: Iterable[Run]) -> list[Run]:
        """Count down what others have too; the parts of ``runs`` that nobody else has."""
        shared = self.shared
        own: list[Run] = []
        kept: list[int] = []
        for first, count in runs:
            start = first
            for frame in range(first, first + count):
                users = shared.get(frame)
                if users is None:
                    continue
                if frame > start:
                    own.append((start, frame - start))
                start = frame + 1
                kept.append(frame)
                if users == 2:
                    del shared[frame]
                else:
                    shared[frame] = users - 1
            if first + count > start:
                own.append((start, first + count - start))
        self._forget(kept)
        return own

    def _forget(self, frames: list[int]) -> None:
        """Have KVM forget its translations to ``frames``, a stretch of near ones at a time: each costs two calls, and a
        translation that is forgotten without need only a fault.
        """
        if not frames:
            return
        frames.sort()
        first = last = frames[0]
        for frame in frames:
            if frame > last + _NEAR:
                self._memory.forget_translations(first << PAGE_SHIFT, (last + 1 - first) << PAGE_SHIFT)
                first = frame
            last = frame
        self._memory.forget_translations(first << PAGE_SHIFT, (last + 1 - first) << PAGE_SHIFT)

    def save(self) -> dict[str, object]:
        """Plain data: what :meth:`restore` needs."""
        return {"next": self._next, "free": list(self._free)}

    def restore(self, state: dict[str, object]) -> None:
        """Continue where a saved allocator was."""
        self._next = state["next"]  # type: ignore[assignment]
        self._free = [(first, count) for first, count in state["free"]]  # type: ignore[attr-defined]
        self._free_count = sum(count for _, count in self._free)
