"""Compressed HDF5 values, inflated outside the library's lock.

Most of the time of reading a gzip-compressed dataset goes into inflating its chunks, which HDF5
does one after another. Here the chunks are read as they lie on disk and inflated by ISA-L, which is
faster than zlib, in as many threads as there are.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from scdiff_data.errors import CountError

J = TypeVar("J")
R = TypeVar("R")
_GZIP, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE


class Workers:
    """Threads that a file's conversion is divided among; one is the calling thread itself.

    Parameters
    ----------
    n
        How many.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._pool = ThreadPoolExecutor(n, thread_name_prefix="archive") if n > 1 else None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[J], R], jobs: Iterable[J]) -> list[R]:
        """Results of the function on every job, in the order of the jobs."""
        return list(map(function, jobs) if self._pool is None else self._pool.map(function, jobs))


def read_values(dataset: h5py.Dataset, low: int, high: int, workers: Workers) -> NDArray[Any]:
    """Read `dataset[low:high]` of a one-dimensional dataset.

    Raises
    ------
    CountError
        If a chunk's compressed bytes are damaged.
    """
    filters = [dataset.id.get_create_plist().get_filter(i)[0] for i in range(_n_filters(dataset))]
    if dataset.chunks is None or filters not in ([_GZIP], [_SHUFFLE, _GZIP]):
        return np.asarray(dataset[low:high])
    chunk_size, dtype = dataset.chunks[0], dataset.dtype
    values = np.empty(high - low, dtype)

    def inflate(number: int) -> None:
        start = number * chunk_size
        first, end = max(start, low), min(start + chunk_size, high)
        skipped_filters, compressed = dataset.id.read_direct_chunk((start,))
        if skipped_filters:
            values[first - low : end - low] = dataset[first:end]
            return
        raw = isal_zlib.decompress(compressed, bufsize=chunk_size * dtype.itemsize)
        chunk = np.frombuffer(raw, np.uint8)
        if _SHUFFLE in filters:  # the values' first bytes lie together, then their second ones
            chunk = np.ascontiguousarray(chunk.reshape(dtype.itemsize, -1).T)
        chunk = chunk.view(dtype).ravel()
        values[first - low : end - low] = chunk[first - start : end - start]

    try:
        workers.map(inflate, range(low // chunk_size, -(-high // chunk_size)))
    except (isal_zlib.IsalError, ValueError, OSError) as error:  # type: ignore[misc] # its stub errs
        name = Path(dataset.file.filename).name
        raise CountError(f"{name} is damaged: {dataset.name} does not inflate: {error}") from error
    return values


def _n_filters(dataset: h5py.Dataset) -> int:
    return int(dataset.id.get_create_plist().get_nfilters())
