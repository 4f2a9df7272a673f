"""A prepared directory as scvi-tools takes it: a DataModule for its SCVI; imports no scvi-tools.

A model from the cells, and a row of it for each of them:

cells = ScviDataModule(source, "data/mine")
cells.prepare_data()
model = scvi.model.SCVI(registry=cells.registry)
model.train(datamodule=cells)
latent = model.get_latent_representation(dataloader=cells.inference_dataloader())
"""

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scdiff_data.loading import CellBatch, HVGDataset
from scdiff_data.sources import Source
from scdiff_data.training import ScRNADataModule

__all__ = ["ScviDataModule"]


class ScviDataModule(ScRNADataModule):
    """Cells for scvi-tools' `SCVI`, which trains on them by `train(datamodule=…)`.

    Parameters
    ----------
    source, data_dir
        As those of `ScRNADataModule`.
    scvi_batch_key
        What scvi-tools calls `batch_key`: `experiment_id` or a label, whose effect the model takes
        out; None takes all cells as one batch. (`batch_key` is that of the choice of genes.)
    scvi_labels_key
        What scvi-tools calls `labels_key`; None takes all cells as of one label.
    predict_split
        Whose cells `inference_dataloader` shows: all, unless `train`, `val` or `test` is given.
    **settings
        Any others of `ScRNADataModule`, except those of tokens.

    Raises
    ------
    ValueError
        If a setting is out of its range, or would not leave counts of the same genes in every cell.
    """

    def __init__(
        self,
        source: Source,
        data_dir: str | Path,
        *,
        scvi_batch_key: str | None = "experiment_id",
        scvi_labels_key: str | None = None,
        predict_split: Literal["train", "val", "test", "all"] = "all",
        **settings: Any,
    ) -> None:
        super().__init__(source, data_dir, predict_split=predict_split, **settings)
        if self.tokenizer is not None or self.recipe.fallback_min_genes:
            raise ValueError(
                "scvi-tools takes counts of the same genes in every cell: leave out tokenizer "
                f"(got {self.tokenizer!r}) and fallback_min_genes "
                f"(got {self.recipe.fallback_min_genes})"
            )
        self._keys = {"batch": scvi_batch_key, "labels": scvi_labels_key}
        self._known_codings: dict[str, _Coding] = {}

    def setup(self, stage: str | None = None) -> None:
        """Open the shards, as `ScRNADataModule.setup`."""
        super().setup(stage)
        self._known_codings = {}

    @property
    def _codings(self) -> "dict[str, _Coding]":
        """The codes of batches and labels, over the cells of all splits."""
        if not self._known_codings:
            cells = self._cells.dataset("all")
            self._known_codings = {field: _Coding(cells, k) for field, k in self._keys.items()}
        return self._known_codings

    @property
    def n_obs(self) -> int:
        """Cells of all splits."""
        return len(self._cells.dataset("all"))

    @property
    def n_vars(self) -> int:
        """Genes of a cell."""
        return self.n_genes

    @property
    def n_batch(self) -> int:
        """Values of `scvi_batch_key`."""
        return len(self.batch_labels)

    @property
    def n_labels(self) -> int:
        """Values of `scvi_labels_key`."""
        return len(self.label_keys)

    @property
    def n_samples(self) -> int:
        """Values of what scvi-tools calls samples, which SCVI does not look at."""
        return 0

    @property
    def batch_labels(self) -> list[str]:
        """What the codes of `scvi_batch_key` stand for."""
        return self._codings["batch"].names

    @property
    def label_keys(self) -> list[str]:
        """What the codes of `scvi_labels_key` stand for."""
        return self._codings["labels"].names

    @property
    def registry(self) -> dict[str, Any]:
        """What scvi-tools keeps of the data beside a model; the directory must be prepared.

        Raises
        ------
        ModuleNotFoundError
            If scvi-tools is not installed.
        """
        try:
            scvi_version = version("scvi-tools")
        except PackageNotFoundError as error:
            raise ModuleNotFoundError(
                "scvi-tools is not installed: pip install 'scdiff_data[scvi]'"
            ) from error
        sizes = {"n_obs": self.n_obs, "n_vars": self.n_vars}
        genes = sizes | {"column_names": np.array(self.gene_ids)}
        in_x = {"attr_name": "X", "attr_key": None}
        return {
            "scvi_version": scvi_version,
            "model_name": "SCVI",
            "setup_method_name": "setup_datamodule",
            "setup_args": {
                "layer": None,
                "batch_key": self._keys["batch"],
                "labels_key": self._keys["labels"],
                "size_factor_key": None,
                "categorical_covariate_keys": None,
                "continuous_covariate_keys": None,
            },
            "field_registries": {
                "X": _describe(in_x, genes, n_vars=self.n_vars, n_cells=self.n_obs),
                "batch": self._describe_codes("batch", n_batch=self.n_batch),
                "labels": self._describe_codes("labels", n_labels=self.n_labels),
                "sample": _describe({}, {}, n_sample=self.n_samples),
                "ind_x": _describe({}, {}),
                "size_factor": _describe({}, {}),
                "extra_categorical_covs": _describe({}, {}, n_extra_categorical_covs=0),
                "extra_continuous_covs": _describe({}, {}, n_extra_continuous_covs=0),
            },
        }

    def _describe_codes(self, field: str, **sizes: int) -> dict[str, Any]:
        names = np.array(self._codings[field].names, object)
        state = {"categorical_mapping": names, "original_key": self._keys[field]}
        return _describe({"attr_name": "obs", "attr_key": f"_scvi_{field}"}, state, **sizes)

    def on_before_batch_transfer(self, batch: CellBatch, dataloader_idx: int) -> dict[str, Tensor]:
        """What SCVI takes of a batch: `X`, float32 [b, g]; `batch` and `labels`, int64 [b, 1]."""
        del dataloader_idx
        codes = {field: coding.encode(batch) for field, coding in self._codings.items()}
        return {"X": batch.expression.float(), **codes}

    def inference_dataloader(self) -> Iterable[dict[str, Tensor]]:
        """Every cell of `predict_split` once, in the order of the rows, for SCVI's own methods."""
        return _Converted(self.predict_dataloader(), self.on_before_batch_transfer)


