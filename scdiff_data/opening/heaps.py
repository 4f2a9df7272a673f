"""Texts of any length in an HDF5 file lie in heaps, whose damage can let the library run for ever.

A collection of the global heap begins with `GCOL` and is divided by its objects: each says how long
it is, and so where the next one begins. The library believes this: one of no length is followed by
itself, for ever. So all collections of a file on this machine are walked before the library reads a
text. Of one elsewhere, each is when the library fetches it.

Source: "HDF5 File Format Specification", III.E, "Disk Format: Level 1E - Global Heap".
"""

import io
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import compiled
from scdiff_data.errors import CountError

_BYTES_AT_ONCE = 8 << 20
"""Bytes of a file that are looked through at a time."""

_LEAST = 4096
"""Bytes of a collection that the library fetches first, and most have."""

_HEADER = 16
"""Bytes that a collection begins with, and each of its objects."""


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

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte."""
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        """The byte that comes next."""
        return int(self._stream.tell())

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and walk what begins there; how many bytes were read."""
        start, view = self.tell(), memoryview(buffer).cast("B")
        content = self._stream.read(len(view))
        view[: len(content)] = content
        bytes_read, at = np.frombuffer(content, np.uint8), 0
        while (at := _find_signature(bytes_read, at)) < len(content) - 3:
            _look_through(self._stream, self._name, start + at, start + at + 1)
            at += 1
        self._stream.seek(start + len(content))
        return len(content)


def _look_through(file: Any, name: str, start: int, stop: int) -> None:
    """Walk all collections that begin at the bytes start … stop - 1."""
    size, end = file.seek(0, os.SEEK_END), -1
    while size - start >= _HEADER and (start < stop or end >= 0):
        file.seek(start)
        n_wanted = _BYTES_AT_ONCE if end >= 0 or stop - start > 1 else _LEAST
        content = np.frombuffer(file.read(n_wanted), np.uint8)
        if len(content) < _HEADER:  # cut short by somebody
            return
        at, end, is_endless = _walk(content, end, size - start)
        if is_endless:
            raise CountError(
                f"{name} cannot be read: the heap of its texts is damaged at byte {start + at}; "
                "if other programs read it, copy it with h5repack"
            )
        start, end = start + at, end - at if end >= 0 else -1


# What the loop below sees of a file, of which it is given one part after another:
#
#     G C O L | 1 0 0 0 | bytes of all (8) | object | object | ... | free | other bytes of the file
#     signature version                    |                              |
#                                          at                             end
#
#     object    number (2)   users (2)   0 (4)   bytes (8)   content, up to a multiple of 8 bytes
#     free      0 (2)        0 (2)       0 (4)   bytes (8), these 16 among them
#
# Bytes that happen to read `GCOL` are no collection unless what follows is that of one. Runs of
# 4,096 bytes are searched without a branch, so that one instruction compares 32 of them.
@compiled
def _walk(content: NDArray[Any], end: int, left: int) -> tuple[int, int, bool]:
    """Walk collections; where the next part begins, what is left there of one, -1 if none is.

    Parameters
    ----------
    content
        The part.
    end
        Where the collection ends in whose midst it begins; -1 if it does in none.
    left
        Bytes of the file from its beginning on.
    """
    at, n = 0, len(content)
    while True:
        if end < 0:
            at = _find_signature(content, at)
            if at + 16 > n:
                return at, -1, False
            length = _read_number(content, at + 8, 8)
            if _read_number(content, at + 4, 4) != 1 or not 16 <= length <= left - at:
                at += 1
                continue
            at, end = at + 16, at + length
        if at + 16 > end:
            end = -1
            continue
        if at + 16 > n:
            return at, end, False
        taken = _read_number(content, at + 8, 8)
        if _read_number(content, at, 2):
            taken = 16 + (taken + 7) // 8 * 8
        if taken <= 0:
            return at, end, True
        at += min(taken, end - at)


@compiled
def _read_number(content: NDArray[Any], at: int, n_bytes: int) -> int:
    """A whole number, lowest byte first; of 8 bytes, one from 2^63 on is negative."""
    number = np.int64(0)
    for k in range(n_bytes):
        number |= np.int64(content[at + k]) << np.int64(8 * k)
    return int(number)


@compiled
def _find_signature(content: NDArray[Any], start: int) -> int:
    """Place of the next signature from `start` on; else where one might begin that goes on."""
    last = max(len(content) - 3, 0)
    for low in range(start, last, 4096):
        high, n_found = min(low + 4096, last), 0
        for k in range(low, high):
            n_found += _is_signature(content, k)
        if n_found:
            for k in range(low, high):
                if _is_signature(content, k):
                    return int(k)
    return int(max(last, start))


@compiled
def _is_signature(content: NDArray[Any], k: int) -> bool:
    first = (content[k] == 71) & (content[k + 1] == 67)
    return bool(first & (content[k + 2] == 79) & (content[k + 3] == 76))
