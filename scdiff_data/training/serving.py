"""An opened data directory: a dataset a split, and each rank's loaders over them."""

from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from lightning import Trainer
from numpy.typing import NDArray

from scdiff_data.constants import SPLITS
from scdiff_data.loading import HVGDataset, ResumableLoader, TokenDataset
from scdiff_data.recipes import Recipe
from scdiff_data.sampling import CellSampler, check_shuffle
from scdiff_data.store import Manifest
from scdiff_data.tokenizers import Tokenizer, open_fit
from scdiff_data.training.prepared import open_manifest
from scdiff_data.training.token_batches import open_fit_data

_PREDICTED = (*SPLITS, "all")
"""What `predict_split` may be."""


class Serving(TypedDict, total=False):
    """How cells are served.

    Parameters
    ----------
    batch_size
        Cells a batch on each rank.
    shuffle, shuffle_seed, window_size, run_size
        How training cells are shuffled, see `CellSampler`; a seed of None is that of the draw.
    balance
        A label, or `experiment_id`: training cells are drawn with replacement, each of its values
        as often as any other. A missing value counts as one.
    num_workers, persistent_workers
        Worker processes of each loader, 0 is fastest unless the trainer itself is busy; and whether
        they live on between epochs.
    tokenizer
        Turns counts into tokens; None leaves counts. With a `count_table`, while cells are
        gathered, else on the batch's own device.
    train_counts
        Whether training batches of tokens carry the counts, too; others always do.
    predict_split
        Whose cells `Trainer.predict` is given, every one in the order of the rows: `train`, `val`,
        `test` or `all`.
    verify
        What `setup` compares with the manifest: sizes and headers of the shards, or with `full`
        also the checksum of every byte. Shards of a bucket are compared as a whole when they come.
    processed_url, local_limit
        The bucket whose local copy `data_dir` is or becomes, see `PrepareOptions`.
    """

    batch_size: int
    shuffle: Literal["window", "global"]
    shuffle_seed: int | None
    window_size: int
    run_size: int
    balance: str | None
    num_workers: int
    persistent_workers: bool
    tokenizer: Tokenizer | None
    train_counts: bool
    predict_split: Literal["train", "val", "test", "all"]
    verify: Literal["headers", "full"]
    processed_url: str | None
    local_limit: int | None


@dataclass(kw_only=True)
class LoaderSettings:
    """How batches are served, see `Serving`, and what that needs of the recipe."""

    cell_count: int | None
    batch_size: int
    seed: int
    shuffle_seed: int | None
    shuffle: Literal["window", "global"]
    window_size: int
    run_size: int
    balance: str | None
    num_workers: int
    persistent_workers: bool
    predict_split: Literal["train", "val", "test", "all"]
    verify: Literal["headers", "full"]

    def __post_init__(self) -> None:
        """Raise ValueError if a setting is out of its range."""
        if self.batch_size < 1 or self.num_workers < 0:
            found = f"{self.batch_size} and {self.num_workers}"
            raise ValueError(f"batch_size must be at least 1, num_workers at least 0, got {found}")
        check_shuffle(self.shuffle, self.window_size, self.run_size)
        if self.cell_count is not None and self.batch_size > self.cell_count:
            raise ValueError(
                f"batch_size={self.batch_size} exceeds cell_count={self.cell_count}: lower "
                "batch_size or draw more cells"
            )
        if self.predict_split not in _PREDICTED:
            raise ValueError(
                f"predict_split must be one of {_PREDICTED}, got {self.predict_split!r}"
            )
        if self.verify not in ("headers", "full"):
            raise ValueError(f"verify must be headers or full, got {self.verify!r}")