def _describe(place: dict[str, Any], state: dict[str, Any], **sizes: int) -> dict[str, Any]:
    """A field of the registry: where it would lie in an AnnData, what it holds, and how many."""
    return {"data_registry": place, "state_registry": state, "summary_stats": sizes}


class _Coding:
    """Values of a label as the numbers 0, 1, … that scvi-tools takes.

    Parameters
    ----------
    cells
        Those whose values are numbered.
    key
        A label of theirs, or `experiment_id`; None numbers all cells 0.

    Attributes
    ----------
    names
        What the numbers stand for. Of texts they are the label's own codes, and a last one for
        cells without the label.

    Raises
    ------
    ValueError
        If there is no such label.
    """

    def __init__(self, cells: HVGDataset, key: str | None) -> None:
        known = [*cells.labels, "experiment_id"]
        if key is not None and key not in known:
            raise ValueError(
                f"scvi_batch_key and scvi_labels_key must be of {known} or None, got {key!r}: "
                f"prepare with data.labels=[{','.join([*cells.labels, key])}]"
            )
        self._key = key
        self._values = None
        if key is None:
            self.names = ["all"]
        elif key in cells.categories:
            self.names = [*cells.categories[key], "missing"]
        else:
            values = cells.find_values(key)
            self._values = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
            self.names = [str(value) for value in self._values]

    def encode(self, batch: CellBatch) -> Tensor:
        """The numbers of a batch's cells, int64 [b, 1]."""
        if self._key is None:
            return torch.zeros(len(batch.expression), 1, dtype=torch.int64)
        values = batch.metadata[self._key]
        codes: Tensor
        if self._values is None:
            codes = values % len(self.names)  # a missing one's -1 becomes the last
        else:
            codes = torch.from_numpy(np.searchsorted(self._values, np.asarray(values)))
        return codes[:, None]


class _Converted:
    """Batches of a loader as scvi-tools takes them, as often as they are asked for."""

    def __init__(self, loader: Any, convert: Callable[[CellBatch, int], dict[str, Tensor]]) -> None:
        self._loader = loader
        self._convert = convert

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self._convert(batch, 0) for batch in self._loader)
