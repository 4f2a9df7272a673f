"""Predictions find the cells that they were made for, or say which do not."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import BasePredictionWriter

from scdiff_data import HVGDataset, Pbmc, ScRNADataModule
from support.cases import PBMC_SETTINGS
from support.foreign import Seeing
from support.trainers import quiet_trainer


def make(folder: Path, **changes: Any) -> ScRNADataModule:
    return ScRNADataModule(Pbmc(), folder, **(PBMC_SETTINGS | {"batch_size": 32} | changes))


def name_cells(names: Any) -> ad.AnnData:
    """Cells that are nothing but their names."""
    return ad.AnnData(obs=pd.DataFrame(index=pd.Index(names)))


@pytest.mark.parametrize("split", ["train", "val", "test", "all"])
def test_predict_is_given_every_cell_of_the_split_in_the_order_of_the_rows(
    pbmc_dir: Path, split: str
) -> None:
    model, cells = Seeing(), make(pbmc_dir, predict_split=split)
    predicted = quiet_trainer().predict(model, datamodule=cells)
    expected = HVGDataset(pbmc_dir, split=None if split == "all" else split)[:]
    assert model.seen["predict"] == expected.metadata["cell_id"].tolist()
    assert torch.equal(torch.cat(predicted), expected.expression.sum(1))


class Kept(BasePredictionWriter):
    """What Lightning hands a writer after each batch."""

    def __init__(self) -> None:
        super().__init__("batch")
        self.indices: list[Any] = []
        self.ids: list[str] = []

    def write_on_batch_end(self, *given: Any) -> None:
        self.indices.append(given[3])
        self.ids += given[4].metadata["cell_id"].tolist()


@pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices")  # Lightning's
def test_a_prediction_writer_knows_its_cells_by_their_ids_alone(pbmc_dir: Path) -> None:
    cells, writer = make(pbmc_dir), Kept()
    quiet_trainer(callbacks=[writer]).predict(Seeing(), datamodule=cells)
    assert writer.ids == cells.test_dataset[:].metadata["cell_id"].tolist()
    assert not any(writer.indices)


def test_what_trainer_predict_gives_is_written_cell_by_cell(pbmc_dir: Path) -> None:
    cells = make(pbmc_dir, predict_split="all")
    predicted = quiet_trainer().predict(Seeing(), datamodule=cells)
    counts, metadata = cells.predict_dataset[:]
    ids = metadata["cell_id"].tolist()
    adata = name_cells(np.random.default_rng(0).permutation(ids))
    cells.write_obs(adata, "sum", predicted)
    cells.write_obsm(adata, "counts", list(counts.bfloat16().split(32)))
    at = [ids.index(name) for name in adata.obs_names]
    assert adata.obs["sum"].tolist() == counts.sum(1)[at].tolist()
    np.testing.assert_array_equal(adata.obsm["counts"], counts.bfloat16().float()[at])


@pytest.mark.parametrize(
    "values",
    [
        lambda n: torch.arange(n, requires_grad=True, dtype=torch.float32),
        lambda n: torch.arange(n)[:, None],
        lambda n: np.arange(n),
        lambda n: list(range(n)),
        lambda n: list(torch.arange(n)),
        lambda n: pd.Series(range(n)),
        lambda n: list(torch.arange(n)[:, None].split(1)),
        lambda n: [list(range(30)), list(range(30, n))],
    ],
    ids=["gradient", "column", "numpy", "list", "scalars", "series", "batches of 1", "lists"],
)
def test_one_value_a_cell_may_come_in_any_shape(pbmc_dir: Path, values: Any) -> None:
    cells = make(pbmc_dir)
    adata = name_cells(cells.predict_dataset.read_ids())
    cells.write_obs(adata, "number", values(adata.n_obs))
    assert adata.obs["number"].tolist() == list(range(adata.n_obs))


def test_names_may_be_the_sources_barcodes_and_values_texts(pbmc_dir: Path) -> None:
    cells = make(pbmc_dir)
    ids, experiments = (cells.predict_dataset.read_ids(n) for n in ("cell_id", "experiment_id"))
    barcodes = [i.removeprefix(f"{e}_") for i, e in zip(ids, experiments, strict=True)]
    assert barcodes[0] != ids[0]
    adata = name_cells(barcodes[::-1])
    cells.write_obs(adata, "id", ids.tolist())
    assert adata.obs["id"].tolist() == ids[::-1].tolist()


def test_values_of_several_ranks_are_told_apart_by_their_ids(pbmc_dir: Path) -> None:
    cells = make(pbmc_dir)
    ids = cells.predict_dataset.read_ids()
    by_rank = [*range(0, len(ids), 2), *range(1, len(ids), 2)]
    adata = name_cells(ids)
    cells.write_obs(adata, "number", by_rank, cell_ids=ids[by_rank].tolist())
    assert adata.obs["number"].tolist() == list(range(len(ids)))


def test_cells_without_a_value_are_an_error_or_get_the_fill(pbmc_dir: Path) -> None:
    cells = make(pbmc_dir)
    ids = cells.predict_dataset.read_ids()
    adata = name_cells(["someone", *ids])
    with pytest.raises(ValueError, match=r"1 of the 67 cells got no value, among them 'someone'"):
        cells.write_obs(adata, "number", range(len(ids)))
    assert "number" not in adata.obs
    cells.write_obs(adata, "number", range(len(ids)), fill=np.nan)
    cells.write_obs(adata, "name", ids, fill="none")
    cells.write_obsm(adata, "numbers", np.ones((len(ids), 2), np.int16), fill=-1)
    assert np.isnan(adata.obs["number"].iloc[0])
    assert adata.obs["number"].tolist()[1:] == list(range(len(ids)))
    assert adata.obs["name"].tolist() == ["none", *ids]
    assert adata.obsm["numbers"][:2].tolist() == [[-1, -1], [1, 1]]


@pytest.mark.parametrize(
    ("names", "values", "how", "message"),
    [
        (None, np.zeros(33), {}, r"33 values for 66 cells.*several ranks.*cell_ids"),
        (None, np.zeros((66, 2)), {}, r"one value a cell.*\[66, 2\].*write_obsm"),
        (None, [None] * 66, {}, r"one value a cell.*object"),
        (["a", "b"], np.zeros(66), {}, r"no cell of adata was predicted.*'a', 'b'"),
        (["a", "a"], np.zeros(66), {}, r"obs_names must name each cell once, 'a'"),
        (None, np.zeros(2), {"cell_ids": ["x", "y"]}, r"ids of cells predicted, got 'x'"),
        (None, np.zeros(2), {"cell_ids": ["x", "x"]}, r"each cell once, 'x' is there twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_values_that_do_not_pair_with_cells_are_refused(
    pbmc_dir: Path, names: Any, values: Any, how: dict[str, Any], message: str
) -> None:
    cells = make(pbmc_dir)
    adata = name_cells(cells.predict_dataset.read_ids() if names is None else names)
    with pytest.raises(ValueError, match=message):
        cells.write_obs(adata, "number", values, **how)


def test_an_unknown_split_to_predict_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"predict_split must be one of .*, got 'tset'"):
        make(tmp_path, predict_split="tset")
