"""From a finished directory to batches, on every rank, from any position.

Read `order`, `sampler`, `lazy_strings`, `split_view`, `dataset`, `worker_transport`, `loader`.
"""

from scdiff_data.loading.dataset import CellBatch, HVGDataset, ScRNADataset
from scdiff_data.loading.loader import (
    ResumableLoader,
    collate,
    create_dataloader,
    create_hvg_dataloader,
)
from scdiff_data.loading.sampler import CellSampler

__all__ = [
    "CellBatch",
    "CellSampler",
    "HVGDataset",
    "ResumableLoader",
    "ScRNADataset",
    "collate",
    "create_dataloader",
    "create_hvg_dataloader",
]
