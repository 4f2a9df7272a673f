"""From a finished directory to batches, on every rank, from any position.

Read `lazy_strings`, `split_view`, `batches`, `dataset`, `token_dataset`,
`worker_transport`, `read_ahead`, `loader`, `creating`.
"""

from scdiff_data.loading.batches import CellBatch, TokenBatch
from scdiff_data.loading.creating import create_dataloader, create_hvg_dataloader
from scdiff_data.loading.dataset import HVGDataset, ScRNADataset
from scdiff_data.loading.loader import ResumableLoader, collate
from scdiff_data.loading.token_dataset import TokenDataset

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
