"""Texts of any length in an HDF5 file lie in heaps, whose damage can let the library run for ever.

A collection of the global heap begins with `GCOL` and is divided by its objects: each says how long
it is, and so where the next one begins. The library believes this: one of no length is followed by
itself, for ever. So all collections of a file on this machine are walked before the library reads a
text. Of one elsewhere, each is when the library fetches it.

Source: "HDF5 File Format Specification", III.E, "Disk Format: Level 1E - Global Heap".
"""

import io
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import compiled
from scdiff_data.errors import CountError

_BYTES_AT_ONCE = 1 << 20
"""Bytes of a file that are looked through at a time."""

_LEAST = 4096
"""Bytes of a collection that the library fetches first, and most have."""

_HEADER = 16
"""Bytes that a collection begins with, and each of its objects."""

_SIGNATURE = re.compile(b"GCOL")
"""The first of them; searched for twice as fast as `bytes.find` does."""

_VERSION = 1
"""The byte that follows; three more are not used, and not looked at by the library."""


@lru_cache(maxsize=1024)
def check_heaps(path: Path, identity: tuple[int, int, int]) -> None:
    """Look at every collection of a file's global heap, where lengths take 8 bytes.

    Parameters
    ----------
    path
        The file.
    identity
        Which one it is, see `identify_file`: each is looked through once.

    Raises
    ------
    CountError
        If the library would not come to the end of one.
    """
    del identity
    with path.open("rb", buffering=0) as file:
        _look_through(file, path.name, 0, file.seek(0, os.SEEK_END))


class WatchedStream(io.RawIOBase):
    """A file elsewhere as HDF5 reads it: heaps are walked when the library fetches them.

    Parameters
    ----------
    stream
        Its bytes.
    name
        Its name, for the error.
    """

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name
        self._size = int(stream.seek(0, os.SEEK_END))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte; a CountError if the file ends before it."""
        if whence == os.SEEK_SET and not 0 <= offset <= self._size:
            raise CountError(
                f"{self._name} cannot be read: something of it is said to lie at byte {offset}, "
                f"and it has {self._size}: it is damaged, or was cut short"
            )
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        """The byte that comes next."""
        return int(self._stream.tell())

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and walk what begins there; how many bytes were read."""
        start, view = self.tell(), memoryview(buffer).cast("B")
        content = self._stream.read(len(view))
        view[: len(content)] = content
        view[len(content) :] = bytes(len(view) - len(content))  # beyond the end, as on a disk
        for found in _SIGNATURE.finditer(content):
            at = start + found.start()
            _look_through(self._stream, self._name, at, at + 1)
        self._stream.seek(start + len(content))
        return len(content)


def _look_through(file: Any, name: str, start: int, stop: int) -> None:
    """Walk all collections that begin at the bytes start … stop - 1."""
    size, end = file.seek(0, os.SEEK_END), -1
    while size - start >= _HEADER and (start < stop or end >= 0):
        file.seek(start)
        n_wanted = _BYTES_AT_ONCE if end >= 0 or stop - start > 1 else _LEAST
        content = file.read(n_wanted)
        if len(content) < _HEADER:  # cut short by somebody
            return
        at, end, is_endless = _walk_all(content, end, size - start)
        if is_endless:
            raise CountError(
                f"{name} cannot be read: the heap of its texts is damaged at byte {start + at}; "
                "if other programs read it, copy it with h5repack"
            )
        start, end = start + at, end - at if end >= 0 else -1


def _walk_all(content: bytes, end: int, left: int) -> tuple[int, int, bool]:
    """Walk the collections in a part of a file.

    Parameters
    ----------
    content
        The part.
    end
        Where the collection ends in whose midst it begins; -1 if it does in none.
    left
        Bytes of the file from its beginning on.

    Returns
    -------
    tuple
        Where the next part begins, or what is damaged; where the collection ends in whose midst
        that is, -1 if it is in none; whether it is damaged.
    """
    at, array = 0, np.frombuffer(content, np.uint8)
    while True:
        if end < 0:
            found = _SIGNATURE.search(content, at)
            if found is None:  # one may begin in the last bytes, and go on
                return max(len(content) - 3, at), -1, False
            at = found.start()
            if at + _HEADER > len(content):
                return at, -1, False
            length = int.from_bytes(content[at + 8 : at + _HEADER], "little")
            # Other bytes may happen to read as a signature does.
            if content[at + 4] != _VERSION or not _HEADER <= length <= left - at:
                at += 1
                continue
            at, end = at + _HEADER, at + length
        at, is_endless = _walk(array, at, end)
        if is_endless or at + _HEADER <= end:  # what follows is in the next part
            return int(at), end, bool(is_endless)
        end = -1


# What the loop below sees of a collection:
#
#     G C O L | 1 0 0 0 | bytes of all (8) | object | object | ... | free |
#     signature version                    |                              |
#                                          at                             end
#
#     object    number (2)   users (2)   0 (4)   bytes (8)   content, up to a multiple of 8 bytes
#     free      0 (2)        0 (2)       0 (4)   bytes (8), these 16 among them
@compiled
def _walk(content: NDArray[Any], at: int, end: int) -> tuple[int, bool]:
    """Walk objects, as far as they begin in the part; the next one, and whether it is endless."""
    while at + 16 <= end and at + 16 <= len(content):
        taken: Any = np.int64(0)  # of 8 bytes; one from 2^63 on is negative
        for k in range(8):
            taken |= np.int64(content[at + 8 + k]) << np.int64(8 * k)
        if content[at] | content[at + 1]:
            taken = 16 + (taken + 7) // 8 * 8
        if taken <= 0:
            return at, True
        at += min(taken, end - at)
    return at, False
