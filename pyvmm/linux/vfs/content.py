"""The bytes of a regular file: sparse, in chunks, over the image's bytes if it has any.

A chunk that was never written costs nothing and reads as the image has it, or as zeros. A chunk may be shorter than
:data:`CHUNK` (the rest is zeros); as ``bytes`` it may be shared with other forks and is copied when written to, as
``bytearray`` it is this fork's own.
"""

from collections.abc import Callable
from errno import ENOSPC

from pyvmm.linux.errors import GuestError
from pyvmm.linux.vfs.quota import BLOCK, Quota

CHUNK_SHIFT = 16
CHUNK = 1 << CHUNK_SHIFT
_CHUNK_MASK = CHUNK - 1
_ZEROS = bytes(CHUNK)

#: ``read(offset, count)`` of what lies below.
Base = Callable[[int, int], bytes]


def _cost(length: int) -> int:
    return (length + BLOCK - 1) & -BLOCK


class Content:
    """A growable array of bytes that knows its quota."""

    __slots__ = ("_base", "_base_size", "_quota", "charged", "chunks", "size")

    def __init__(self, quota: Quota, size: int = 0, base: Base | None = None, base_size: int = 0) -> None:
        self.size = size
        #: Bytes counted against the quota, a multiple of 4096.
        self.charged = 0
        self.chunks: dict[int, bytes | bytearray] = {}
        self._quota = quota
        self._base = base
        self._base_size = base_size

    @property
    def base_size(self) -> int:
        """How much of the image's bytes still shows."""
        return self._base_size

    def read(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes, none at or after the end."""
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        if not self.chunks and self._base is not None and offset + count <= self._base_size:
            return self._base(offset, count)
        start = offset & _CHUNK_MASK
        if start + count <= CHUNK:
            return self._piece(offset >> CHUNK_SHIFT, start, count)
        pieces = []
        while count:
            start = offset & _CHUNK_MASK
            part = min(CHUNK - start, count)
            pieces.append(self._piece(offset >> CHUNK_SHIFT, start, part))
            offset += part
            count -= part
        return b"".join(pieces)

    def _piece(self, index: int, start: int, count: int) -> bytes:
        """``count`` bytes of one chunk."""
        chunk = self.chunks.get(index)
        if chunk is None:
            piece = self._below(index, start, count)
        elif start == 0 and count >= len(chunk):
            piece = bytes(chunk)
        else:
            piece = bytes(memoryview(chunk)[start : start + count])
        return piece if len(piece) == count else piece + bytes(count - len(piece))

    def _below(self, index: int, start: int, count: int) -> bytes:
        offset = (index << CHUNK_SHIFT) + start
        count = min(count, self._base_size - offset)
        return self._base(offset, count) if count > 0 and self._base is not None else b""

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Write as much of ``data`` as the quota allows; how much that was.

        :raises GuestError: ENOSPC, nothing could be written.
        """
        total = len(data)
        start = offset & _CHUNK_MASK
        if start + total <= CHUNK:
            self._put(offset >> CHUNK_SHIFT, start, data)
            done = total
        else:
            view = memoryview(data)
            done = 0
            while done < total:
                start = (offset + done) & _CHUNK_MASK
                part = min(CHUNK - start, total - done)
                try:
                    self._put((offset + done) >> CHUNK_SHIFT, start, view[done : done + part])
                except GuestError:
                    if not done:
                        raise
                    break
                done += part
        if offset + done > self.size:
            self.size = offset + done
        return done

    def _put(self, index: int, start: int, piece: bytes | bytearray | memoryview) -> None:
        end = start + len(piece)
        chunk = self.chunks.get(index)
        if chunk is None:
            old = 0
            covers = start == 0 and end >= min(CHUNK, self._base_size - (index << CHUNK_SHIFT))
            chunk = b"" if covers else self._below(index, 0, CHUNK)
        else:
            old = len(chunk)
        self._charge(_cost(max(end, len(chunk))) - _cost(old))
        if start == 0 and end >= len(chunk):
            self.chunks[index] = bytes(piece)
            return
        if type(chunk) is not bytearray:
            chunk = self.chunks[index] = bytearray(chunk)
        if start > len(chunk):
            chunk.extend(bytes(start - len(chunk)))
        chunk[start:end] = piece

    def _charge(self, count: int) -> None:
        if count:
            self._quota.take(count)
            self.charged += count

    def truncate(self, size: int) -> None:
        """Cut off or extend (by a hole)."""
        if size < self.size:
            last = (size + CHUNK - 1) >> CHUNK_SHIFT
            for index in [index for index in self.chunks if index >= last]:
                self._charge(-_cost(len(self.chunks.pop(index))))
            self._base_size = min(self._base_size, size)
            chunk = self.chunks.get(size >> CHUNK_SHIFT)
            keep = size & _CHUNK_MASK
            if chunk is not None and len(chunk) > keep:
                self._charge(_cost(keep) - _cost(len(chunk)))
                self.chunks[size >> CHUNK_SHIFT] = bytes(memoryview(chunk)[:keep])
        self.size = size

    def punch(self, offset: int, count: int) -> None:
        """Make a hole of ``[offset, offset + count)``; the size stays."""
        end = min(offset + count, self.size)
        if self._base_size > offset:
            # What is left of the image's bytes after the hole moves up here.
            self._lift(end)
            self._base_size = min(self._base_size, offset)
        for index in [i for i in self.chunks if offset >> CHUNK_SHIFT <= i <= (end - 1) >> CHUNK_SHIFT]:
            first = max(offset - (index << CHUNK_SHIFT), 0)
            last = min(end - (index << CHUNK_SHIFT), CHUNK)
            chunk = self.chunks[index]
            if first == 0 and last >= len(chunk):
                self._charge(-_cost(len(chunk)))
                del self.chunks[index]
            elif first < len(chunk):
                self.chunks[index] = bytes(chunk[:first]) + bytes(min(last, len(chunk)) - first) + bytes(chunk[last:])

    def _lift(self, offset: int) -> None:
        """Copy the image's bytes from ``offset`` on into chunks."""
        for index in range(offset >> CHUNK_SHIFT, (self._base_size + CHUNK - 1) >> CHUNK_SHIFT):
            if index not in self.chunks:
                piece = self._below(index, 0, CHUNK)
                self._charge(_cost(len(piece)))
                self.chunks[index] = piece

    def allocate(self, offset: int, count: int) -> None:
        """Take the room for ``[offset, offset + count)`` now (ENOSPC if there is not enough); the size stays."""
        first, last = offset >> CHUNK_SHIFT, (offset + count - 1) >> CHUNK_SHIFT
        below = (self._base_size + CHUNK - 1) >> CHUNK_SHIFT
        present = sum(1 for index in self.chunks if max(first, below) <= index <= last)
        if (last + 1 - max(first, below) - present) * CHUNK > self._quota.bytes_free + CHUNK:
            raise GuestError(ENOSPC)
        for index in range(max(first, below), last + 1):
            chunk = self.chunks.get(index, b"")
            wanted = min(CHUNK, offset + count - (index << CHUNK_SHIFT))
            if len(chunk) < wanted:
                self._charge(_cost(wanted) - _cost(len(chunk)))
                # All zeros: the same bytes object wherever possible, so that room taken costs no memory yet.
                self.chunks[index] = bytes(chunk) + bytes(wanted - len(chunk)) if chunk else _ZEROS[:wanted]

    def seek_data(self, offset: int) -> int | None:
        """The first byte at or after ``offset`` that is not in a hole."""
        if offset < self._base_size:
            return offset
        index = offset >> CHUNK_SHIFT
        chunk = self.chunks.get(index)
        if chunk is not None and offset < self.size and (offset & _CHUNK_MASK) < len(chunk):
            return offset
        later = [i for i in self.chunks if i > index]
        return min(later) << CHUNK_SHIFT if later else None

    def seek_hole(self, offset: int) -> int:
        """The first byte at or after ``offset`` that is in a hole, or the end of the file."""
        offset = max(offset, self._base_size)
        while offset < self.size:
            chunk = self.chunks.get(offset >> CHUNK_SHIFT)
            if chunk is None or (offset & _CHUNK_MASK) >= len(chunk):
                return offset
            offset = (offset & ~_CHUNK_MASK) + len(chunk)
        return self.size

    def clear(self) -> None:
        """Forget everything and give the room back."""
        self.chunks.clear()
        self._charge(-self.charged)
        self.size = self._base_size = 0
