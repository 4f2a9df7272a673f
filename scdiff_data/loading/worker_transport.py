"""Several batches in one message from a worker process, taken apart again where they arrive.

Moving a batch between processes costs a few hundred microseconds whatever its size, gathering its
cells a fifth of that. New shared memory costs ten times as much as filling it, so counts go through
rooms of shared memory that are used again.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler, get_worker_info

from scdiff_data.base import Buffers
from scdiff_data.loading.dataset import CellBatch
from scdiff_data.loading.sampler import CellSampler

PREFETCH = 2
"""Runs that a worker works ahead."""


class RunSampler(Sampler[NDArray[np.int64]]):
    """Runs of a sampler's batches: row numbers of `n_batches` of them at a time."""

    def __init__(self, sampler: CellSampler, n_batches: int) -> None:
        self._sampler, self._n_batches = sampler, n_batches

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        batches = iter(self._sampler)
        while run := list(islice(batches, self._n_batches)):
            yield np.concatenate(run)

    def split(self, runs: Iterable[CellBatch]) -> Iterator[CellBatch]:
        """The batches of all runs, one by one."""
        sampler = self._sampler
        sizes = (
            len(range(first + sampler.rank, end, sampler.num_replicas))
            for first, end in sampler.global_batches()
        )
        for run in runs:
            start = 0
            for size in islice(sizes, self._n_batches):
                yield _take_cells(run, start, start + size)
                start += size


class _Parcel(NamedTuple):
    """What comes of a run by message: its counts, or in which room they lie, and the rest.

    Sparse counts come as crow, column and values: as one tensor they would cross with a warning.
    """

    counts: list[Tensor]
    room: tuple[int, int] | None
    shape: tuple[int, ...]
    metadata: dict[str, Any]


class Rooms:
    """Shared memory for the counts of runs on their way from workers to the main process.

    As `collate_fn` it puts a run's counts in the worker's next room; `open` takes them out. A
    worker has at most `PREFETCH` runs on their way and the main process one in its hands, so with
    one room more none is written to before it was emptied.

    Parameters
    ----------
    n_workers
        Workers that write.
    n_bytes
        Of a room; larger runs are sent as they are, and so are sparse ones.
    """

    def __init__(self, n_workers: int, n_bytes: int) -> None:
        self._shared = torch.empty(n_workers, PREFETCH + 1, n_bytes, dtype=torch.uint8)
        self._shared.share_memory_()  # type: ignore[no-untyped-call]
        self._n_sent, self._buffers = 0, Buffers()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_buffers": Buffers()}

    def __call__(self, run: CellBatch) -> _Parcel:
        """In a worker: what to send."""
        counts, metadata = run
        shape = tuple(counts.shape)
        # Small arrays travel fastest inside the message.
        metadata = {k: v.numpy() if isinstance(v, Tensor) else v for k, v in metadata.items()}
        if counts.layout == torch.sparse_csr:
            parts = [counts.crow_indices(), counts.col_indices(), counts.values()]
            return _Parcel(parts, None, shape, metadata)
        worker = get_worker_info()
        if worker is None or counts.dtype != torch.int16 or counts.nbytes > self._shared.shape[2]:
            return _Parcel([counts], None, shape, metadata)
        room = worker.id, self._n_sent % (PREFETCH + 1)
        self._n_sent += 1
        self._view(room, shape).copy_(counts)
        return _Parcel([], room, shape, metadata)

    def open(self, parcels: Iterable[_Parcel]) -> Iterator[CellBatch]:
        """In the main process: the runs."""
        for parts, room, shape, metadata in parcels:
            if room is not None:
                taken = self._buffers.take(shape, np.int16)
                # Not by torch: its threads wait for one another where workers have the cores.
                taken[:] = self._view(room, shape).numpy()
                counts = torch.from_numpy(taken)
            elif len(parts) == 1:
                counts = parts[0]
            else:
                crow, column, values = parts
                counts = torch.sparse_csr_tensor(
                    crow, column, values, shape, check_invariants=False
                )
            tensors = {
                name: torch.from_numpy(column) if isinstance(column, np.ndarray) else column
                for name, column in metadata.items()
            }
            yield CellBatch(counts, tensors)

    def _view(self, room: tuple[int, int], shape: tuple[int, ...]) -> Tensor:
        return self._shared[room][: 2 * math.prod(shape)].view(torch.int16).view(shape)


def _take_cells(batch: CellBatch, start: int, end: int) -> CellBatch:
    """Cells of a run; tensors are parts of the run's, and hold it as long as they live."""
    metadata = {name: column[start:end] for name, column in batch.metadata.items()}
    counts = batch.expression
    if counts.layout != torch.sparse_csr:
        return CellBatch(counts[start:end], metadata)
    crow = counts.crow_indices()[start : end + 1]
    kept = slice(int(crow[0]), int(crow[-1]))
    part = torch.sparse_csr_tensor(
        crow - crow[0],
        counts.col_indices()[kept],
        counts.values()[kept],
        (end - start, counts.shape[1]),
        check_invariants=False,
    )
    return CellBatch(part, metadata)
