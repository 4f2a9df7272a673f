"""From scBaseCount to training batches: a Lightning DataModule for single-cell counts.

To follow a cell from a source to a batch, read the rooms from the bottom up. Each stands on those
below it, is entered by its `__init__`, and that names its files in their order.

    diffusion/      the demo model
    evaluation/     how good a model is, beside baselines and beside real cells
    training/       what Lightning takes: the DataModule, exact resuming, optimizer, callbacks
    cli.py          the command scdiff-data
    pipeline/       all stages in order, from a recipe to a finished directory   (writes)
    loading/        from a finished directory to batches, on every rank          (reads)
    genes/          which genes training sees: sums that merge, rankings, the choice
    store/          a prepared directory: what lies where, whether it is whole, the shards
    tokenizers/     counts to tokens and back
    archive/        one experiment in, one file out: int16 CSR counts over one gene axis
    sources/        where cells come from: the catalog, and the experiments' files
    base/           machinery that knows nothing of cells
    constants.py, errors.py

A format's writer and reader share a room. What writes and what reads do not know each other. Low
rooms are handed paths and never make them up.
"""

from scdiff_data.errors import CountError, DownloadError, ManifestError, ScdiffDataError
from scdiff_data.loading import (
    CellBatch,
    HVGDataset,
    ResumableLoader,
    ScRNADataset,
    collate,
    create_dataloader,
    create_hvg_dataloader,
)
from scdiff_data.pipeline import Plan, Recipe, plan, prepare
from scdiff_data.sources import H5adFolder, Pbmc, ScBaseCount, SimulatedAtlas
from scdiff_data.tokenizers import (
    BinTokens,
    CountTokens,
    LogBinTokens,
    QuantileTokens,
    RankTokens,
    TokenBatch,
)
from scdiff_data.training import ScRNADataModule

__all__ = [
    "BinTokens",
    "CellBatch",
    "CountError",
    "CountTokens",
    "DownloadError",
    "H5adFolder",
    "HVGDataset",
    "LogBinTokens",
    "ManifestError",
    "Pbmc",
    "Plan",
    "QuantileTokens",
    "RankTokens",
    "Recipe",
    "ResumableLoader",
    "ScBaseCount",
    "ScRNADataModule",
    "ScRNADataset",
    "ScdiffDataError",
    "SimulatedAtlas",
    "TokenBatch",
    "collate",
    "create_dataloader",
    "create_hvg_dataloader",
    "plan",
    "prepare",
]
