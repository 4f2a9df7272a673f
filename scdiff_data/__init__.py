"""From scBaseCount to training batches: a Lightning DataModule for single-cell counts.

To follow a cell from the bucket to the batch, read the files in this order:

    sources.py      where cells come from: the catalog, one row an experiment
    embedded.py     sources that need no network: real blood cells, and simulated ones
    catalog.py      the catalog's snapshot, and which experiments the filters allow
    draw.py         which cells and which split: keyed hashes
    download.py     remote file to verified local file
    genes.py        the gene axis, and the alignment of a file's genes to it
    h5ad.py         an h5ad file's frames
    inflate.py      compressed HDF5 values, inflated in threads
    matrix.py       a source's matrix as blocks
    cell_sums.py    first pass over a matrix: what each cell adds up to
    transpose.py    second pass: compressed columns to compressed rows
    archive.py      one h5ad in, one int16 archive out
    given_genes.py  genes that the user names
    recipe.py       everything that decides what a data directory holds
    records.py      what became of every experiment tried
    forecast.py     how far the draw goes, and what it takes
    planning.py     what a run would do, before it does it
    cells.py        the drawn cells as one table, with their splits
    gene_sums.py    what each gene adds up to: sums that merge
    gene_statistics.py  those sums on disk, and together
    collect.py      experiments downloaded and archived until the cells are enough
    flavors.py      how genes are ranked
    hvg.py          the genes chosen, and why
    fallback.py     other genes in the empty places of cells that express few of these
    shards.py       what training reads
    manifest.py     config.json: what is there, and how it was made
    finish.py       from archives to shards and the manifest
    prepare.py      all of these stages in order
    cli.py          the command scdiff-data
    tokenizers.py   counts to tokens and back
    rank_tokens.py  cells as lists of their genes
    order.py        orders that are computed, not stored: a keyed permutation
    sampler.py      which cells come next, of every rank's batches
    buffers.py      room for batches, used again
    archive_map.py  rows of many archives at once
    shard_map.py    rows of all shards at once
    texts.py        ids that are read when somebody looks at them
    split_cells.py  the cells of a split
    dataset.py      rows as tensors
    messages.py     several batches in one message from a worker
    loader.py       batches, resumable
    fitted.py       a tokenizer's fit, kept beside the data
    resume.py       how far a run has come, in a checkpoint
    datamodule.py   prepare_data, setup, loaders
    sample_metrics.py  how alike two samples of cells are
    baselines.py    what counts cost without a model
    diffusion/      the demo model on top; nothing above knows of it

`errors.py`, `files.py`, `mapping.py` and `plots.py` serve them all.
"""

from scdiff_data.datamodule import ScRNADataModule
from scdiff_data.dataset import CellBatch, HVGDataset, ScRNADataset
from scdiff_data.embedded import Pbmc, SimulatedAtlas
from scdiff_data.errors import CountError, DownloadError, ManifestError, ScdiffDataError
from scdiff_data.loader import (
    ResumableLoader,
    collate,
    create_dataloader,
    create_hvg_dataloader,
)
from scdiff_data.planning import Plan
from scdiff_data.prepare import plan, prepare
from scdiff_data.rank_tokens import RankTokens
from scdiff_data.recipe import Recipe
from scdiff_data.sources import H5adFolder, ScBaseCount
from scdiff_data.tokenizers import (
    BinTokens,
    CountTokens,
    LogBinTokens,
    QuantileTokens,
    TokenBatch,
)

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
