"""Several batches in one message from a worker process, taken apart again where they arrive.

Moving a batch between processes costs a few hundred microseconds whatever its size, gathering its
cells a fifth of that.
"""

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from scdiff_data.dataset import CellBatch
from scdiff_data.sampler import CellSampler


class RunSampler(Sampler[list[NDArray[np.int64]]]):
    """Runs of a sampler's batches: row numbers of up to `n_batches` at a time."""

    def __init__(self, sampler: CellSampler, n_batches: int) -> None:
        self._sampler, self._n_batches = sampler, n_batches

    def __iter__(self) -> Iterator[list[NDArray[np.int64]]]:
        batches = iter(self._sampler)
        while run := list(islice(batches, self._n_batches)):
            yield run


class Run(NamedTuple):
    """A run's cells: one tensor of dense counts, or crow, column and values of sparse ones."""

    counts: list[Tensor]
    n_genes: int
    metadata: dict[str, Any]
    starts: list[int]


class BatchRuns(Dataset[Run]):
    """A dataset whose index is a run: all its cells at once, and where each batch starts."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitem__(self, run: list[NDArray[np.int64]]) -> Run:
        counts, metadata = self._dataset[np.concatenate(run)]
        parts = [counts]
        if counts.layout == torch.sparse_csr:
            # Sparse tensors cross between processes with a warning, their parts without.
            parts = [counts.crow_indices(), counts.col_indices(), counts.values()]
        return Run(parts, counts.shape[1], metadata, np.cumsum([0, *map(len, run)]).tolist())


def split_run(run: Run) -> Iterator[CellBatch]:
    """The batches of a run; tensors are parts of the run's, and hold it as long as they live."""
    for start, end in pairwise(run.starts):
        if len(run.counts) == 1:
            expression = run.counts[0][start:end]
        else:
            crow, column, values = run.counts
            crow = crow[start : end + 1]
            kept = slice(int(crow[0]), int(crow[-1]))
            expression = torch.sparse_csr_tensor(
                crow - crow[0],
                column[kept],
                values[kept],
                (end - start, run.n_genes),
                check_invariants=False,
            )
        metadata = {name: values[start:end] for name, values in run.metadata.items()}
        yield CellBatch(expression, metadata)
