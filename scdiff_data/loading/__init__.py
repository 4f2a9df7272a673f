"""From a finished directory to batches, on every rank, from any position.

Read `lazy_strings`, `split_view`, `dataset`,
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

__all__ = [
    "CellBatch",
    "HVGDataset",
    "ResumableLoader",
    "ScRNADataset",
    "TokenBatch",
    "TokenDataset",
    "collate",
    "create_dataloader",
    "create_hvg_dataloader",
]