class ServedCells:
    """The cells of an opened data directory, and loaders over them.

    Parameters
    ----------
    manifest
        Of the directory.
    settings
        How batches are served.
    """

    def __init__(self, manifest: Manifest, settings: LoaderSettings) -> None:
        self.manifest = manifest
        self._settings = settings
        self._datasets = {
            name: HVGDataset(manifest, split=name) for name in SPLITS
        }  # all are opened now, so that another run's data are noticed

    def dataset(self, split: str) -> HVGDataset:
        """Those of a split, or with `all` of every split, in the order of the rows."""
        if split not in self._datasets:
            self._datasets[split] = HVGDataset(self.manifest)
        return self._datasets[split]

    def describe_sizes(self) -> str:
        """How many cells and experiments each split has."""
        n_cells, n_experiments = self.manifest.n_cells, self.manifest.n_experiments
        return ", ".join(f"{n:,} {s} of {n_experiments[s]:,}" for s, n in n_cells.items())

    def take_batch_size(
        self, size: int, hparams: MutableMapping[str, Any], trainer: Trainer | None
    ) -> int:
        """Take a DataModule's batch size; one that Lightning's Tuner set is lowered where it must.

        The Tuner sets `hparams`, too, and stops where a batch is all cells.
        """
        if size != self._settings.batch_size and hparams.get("batch_size") == size:
            n_ranks, _ = _find_ranks(trainer)
            size = hparams["batch_size"] = min(size, len(self.dataset("train")) // (n_ranks or 1))
        self._settings.batch_size = size
        return size

    @cached_property
    def _classes(self) -> NDArray[Any] | None:
        balance = self._settings.balance
        return None if balance is None else self.dataset("train").read_classes(balance)

    def make_train_sampler(self, trainer: Trainer | None) -> CellSampler:
        """The order of the training cells, and this rank's part of it.

        Raises
        ------
        ValueError
            If a batch exceeds a rank's share of them.
        """
        settings, cells = self._settings, self.dataset("train")
        is_shuffled = not getattr(trainer, "overfit_batches", 0)
        n_ranks, rank = _find_ranks(trainer)
        return CellSampler(
            len(cells),
            settings.batch_size,
            n_ranks=n_ranks,
            rank=rank,
            seed=settings.seed if settings.shuffle_seed is None else settings.shuffle_seed,
            shuffle=is_shuffled and settings.shuffle,
            window_size=settings.window_size,
            run_size=settings.run_size,
            classes=self._classes if is_shuffled else None,
            cells_key=cells.cells_key,
        )

    def make_train_loader(
        self, cells: HVGDataset | TokenDataset, trainer: Trainer | None
    ) -> ResumableLoader:
        """Full batches of training cells, in another order every epoch."""
        return self._load(cells, self.make_train_sampler(trainer))

    def make_loader(self, split: str, trainer: Trainer | None) -> ResumableLoader | list[Any]:
        """Every cell of a split once, in the order of the rows; nothing, if it has no cells."""
        cells = self.dataset(split)
        if not len(cells):
            return []
        n_ranks, rank = _find_ranks(trainer)
        sampler = CellSampler(
            len(cells),
            self._settings.batch_size,
            n_ranks=n_ranks,
            rank=rank,
            shuffle=False,
            drop_last=False,
            cells_key=cells.cells_key,
        )
        return self._load(cells, sampler)

    def _load(self, cells: HVGDataset | TokenDataset, sampler: CellSampler) -> ResumableLoader:
        return ResumableLoader(
            cells,
            sampler,
            num_workers=self._settings.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self._settings.persistent_workers,
        )


def open_cells(
    recipe: Recipe, data_dir: Path, tokenizer: Tokenizer | None, settings: LoaderSettings
) -> ServedCells:
    """Open what `recipe` made in `data_dir`, and the tokenizer's fit; raises as `open_manifest`."""
    manifest = open_manifest(recipe, data_dir, full=settings.verify == "full")
    if tokenizer is not None:
        open_fit(tokenizer, open_fit_data(manifest))
    return ServedCells(manifest, settings)


def _find_ranks(trainer: Trainer | None) -> tuple[int | None, int | None]:
    """How many ranks share the cells, and which one this is; None without a trainer.

    Ranks that hold parts of one model share their cells: the strategy knows it.
    """
    if trainer is None:
        return None, None
    named = trainer.distributed_sampler_kwargs
    if named is None:
        return trainer.world_size, trainer.global_rank
    return named["num_replicas"], named["rank"]
