"""The DataModule: `prepare_data` makes the data, `setup` opens them, loaders serve them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, Unpack

from anndata import AnnData
from lightning import LightningDataModule

from scdiff_data.loading import HVGDataset, ResumableLoader
from scdiff_data.planning import Plan
from scdiff_data.recipes import PrepareOptions, Recipe, Stages
from scdiff_data.sources import Condition, Source
from scdiff_data.tokenizers import Tokenizer, describe_fit, restore_fit, store_fit
from scdiff_data.training.plain_values import make_plain, pass_on
from scdiff_data.training.predictions import Placement, align, join_batches
from scdiff_data.training.prepared import make_ready, plan_work, read_settings
from scdiff_data.training.resume import Bookmark, Restorer
from scdiff_data.training.serving import LoaderSettings, ServedCells, Serving, open_cells
from scdiff_data.training.token_batches import open_fit_data, serve_tokens, transfer_tokens

logger = logging.getLogger(__name__)


class ScRNADataModule(LightningDataModule):
    """Cells for any LightningModule, from a source to shuffled, resumable batches on every rank.

    A batch is a `CellBatch(expression, metadata)`, or with a tokenizer a
    `TokenBatch(tokens, metadata)`, so `x, metadata = batch` is all that a module must know.

    Parameters
    ----------
    source
        Where cells come from: `ScBaseCount()`, `H5adFolder(path)`, …; or see `from_directory`.
    data_dir
        Where everything is kept; prepared once, then found.
    cell_count, seed, filters, exclude, cell_filters, max_cells_per_experiment
        Which cells, see `Recipe`.
    min_genes, min_counts, max_genes, max_mito_pct, mito_genes, min_pass_fraction, min_cells
        Quality filter of cells and experiments, see `Recipe`.
    split, labels, shard_size, shard_format, gene_axis, max_failed_fraction
        How they are divided and stored, see `Recipe`.
    n_hvgs, min_cells_pct, flavor, normalize, span, batch_key, genes, fallback_min_genes
        Which genes of theirs, see `Recipe`.
    n_threads, max_memory, keep_downloads, refresh_catalog, retry_failed, replace_data
    processed_url, local_limit, stages, executor
        How they are prepared, see `prepare`, where `replace_data` is `replace`.
    batch_size, shuffle, shuffle_seed, window_size, run_size, balance, num_workers
    persistent_workers, tokenizer, train_counts, predict_split, verify
        How they are served, see `Serving`.

    Raises
    ------
    ValueError
        If a setting is out of its range; before any work starts.
    """

    def __init__(
        self,
        source: Source | Mapping[str, Any],
        data_dir: str | Path,
        *,
        cell_count: int | None = None,
        seed: int = 42,
        filters: Mapping[str, Condition] | None = None,
        exclude: Mapping[str, Condition] | None = None,
        max_cells_per_experiment: int | None = None,
        min_genes: int | None = 300,
        min_counts: int | None = 500,
        max_genes: int | None = None,
        max_mito_pct: float | None = None,
        mito_genes: str | Sequence[str] = "MT-",
        min_pass_fraction: float = 0.0,
        min_cells: int = 0,
        cell_filters: Mapping[str, Condition] | None = None,
        split: Mapping[str, Any] | None = None,
        labels: Sequence[str] | Mapping[str, Sequence[str] | None] = ("cell_type",),
        n_hvgs: int | None = 2000,
        min_cells_pct: float = 0.1,
        flavor: str = "dispersion",
        normalize: bool = False,
        span: float = 0.3,
        batch_key: str | None = None,
        genes: str | Path | Sequence[str] | None = None,
        fallback_min_genes: int = 0,
        shard_size: int = 10_000,
        shard_format: str = "auto",
        gene_axis: Any = None,
        max_failed_fraction: float | None = None,
        n_threads: int = 4,
        max_memory: int = 1 << 30,
        keep_downloads: bool = False,
        refresh_catalog: bool = False,
        retry_failed: bool = False,
        replace_data: bool = False,
        processed_url: str | None = None,
        local_limit: int | None = None,
        stages: Stages = "all",
        executor: Any = None,
        batch_size: int = 128,
        shuffle: Literal["window", "global"] = "window",
        shuffle_seed: int | None = None,
        window_size: int = 65_536,
        run_size: int = 256,
        balance: str | None = None,
        num_workers: int = 0,
        persistent_workers: bool = False,
        tokenizer: Tokenizer | None = None,
        train_counts: bool = False,
        predict_split: Literal["train", "val", "test", "all"] = "test",
        verify: Literal["headers", "full"] = "headers",
    ) -> None:
        given = make_plain(dict(locals()))
        super().__init__()
        objects = ["executor", "tokenizer", *["source"] * (not isinstance(source, Mapping))]
        self.save_hyperparameters(ignore=[*objects, "_instantiator"], logger=False)  # a CLI's
        self.hparams.update(make_plain(dict(self.hparams)))  # those of a subclass, too
        self.recipe = pass_on(Recipe, given)
        self._settings = pass_on(LoaderSettings, given)
        self._options = pass_on(PrepareOptions, given | {"replace": given["replace_data"]})
        self.data_dir = Path(data_dir)
        self.batch_size: int = given["batch_size"]
        self.predict_split: str = given["predict_split"]
        self.tokenizer, self._train_counts = tokenizer, train_counts
        self._opened: ServedCells | None = None
        self._bookmark = Bookmark()

    @classmethod
    def from_directory(cls, data_dir: str | Path, **serving: Unpack[Serving]) -> Self:
        """Open a prepared directory as it is, without a source: what it is, its manifest says.

        Parameters
        ----------
        data_dir
            The directory, or its `processed` folder.
        **serving
            How its cells are served.

        Raises
        ------
        FileNotFoundError, ManifestError
            If it was not prepared, or its manifest is damaged or of another version.
        ValueError
            If a setting is out of its range, or one of the recipe.
        """
        return cls(**read_settings(data_dir, serving), **serving)

    def __repr__(self) -> str:
        found = "not opened" if self._opened is None else self._opened.describe_sizes()
        return f"ScRNADataModule({self.recipe.source!r}, {str(self.data_dir)!r}: {found})"

    def plan(self) -> Plan:
        """What `prepare_data` would draw, fetch and store, without fetching a cell."""
        return plan_work(self.recipe, self.data_dir, self._options)

    def prepare_data(self) -> None:
        """Run all stages up to the shards, or find them done; Lightning calls this once a node."""
        manifest = make_ready(self.recipe, self.data_dir, self._options)
        if manifest is not None and self.tokenizer is not None:
            store_fit(self.tokenizer, open_fit_data(manifest))
        # Once is enough: `fit` and `test` in one run call this twice.
        once: dict[str, Any] = dict.fromkeys(("refresh_catalog", "retry_failed", "replace"), False)
        self._options = replace(self._options, **once)

    def setup(self, stage: str | None = None) -> None:
        """Open the shards and fit the tokenizer; builds nothing on disk.

        Raises
        ------
        FileNotFoundError, ManifestError
            If the data directory was not prepared, or with other settings, or is damaged.
        ValueError
            If a batch exceeds a rank's share of the training cells.
        """
        self._opened = None
        Restorer(self, self._bookmark).join(self.trainer)
        if stage in (None, "fit"):
            self._bookmark.close()  # what was read of another checkpoint is not this run's
            self._cells.make_train_sampler(self.trainer)  # says at once if batches are too large
        if stage != "test" and (self.trainer is None or self.trainer.is_global_zero):
            logger.info("cells: %s experiments", self._cells.describe_sizes())

    @property
    def _cells(self) -> ServedCells:
        """What `setup` opened; opened now, if it was not called yet."""
        if self._opened is None:
            self._opened = open_cells(self.recipe, self.data_dir, self.tokenizer, self._settings)
        self.batch_size = self._opened.take_batch_size(self.batch_size, self.hparams, self.trainer)
        return self._opened

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints keep: the genes' fingerprint, the tokenizer's fit, how far it went."""
        kept = describe_fit(self.tokenizer, open_fit_data(self._cells.manifest))
        return kept | {"progress": self._bookmark.describe(self.trainer)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the cells not seen; raises ValueError if genes or tokens are others."""
        restore_fit(self.tokenizer, open_fit_data(self._cells.manifest), state_dict)
        if self.trainer is not None and self.trainer.training:
            sampler = self._cells.make_train_sampler(self.trainer)
            self._bookmark.open(self.trainer, state_dict.get("progress"), sampler)

    @property
    def train_dataset(self) -> HVGDataset:
        """The training cells."""
        return self._cells.dataset("train")

    @property
    def val_dataset(self) -> HVGDataset:
        """The validation cells."""
        return self._cells.dataset("val")

    @property
    def test_dataset(self) -> HVGDataset:
        """The test cells."""
        return self._cells.dataset("test")

    @property
    def predict_dataset(self) -> HVGDataset:
        """The cells of `predict_split`."""
        return self._cells.dataset(self.predict_split)

    @property
    def n_genes(self) -> int:
        """Genes of a batch."""
        return self.train_dataset.n_genes

    @property
    def gene_ids(self) -> list[str]:
        """Ids of a batch's genes, in their order."""
        return self.train_dataset.gene_ids

    @property
    def gene_symbols(self) -> list[str]:
        """Symbols of a batch's genes, in their order."""
        return self.train_dataset.gene_symbols

    @property
    def gene_places(self) -> list[int] | None:
        """The genes' rows in `metadata/genes.parquet`, where places may hold others; else None."""
        return self.train_dataset.gene_places

    @property
    def n_reference_genes(self) -> int:
        """Genes of the reference axis, of which a place may hold any with `fallback_min_genes`."""
        return self._cells.manifest.genes.n_reference

    @property
    def categories(self) -> dict[str, list[str]]:
        """What the codes of each text label stand for."""
        return self.train_dataset.categories

    def train_dataloader(self) -> ResumableLoader:
        """Full batches of training cells, in another order every epoch."""
        dataset = serve_tokens(self.train_dataset, self.tokenizer, with_counts=self._train_counts)
        loader = self._cells.make_train_loader(dataset, self.trainer)
        return self._bookmark.follow(loader, self.trainer)

    def val_dataloader(self) -> ResumableLoader | list[Any]:
        """Every validation cell once; nothing, if the split has no validation cells."""
        return self._cells.make_loader("val", self.trainer)

    def test_dataloader(self) -> ResumableLoader | list[Any]:
        """Every test cell once; nothing, if the split has no test cells."""
        return self._cells.make_loader("test", self.trainer)

    def predict_dataloader(self) -> ResumableLoader | list[Any]:
        """Every cell of `predict_split` once, in the order of the rows."""
        return self._cells.make_loader(self.predict_split, self.trainer)

    def write_obs(self, adata: AnnData, name: str, values: Any, **how: Unpack[Placement]) -> None:
        """Write one predicted value a cell into `adata.obs[name]`.

        `values` are those of the cells of `predict_dataloader` in their order, as one array or a
        batch at a time, as `Trainer.predict` gives them; or of `cell_ids`, if these are given.
        `obs_names` are our ids, `{experiment_id}_{barcode}`, or the source's barcodes. Cells
        without a value get `fill`.

        Raises
        ------
        ValueError
            If values and cells do not pair, or a cell has no value and there is no `fill`.
        """
        adata.obs[name] = align(adata, join_batches(values, 1), self.predict_dataset, **how)

    def write_obsm(self, adata: AnnData, name: str, values: Any, **how: Unpack[Placement]) -> None:
        """Write a predicted row of values a cell into `adata.obsm[name]`, as `write_obs` does."""
        adata.obsm[name] = align(adata, join_batches(values, 2), self.predict_dataset, **how)

    @property
    def transfer_batch_to_device(self) -> Callable[..., Any]:
        """Moves a batch; with a tokenizer it makes tokens there, else it is Lightning's own.

        Of a hook that a DataModule overrides, Lightning does not ask the module's.
        """
        move = super().transfer_batch_to_device
        return move if self.tokenizer is None else partial(transfer_tokens, move, self.tokenizer)
