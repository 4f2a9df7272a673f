"""From scBaseCount to training batches: a Lightning DataModule for single-cell counts.

The rooms stand in the order in which they are done with a cell. Each imports only from rooms above
it and is entered by its `__init__`, which names its files in their order.

    base/           machinery that knows nothing of cells
    telling/        how far work is: bars, or a line every 30 seconds
    starting/       how a script starts: its run's name, settings and mistakes
    executors/      work that other processes and machines do, and that survives them
    fetching/       a file, brought to this machine and checked
    opening/        a file of anyone's, opened: nothing leads out of it or never ends
    reading/        a file of anyone's, as it is: cells, genes, counts in blocks
    sources/        where cells come from: the catalog of experiments
    offline/        sources that need no network: real cells of scanpy's, and simulated ones
    archive/        an experiment becomes a file: int16 CSR counts over one gene axis
    genes/          which genes training sees: sums that merge, rankings, the choice
    store/          a prepared directory: what lies where, and what became of it
    remote/         a prepared directory in a bucket: sent there, brought shard by shard
    shuffle/        from the archives' order to another one, by way of the disk
    shards/         what training reads, dense or compact, gathered from memory maps
    recipes/        what is wanted, and how it is done: settings, checked before any work
    planning/       what a run would draw, fetch and store, worked out before it starts
    pipeline/       all of these in order, from a recipe to a finished directory   (writes)
    sampling/       which cells come when: orders that are computed, and each rank's part
    loading/        from a finished directory to batches, on every rank            (reads)
    reporting/      what a directory holds: a card, and a page of pictures         (reads)
    tokenizers/     counts to tokens and back
    training/       what Lightning takes: the DataModule, exact resuming, optimizer
    callbacks/      beside any module: averaged weights, speed, an orderly stop
    measuring/      how alike two samples of cells are, how well predictions hold
    evaluation/     how good a model is, beside baselines and beside real cells
    diffusion/      the demo model
    command/        all of this from a shell: functions become commands

`errors.py` and `constants.py` stand before them all, `cli.py` starts the command scdiff-data,
`scvi.py` is what scvi-tools takes.

A format's writer and reader share a room. What writes and what reads do not know each other. Low
rooms are handed paths and never make them up: only store knows what lies where.

    a count is checked                 reading/source_matrix.py
    a gene is chosen                   genes/choice.py
    a row is gathered                  shards/rows.py; of all genes, archive/rows.py
    a resumed run finds its place      training/resume.py
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scdiff_data.errors import CountError, DownloadError, ManifestError, ScdiffDataError
    from scdiff_data.executors import DaskWorkers, LocalWorkers, SlurmWorkers
    from scdiff_data.loading import (
        CellBatch,
        HVGDataset,
        ResumableLoader,
        ScRNADataset,
        TokenBatch,
        TokenDataset,
        collate,
        create_dataloader,
        create_hvg_dataloader,
    )
    from scdiff_data.offline import Pbmc, SimulatedAtlas
    from scdiff_data.pipeline import (
        check_data_dir,
        choose_genes_again,
        convert_shards,
        plan,
        prepare,
    )
    from scdiff_data.planning import Plan
    from scdiff_data.recipes import Recipe, Split
    from scdiff_data.remote import fetch_processed
    from scdiff_data.reporting import DataCard, describe, write_data_report
    from scdiff_data.sampling import CellSampler
    from scdiff_data.sources import (
        Bucket,
        Census,
        H5adCollection,
        H5adFolder,
        ScBaseCount,
        Source,
        Tahoe100M,
    )
    from scdiff_data.store import Manifest
    from scdiff_data.tokenizers import (
        BinTokens,
        CountTokens,
        LogBinTokens,
        QuantileTokens,
        RankTokens,
        Tokenizer,
    )
    from scdiff_data.training import ScRNADataModule

__all__ = [
    "BinTokens",
    "Bucket",
    "CellBatch",
    "CellSampler",
    "Census",
    "CountError",
    "CountTokens",
    "DaskWorkers",
    "DataCard",
    "DownloadError",
    "H5adCollection",
    "H5adFolder",
    "HVGDataset",
    "LocalWorkers",
    "LogBinTokens",
    "Manifest",
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
    "SlurmWorkers",
    "Source",
    "Split",
    "Tahoe100M",
    "TokenBatch",
    "TokenDataset",
    "Tokenizer",
    "__version__",
    "check_data_dir",
    "choose_genes_again",
    "collate",
    "convert_shards",
    "create_dataloader",
    "create_hvg_dataloader",
    "describe",
    "fetch_processed",
    "plan",
    "prepare",
    "write_data_report",
]

_ROOM_OF = {
    "CountError": "errors",
    "DownloadError": "errors",
    "ManifestError": "errors",
    "ScdiffDataError": "errors",
    "DaskWorkers": "executors",
    "LocalWorkers": "executors",
    "SlurmWorkers": "executors",
    "CellBatch": "loading",
    "CellSampler": "sampling",
    "HVGDataset": "loading",
    "ResumableLoader": "loading",
    "ScRNADataset": "loading",
    "collate": "loading",
    "create_dataloader": "loading",
    "create_hvg_dataloader": "loading",
    "Plan": "planning",
    "Recipe": "recipes",
    "Split": "recipes",
    "check_data_dir": "pipeline",
    "choose_genes_again": "pipeline",
    "convert_shards": "pipeline",
    "plan": "pipeline",
    "prepare": "pipeline",
    "fetch_processed": "remote",
    "DataCard": "reporting",
    "describe": "reporting",
    "write_data_report": "reporting",
    "Bucket": "sources",
    "Census": "sources",
    "H5adCollection": "sources",
    "H5adFolder": "sources",
    "Pbmc": "offline",
    "ScBaseCount": "sources",
    "SimulatedAtlas": "offline",
    "Tahoe100M": "sources",
    "Source": "sources",
    "Manifest": "store",
    "BinTokens": "tokenizers",
    "CountTokens": "tokenizers",
    "LogBinTokens": "tokenizers",
    "QuantileTokens": "tokenizers",
    "RankTokens": "tokenizers",
    "TokenBatch": "loading",
    "TokenDataset": "loading",
    "Tokenizer": "tokenizers",
    "ScRNADataModule": "training",
}
"""Where each name is: looked up on first use, so that what prepares data loads no torch."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = version("scdiff_data")
    elif name in _ROOM_OF:
        value = getattr(import_module(f"scdiff_data.{_ROOM_OF[name]}"), name)
    else:
        raise AttributeError(f"module 'scdiff_data' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
