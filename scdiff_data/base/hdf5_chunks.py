"""Compressed HDF5 values, inflated outside the library.

Most of the time of reading a gzip-compressed dataset goes into inflating its chunks, which HDF5
does one after another under a lock. Here the chunks' bytes are read from the file itself and
inflated by libdeflate, at more than twice zlib's speed, in as many threads as there are.

Some writers store a matrix as one chunk. The library inflates a chunk as a whole, for every read
that touches it. Here its bytes are inflated as a stream: a read goes on where the last one ended.

The filter `shuffle` puts the first bytes of all values before their second ones, and so on. Each of
these planes then has a stream of its own, which starts where one pass over the chunk found it:

    chunk, inflated     a0 b0 c0 … | a1 b1 c1 … | a2 b2 c2 … | a3 b3 c3 …
    streams             ▲            ▲            ▲            ▲            value a is a0 a1 a2 a3
"""

import os
import zlib
from pathlib import Path
from typing import Any

import deflate
import h5py
import numpy as np
from numpy.typing import NDArray

from scdiff_data.errors import CountError

_GZIP: int = h5py.h5z.FILTER_DEFLATE
"""HDF5's number of the filter gzip."""

_SHUFFLE: int = h5py.h5z.FILTER_SHUFFLE
"""HDF5's number of the filter that puts values' first bytes together, then their second …"""

_BLOSC = {32001: "blosc", 32026: "blosc2", 32015: "zstd", 32004: "lz4", 32008: "bitshuffle"}
"""Filters of hdf5plugin that h5ad files are seen with."""

_AT_ONCE = 1 << 20
"""Compressed bytes read at a time, and bytes skipped at a time."""

LARGE_CHUNK = 32 << 20
"""Bytes of a chunk from which on it is inflated little by little."""

_FEWEST_AT_ONCE = 1 << 17
"""Values per read: enough that threads rarely contend for the interpreter lock, few enough to stay
in the L2 cache."""


