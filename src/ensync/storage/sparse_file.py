"""A file in memory with holes, for HDF5 to lay out a large file in without its size and without
a disk that could be full.
"""

import io
import os
from collections.abc import Iterator
from typing import Any

PAGE = 4096  # bytes


class SparseFile(io.RawIOBase):
    """A file in memory that takes only the pages that are written to."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}
        self.size = self.position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset` from the start, the position or the end."""
        self.position = (
            offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        )
        return self.position

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        self.size = self.position if size is None else size
        return self.size

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position on; what was never written is zero."""
        view = memoryview(buffer).cast("B")
        for page, inside, outside in self._spans(len(view)):
            view[outside] = self.pages.get(page, bytes(PAGE))[inside]
        self.position += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        """Write at the position."""
        view = memoryview(data).cast("B")
        for page, inside, outside in self._spans(len(view)):
            self.pages.setdefault(page, bytearray(PAGE))[inside] = view[outside]
        self.position += len(view)
        self.size = max(self.size, self.position)
        return len(view)

    def _spans(self, count: int) -> Iterator[tuple[int, slice, slice]]:
        """Yield (page, where in it, where in the data) for `count` bytes from the position on."""
        done = 0
        while done < count:
            page, inside = divmod(self.position + done, PAGE)
            length = min(PAGE - inside, count - done)
            yield page, slice(inside, inside + length), slice(done, done + length)
            done += length
