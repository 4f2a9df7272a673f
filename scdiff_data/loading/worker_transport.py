"""Several batches in one message from a worker process, taken apart again where they arrive.

Moving a batch between processes costs a few hundred microseconds whatever its size, gathering its
cells a fifth of that. New shared memory costs ten times as much as filling it, so counts go through
slots of shared memory that are used again.

    worker process w            shared memory            main process
    rows of 4 batches
      ─▶ counts [4b, g] ─copy─▶ shared[w, 0]  ─copy─▶ batch, in an array of the pool
                                              ─copy─▶ batch, …
                                shared[w, 1]
                                shared[w, 2]
      ─▶ metadata and "slot (w, 0)" ─── a message ───▶

A worker writes its slots in turn. At most `PREFETCH` of its groups are on their way, and the main
process has taken at most one more from the queue, whose batches it copies out one by one. So with
`PREFETCH` + 1 slots, a slot is only written to after its counts were copied out.

Each batch has memory of its own: it can be saved, or kept, without those that came with it. Only
pinned batches are views of their group, since the copy on the GPU is of the batch alone.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler, get_worker_info

from scdiff_data.base import ArrayPool
from scdiff_data.loading.batches import CellBatch, TokenBatch
from scdiff_data.sampling import CellSampler

PREFETCH = 2
"""Groups of batches that a worker works ahead."""


class BatchGroupSampler(Sampler[NDArray[np.int64]]):
    """Row numbers of `n_batches` of a sampler's batches at a time, which workers gather as one."""

    def __init__(self, sampler: CellSampler, n_batches: int) -> None:
        self._sampler = sampler
        self._n_batches = n_batches

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        batches = iter(self._sampler)
        while group := list(islice(batches, self._n_batches)):
            yield np.concatenate(group)

    def cut(self) -> Iterator[list[slice]]:
        """Of every group, which of its cells each batch is."""
        sampler = self._sampler
        sizes = (
            len(range(first + sampler.rank, end, sampler.num_replicas))
            for first, end in sampler.global_batches()
        )
        while group := list(islice(sizes, self._n_batches)):
            ends = accumulate(group)
            yield [slice(end - size, end) for size, end in zip(group, ends, strict=True)]


class _Message(NamedTuple):
    """A group of batches on its way from a worker.

    Parameters
    ----------
    counts
        Dense counts that did not go through shared memory, one tensor; or of sparse ones crow
        indices, column indices and values, which as one tensor would cross with a warning.
    slot
        Worker and number of the slot of shared memory that holds the counts, or None.
    shape
        Cells and genes.
    metadata
        That of the group, tensors as arrays.
    kind, dtype
        Counts or tokens, and their type.
    """

    counts: list[Tensor]
    slot: tuple[int, int] | None
    shape: tuple[int, ...]
    metadata: dict[str, Any]
    kind: type[CellBatch | TokenBatch]
    dtype: torch.dtype


class SharedSlots:
    """Shared memory for the counts of groups on their way from workers to the main process.

    As `collate_fn`, it copies a group's counts to the worker's next slot; `open` copies each batch
    out.

    Parameters
    ----------
    n_workers
        Workers that write.
    n_bytes
        Of a slot. Groups that are larger, or sparse, are sent as they are.
    """

    def __init__(self, n_workers: int, n_bytes: int) -> None:
        self._shared = torch.empty(n_workers, PREFETCH + 1, n_bytes, dtype=torch.uint8)
        self._shared.share_memory_()  # type: ignore[no-untyped-call]
        self._n_sent = 0
        self._pool = ArrayPool()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pool": ArrayPool()}

    def __call__(self, group: CellBatch | TokenBatch) -> _Message:
        """In a worker: what to send."""
        counts, metadata = group
        shape = tuple(counts.shape)
        # Small arrays travel fastest inside the message.
        metadata = {k: v.numpy() if isinstance(v, Tensor) else v for k, v in metadata.items()}
        if counts.layout == torch.sparse_csr:
            parts = [counts.crow_indices(), counts.col_indices(), counts.values()]
            return _Message(parts, None, shape, metadata, type(group), counts.dtype)
        kind = type(group), counts.dtype
        worker = get_worker_info()
        if worker is None or counts.nbytes > self._shared.shape[2]:
            return _Message([counts], None, shape, metadata, *kind)
        slot = worker.id, self._n_sent % (PREFETCH + 1)
        self._n_sent += 1
        self._view(slot, shape, counts.dtype).copy_(counts)
        return _Message([], slot, shape, metadata, *kind)

    def open(
        self, messages: Iterable[_Message], groups: Iterable[list[slice]]
    ) -> Iterator[CellBatch | TokenBatch]:
        """In the main process: the batches, of groups that were cut as `groups` says."""
        for message, batches in zip(messages, groups, strict=True):
            parts, is_alone = message.counts, False
            if message.slot is not None:
                parts = [self._view(message.slot, message.shape, message.dtype)]
            else:
                is_alone = len(batches) == 1 or parts[0].is_pinned()
            for cells in batches:
                counts = _take_rows(parts, cells, message.shape)
                metadata = {k: _take(column, cells) for k, column in message.metadata.items()}
                yield message.kind(counts if is_alone else self._copy(counts), metadata)

    def _copy(self, counts: Tensor) -> Tensor:
        if counts.layout == torch.sparse_csr:
            return counts.clone()
        sent = counts.numpy()
        taken = self._pool.take(sent.shape, sent.dtype)
        # Not by torch: its threads wait for one another where workers have the cores.
        taken[:] = sent
        return torch.from_numpy(taken)

    def _view(self, slot: tuple[int, int], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return self._shared[slot][: dtype.itemsize * math.prod(shape)].view(dtype).view(shape)


def _take_rows(parts: list[Tensor], cells: slice, shape: tuple[int, ...]) -> Tensor:
    """Some cells' counts, as views."""
    if len(parts) == 1:
        return parts[0][cells]
    crow, column, values = parts
    ends = crow[cells.start : cells.stop + 1]
    kept = slice(int(ends[0]), int(ends[-1]))
    part = ends - ends[0], column[kept], values[kept]
    n_cells = cells.stop - cells.start
    return torch.sparse_csr_tensor(*part, (n_cells, shape[1]), check_invariants=False)


def _take(column: Any, cells: slice) -> Any:
    """Some cells' values; ids are read when somebody looks at them."""
    part = column[cells]
    return torch.from_numpy(part.copy()) if isinstance(part, np.ndarray) else part