class ChunkedValues:
    """A dataset as one list of values, read in ranges by many threads at once.

    One of two axes, row after row, can be read if `is_sequential`.

    Parameters
    ----------
    dataset
        Chunked or not, compressed or not; its file stays open while this is used.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self._type = dataset.dtype
        width = int(np.prod(dataset.shape[1:]))
        self._chunk = dataset.chunks[0] * width if dataset.chunks else 0
        self._filters = list_filters(dataset)
        self._descriptor = dataset.file.id.get_vfd_handle()
        self._places: dict[int, tuple[int, int]] = {}
        if self._chunk and self._filters in ([_GZIP], [_SHUFFLE, _GZIP]):
            self._places = find_chunks(dataset) or {}
        self._stream: tuple[int, ChunkStream] | None = None  # of the chunk read last

    def __len__(self) -> int:
        return int(self._dataset.size)

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return int(self._type.itemsize)

    @property
    def is_sequential(self) -> bool:
        """Whether it is to be read from front to back by one thread: its chunks are large."""
        n_bytes = self._chunk * self._type.itemsize
        return bool(self._places) and n_bytes > LARGE_CHUNK

    @property
    def step(self) -> int:
        """Values to ask for at a time: whole chunks, one or as many as make it worth the call."""
        if self.is_sequential or not self._filters:
            return _FEWEST_AT_ONCE
        return self._chunk * -(-_FEWEST_AT_ONCE // self._chunk) if self._chunk else _FEWEST_AT_ONCE

    def read(self, low: int, high: int) -> NDArray[Any]:
        """Values low … high - 1, to be read only.

        Raises
        ------
        CountError
            If a chunk's compressed bytes are damaged.
        """
        try:
            if not self._places:
                return np.asarray(self._dataset[low:high])
            if self.is_sequential:
                return self._read_on(low, high)
            first, last = low // self._chunk, -(-high // self._chunk)
            chunks = [self._inflate(number) for number in range(first, last)]
            whole = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
            return whole[low - first * self._chunk : high - first * self._chunk]
        except (deflate.DeflateError, ValueError, OSError) as error:
            name = Path(self._dataset.file.filename).name
            raise CountError(
                f"{name} is damaged: {self._dataset.name} does not inflate: {error}"
            ) from error

    def _read_on(self, low: int, high: int) -> NDArray[Any]:
        """Values of large chunks, one after another."""
        parts = []
        while low < high:
            number = low // self._chunk
            end = min(high, (number + 1) * self._chunk)
            if self._stream is None or self._stream[0] != number:
                place, size = self._places[number]
                stream = ChunkStream(
                    self._descriptor,
                    place,
                    size,
                    n_values=self._chunk,
                    dtype=self._type,
                    is_shuffled=_SHUFFLE in self._filters,
                )
                self._stream = (number, stream)
            start = number * self._chunk
            parts.append(self._stream[1].read(low - start, end - start))
            low = end
        return parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty(0, self._type)])

    def _inflate(self, number: int) -> NDArray[Any]:
        place, size = self._places[number]
        compressed = os.pread(self._descriptor, size, place)
        n_bytes = self._chunk * self._type.itemsize
        raw = np.frombuffer(deflate.zlib_decompress(compressed, n_bytes), np.uint8)
        if _SHUFFLE in self._filters:
            raw = np.ascontiguousarray(raw.reshape(self._type.itemsize, -1).T).ravel()
        if len(raw) != n_bytes:
            raise ValueError(f"a chunk has {len(raw)} bytes, not {n_bytes}")
        return raw.view(self._type)


def list_filters(dataset: h5py.Dataset) -> list[int]:
    """HDF5 numbers of a dataset's filters.

    Raises
    ------
    ImportError
        If one needs a plug-in that is not installed.
    """
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    for number in filters:
        if not h5py.h5z.filter_avail(number):
            try:
                import hdf5plugin  # noqa: F401 - importing it makes its filters known
            except ImportError as error:
                raise ImportError(
                    f"{dataset.file.filename}:{dataset.name} is compressed with "
                    f"{_BLOSC.get(number, f'HDF5 filter {number}')}: pip install hdf5plugin"
                ) from error
    return filters


class ChunkStream:
    """Values of one chunk compressed by gzip, in their order.

    Parameters
    ----------
    descriptor
        Of the file.
    place, size
        Where the chunk's compressed bytes start, and how many they are.
    n_values, dtype
        Values of the whole chunk, and their type.
    is_shuffled
        Whether the filter `shuffle` was applied.
    """

    def __init__(
        self,
        descriptor: int,
        place: int,
        size: int,
        *,
        n_values: int,
        dtype: np.dtype[Any],
        is_shuffled: bool,
    ) -> None:
        self._dtype = dtype
        self._width = 1 if is_shuffled else dtype.itemsize
        plane = _Inflater(descriptor, place, place + size)
        self._starts = [plane.copy()]
        for _ in range(dtype.itemsize - 1 if is_shuffled else 0):
            plane.skip(n_values)
            self._starts.append(plane.copy())
        self._rewind()

    def _rewind(self) -> None:
        self._planes = [start.copy() for start in self._starts]
        self._at = 0

    def read(self, low: int, high: int) -> NDArray[Any]:
        """Values low … high - 1; one that starts before the last one's end starts anew.

        Raises
        ------
        ValueError
            If the compressed bytes are damaged.
        """
        if low < self._at:
            self._rewind()
        planes = []
        for plane in self._planes:
            plane.skip((low - self._at) * self._width)
            planes.append(np.frombuffer(plane.read((high - low) * self._width), np.uint8))
        self._at = high
        raw = planes[0] if len(planes) == 1 else np.stack(planes, axis=1).ravel()
        return raw.view(self._dtype)


class _Inflater:
    """A stream of inflated bytes, which can be copied where it stands."""

    def __init__(self, descriptor: int, at: int, end: int) -> None:
        self._descriptor, self._at, self._end = descriptor, at, end
        self._left = b""  # compressed bytes that were read and not used yet
        self._inflate = zlib.decompressobj()

    def copy(self) -> "_Inflater":
        other = _Inflater(self._descriptor, self._at, self._end)
        other._left, other._inflate = self._left, self._inflate.copy()
        return other

    def read(self, n: int) -> bytes:
        parts = []
        while n:
            if not self._left and not self._inflate.eof:
                self._left = os.pread(
                    self._descriptor, min(_AT_ONCE, self._end - self._at), self._at
                )
                self._at += len(self._left)
            if not self._left:
                raise ValueError("a chunk is shorter than it says")
            try:
                part = self._inflate.decompress(self._left, n)
            except zlib.error as error:
                raise ValueError(str(error)) from error
            self._left = self._inflate.unconsumed_tail
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def skip(self, n: int) -> None:
        while n:
            step = min(n, _AT_ONCE)
            self.read(step)
            n -= step


def find_chunks(dataset: h5py.Dataset) -> dict[int, tuple[int, int]] | None:
    """Place and size of every chunk, by its number along the first axis.

    None if one is missing, was left uncompressed or says that compression made it much longer, if
    chunks divide other axes, or if the bytes are not those of a file.
    """
    if dataset.file.userblock_size or any(
        chunk != n for chunk, n in zip(dataset.chunks[1:], dataset.shape[1:], strict=True)
    ):
        return None
    places: dict[int, tuple[int, int]] = {}
    unusual = []
    most = 2 * int(np.prod(dataset.chunks)) * dataset.dtype.itemsize + 1024

    def note(chunk: Any) -> None:
        if chunk.filter_mask or chunk.size > most:  # its bytes are read before they are inflated
            unusual.append(chunk)
        places[chunk.chunk_offset[0] // dataset.chunks[0]] = (chunk.byte_offset, chunk.size)

    dataset.id.chunk_iter(note)
    n_chunks = -(-dataset.shape[0] // dataset.chunks[0])
    return None if unusual or len(places) != n_chunks else places
