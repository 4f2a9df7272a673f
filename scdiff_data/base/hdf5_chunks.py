"""Compressed HDF5 values, inflated outside the library.

Most of the time of reading a gzip-compressed dataset goes into inflating its chunks, which HDF5
does one after another under a lock. Here the chunks' bytes are read from the file itself and
inflated by libdeflate, at more than twice zlib's speed, in as many threads as there are.
"""

import os
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

_FEWEST_AT_ONCE = 1 << 17
"""Values per read: enough that threads rarely contend for the interpreter lock, few enough to stay
in the L2 cache."""


class ChunkedValues:
    """A one-dimensional dataset, read in ranges by many threads at once.

    Parameters
    ----------
    dataset
        Chunked or not, compressed or not; its file stays open while this is used.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self._type = dataset.dtype
        self._chunk = dataset.chunks[0] if dataset.chunks else 0
        self._filters = list_filters(dataset)
        self._descriptor = dataset.file.id.get_vfd_handle()
        self._places: dict[int, tuple[int, int]] = {}
        if self._filters in ([_GZIP], [_SHUFFLE, _GZIP]) and not dataset.file.userblock_size:
            self._find_chunks()

    def __len__(self) -> int:
        return len(self._dataset)

    @property
    def step(self) -> int:
        """Values to ask for at a time: whole chunks, one or as many as make it worth the call."""
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
            first, last = low // self._chunk, -(-high // self._chunk)
            chunks = [self._inflate(number) for number in range(first, last)]
            whole = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
            return whole[low - first * self._chunk : high - first * self._chunk]
        except (deflate.DeflateError, ValueError, OSError) as error:
            name = Path(self._dataset.file.filename).name
            raise CountError(
                f"{name} is damaged: {self._dataset.name} does not inflate: {error}"
            ) from error

    def _find_chunks(self) -> None:
        """Where every chunk lies in the file, unless one is missing or was left uncompressed."""
        unusual = []

        def note(chunk: Any) -> None:
            if chunk.filter_mask:
                unusual.append(chunk)
            self._places[chunk.chunk_offset[0] // self._chunk] = (chunk.byte_offset, chunk.size)

        self._dataset.id.chunk_iter(note)
        if unusual or len(self._places) != -(-len(self) // self._chunk):
            self._places.clear()

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
