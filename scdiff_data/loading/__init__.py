"""From a finished directory to batches, on every rank, from any position.

Read `keyed_permutation`, `order`, `sampler`, `lazy_strings`, `split_view`, `dataset`,
`worker_transport`, `read_ahead`, `loader`.
"""

from scdiff_data.loading.dataset import (
    CellBatch,
    HVGDataset,
    ScRNADataset,
    TokenBatch,
    TokenDataset,
)
from scdiff_data.loading.loader import (
    ResumableLoader,
    collate,
    create_dataloader,
    create_hvg_dataloader,
)
from scdiff_data.loading.sampler import CellSampler, check_shuffle

__all__ = [
    "CellBatch",
    "CellSampler",
    "HVGDataset",
    "ResumableLoader",
    "ScRNADataset",
    "TokenBatch",
    "TokenDataset",
    "check_shuffle",
    "collate",
    "create_dataloader",
    "create_hvg_dataloader",
]
