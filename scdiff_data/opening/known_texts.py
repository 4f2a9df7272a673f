"""Whether a column of texts is one that is known already, without making an object of each.

The library reads texts of any length one by one, a microsecond each, and experiments by the
thousand name the same genes. Here the bytes are compared where they lie. A column's values are
references of 16 bytes, which lead into collections of the global heap, see `heaps`:

    reference   bytes of the text (4)   address of a collection (8)   number of an object in it (4)
"""

import os
from collections.abc import Sequence
from typing import Any

import deflate
import h5py
import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import compiled, find_chunks, list_filters, load_eight

_REFERENCE = np.dtype([("n_bytes", "<u4"), ("address", "<u8"), ("number", "<u4")])
"""A value of a column of texts, as it lies in the file."""

SIZES = (8, 8)
"""Bytes of an address and of a length, as all writers choose them today."""

_BEGINNING = np.uint64(int.from_bytes(b"GCOL\1\0\0\0", "little"))
"""Of a collection: its signature, and its version."""

_ROOM = bytes(16)
"""What follows bytes of which eight are read at a time."""

_MOST_APART = 8
"""Bytes that heaps may span, to one of a text and of what the heap says of it."""


class KnownTexts:
    """Texts that many files have, in the same order.

    Parameters
    ----------
    texts
        The texts.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._encoded = [text.encode() for text in texts]
        self._content = np.frombuffer(b"".join([*self._encoded, _ROOM]), np.uint8)
        self._lengths = np.array([len(text) for text in self._encoded], np.uint32)
        self._has_ends = any(b"\0" in text for text in self._encoded)  # a text read ends there

    def are_in(self, dataset: h5py.Dataset) -> bool:
        """Whether a dataset holds these; no also if it holds them in another encoding."""
        return self._are_here(dataset) or dataset[:].tolist() == self._encoded

    def _are_here(self, dataset: h5py.Dataset) -> bool:
        """Whether a dataset of a file on this machine holds these; no if that cannot be seen."""
        n, n_bytes = len(self._lengths), int(self._lengths.sum())
        if dataset.shape != (n,) or not n or self._has_ends:
            return False
        references = _read_references(dataset)
        if references is None or not np.array_equal(references["n_bytes"], self._lengths):
            return False
        if not n_bytes:
            return True
        addresses = references["address"][self._lengths > 0]
        first, last = int(addresses.min()), int(addresses.max())
        descriptor = dataset.file.id.get_vfd_handle()
        if last > os.fstat(descriptor).st_size:
            return False
        end = last + int.from_bytes(os.pread(descriptor, 8, last + 8), "little")
        if end - first > _MOST_APART * (n_bytes + 24 * n) + (1 << 16):
            return False
        heaps = np.frombuffer(os.pread(descriptor, end - first, first) + _ROOM, np.uint8)
        order = references["address"], references["number"]
        return bool(_are_same(heaps, first, *order, self._lengths, self._content, 64 * n + 1024))


def _read_references(dataset: h5py.Dataset) -> NDArray[Any] | None:
    """The values of a column of texts as they lie in the file; None if that is not known."""
    kind, n, file = dataset.id.get_type(), len(dataset), dataset.file.id
    is_text = isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
    is_here = file.get_access_plist().get_driver() == h5py.h5fd.SEC2
    if not (is_text and is_here) or file.get_create_plist().get_sizes() != SIZES:
        return None
    descriptor, filters = file.get_vfd_handle(), list_filters(dataset)
    if dataset.chunks is None:
        at = dataset.id.get_offset()
        if at is None or dataset.file.userblock_size:
            return None
        content = os.pread(descriptor, 16 * n, at)
    else:
        n_each = dataset.chunks[0]
        places = find_chunks(dataset) if n_each <= 2 * n + 1024 else None
        if places is None or filters not in ([], [h5py.h5z.FILTER_DEFLATE]):
            return None
        parts = [os.pread(descriptor, size, at) for _, (at, size) in sorted(places.items())]
        if filters:
            try:
                parts = [bytes(deflate.zlib_decompress(part, 16 * n_each)) for part in parts]
            except deflate.DeflateError:
                return None
        content = b"".join(parts)[: 16 * n]
    return np.frombuffer(content, _REFERENCE) if len(content) == 16 * n else None


@compiled
def _are_same(
    heaps: NDArray[Any],
    first: int,
    addresses: NDArray[Any],
    numbers: NDArray[Any],
    lengths: NDArray[Any],
    content: NDArray[Any],
    most_steps: int,
) -> bool:
    """Whether references lead to these bytes; no after so many steps, for a heap may be endless."""
    base, known, size = heaps.ctypes.data, content.ctypes.data, np.int64(len(heaps) - 16)
    begin, end, place = np.int64(-1), np.int64(-1), np.int64(0)
    places = np.full(1 << 16, -1, np.int64)  # of the objects of a collection, by their numbers
    for i in range(len(lengths)):
        n = np.int64(lengths[i])
        if n == 0:
            continue
        found = np.int64(addresses[i]) - first
        if found != begin:
            if found < 0 or found + 16 > size or load_eight(base + found) != _BEGINNING:
                return False
            begin, at = found, found + 16
            taken = np.int64(load_eight(base + begin + 8))
            end = begin + taken if 16 <= taken <= size - begin else begin
            while at + 16 <= end:
                most_steps -= 1
                number = np.int64(load_eight(base + at) & np.uint64(0xFFFF))
                taken = np.int64(load_eight(base + at + 8))
                if number == 0 or taken < 0 or taken > end - at - 16 or most_steps < 0:
                    break  # what is free is the last
                places[number] = at
                at += 16 + (taken + 7) // 8 * 8
        at = places[numbers[i]] if numbers[i] < len(places) else np.int64(-1)
        if at < begin + 16 or at >= end or np.int64(load_eight(base + at + 8)) != n:
            return False
        for k in range(0, n, 8):
            other = load_eight(base + at + 16 + k) ^ load_eight(known + place + k)
            beyond: Any = max(8 - (n - k), 0)
            if (other << np.uint64(8 * beyond)) != 0:
                return False
        place += n
    return True
