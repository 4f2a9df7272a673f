"""Several batches in one message from a worker process, taken apart again where they arrive.

Moving a batch between processes costs a few hundred microseconds whatever its size, gathering its
cells a fifth of that.
"""

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

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


class BatchRuns(Dataset[tuple[Any, list[int]]]):
    """A dataset whose index is a run: one batch of all its cells, and where each part starts."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitem__(self, run: list[NDArray[np.int64]]) -> tuple[Any, list[int]]:
        starts = np.cumsum([0, *map(len, run)]).tolist()
        return self._dataset[np.concatenate(run)], starts


def split_run(batch: CellBatch, starts: list[int]) -> Iterator[CellBatch]:
    """The batches of a run; tensors are parts of the run's, and hold it as long as they live."""
    for start, end in pairwise(starts):
        metadata = {name: column[start:end] for name, column in batch.metadata.items()}
        yield CellBatch(_take_rows(batch.expression, start, end), metadata)


def _take_rows(expression: Tensor, start: int, end: int) -> Tensor:
    if expression.layout != torch.sparse_csr:
        return expression[start:end]
    crow = expression.crow_indices()[start : end + 1]
    kept = slice(int(crow[0]), int(crow[-1]))
    return torch.sparse_csr_tensor(
        crow - crow[0],
        expression.col_indices()[kept],
        expression.values()[kept],
        (end - start, expression.shape[1]),
        check_invariants=False,
    )
