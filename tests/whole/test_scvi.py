"""scvi-tools' SCVI trains on a prepared directory; half of this needs no scvi-tools."""

import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scdiff_data import CountTokens, HVGDataset, Pbmc, ScBaseCount
from scdiff_data.scvi import ScviDataModule
from support.cases import ATLAS_SETTINGS, PBMC_SETTINGS, ROOT
from support.walk import PACKAGE

OF_OTHERS = pytest.mark.filterwarnings("ignore")
"""Warnings of scvi-tools and its own libraries."""


def make(folder: Path, **changes: Any) -> ScviDataModule:
    return ScviDataModule(Pbmc(), folder, **(PBMC_SETTINGS | {"batch_size": 32} | changes))


def gather(data: ScviDataModule) -> dict[str, torch.Tensor]:
    """All that the inference loader gives."""
    batches = list(data.inference_dataloader())
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@pytest.mark.parametrize("key", ["experiment_id", "n_counts"])
def test_every_cell_comes_in_the_order_of_the_rows_with_its_codes(pbmc_dir: Path, key: str) -> None:
    data = make(pbmc_dir, scvi_batch_key=key, scvi_labels_key="cell_type")
    cells = HVGDataset(pbmc_dir)
    found, (counts, metadata) = gather(data), cells[:]
    assert torch.equal(found["X"], counts.float())
    assert found["batch"][:, 0].tolist() == cells.read_classes(key).tolist()
    values = np.asarray(metadata[key]).astype(str)
    assert [data.batch_labels[code] for code in found["batch"][:, 0]] == values.tolist()
    assert torch.equal(found["labels"], metadata["cell_type"][:, None])
    assert data.n_obs == 700


def test_cells_without_a_label_are_of_a_class_of_their_own(
    atlas_bucket: Path, atlas_dir: Path
) -> None:
    source = ScBaseCount(url=str(atlas_bucket))
    data = ScviDataModule(source, atlas_dir, scvi_batch_key="cell_type", **ATLAS_SETTINGS)
    codes, stored = gather(data)["batch"][:, 0], HVGDataset(atlas_dir)[:].metadata["cell_type"]
    assert (stored < 0).any()
    assert torch.equal(codes[stored >= 0], stored[stored >= 0])
    assert set(codes[stored < 0].tolist()) == {data.batch_labels.index("missing")}
    assert int(codes.max()) == data.n_batch - 1


def test_the_registry_has_what_scvi_tools_reads(
    pbmc_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(pbmc_dir, scvi_labels_key=None)
    monkeypatch.setattr("scdiff_data.scvi.version", lambda _: "1.4.2")
    fields = data.registry["field_registries"]
    assert data.registry["setup_method_name"] == "setup_datamodule"
    assert fields["X"]["state_registry"]["column_names"].tolist() == data.gene_ids
    assert fields["batch"]["state_registry"]["categorical_mapping"].tolist() == data.batch_labels
    sizes = {name: n for field in fields.values() for name, n in field["summary_stats"].items()}
    assert sizes["n_cells"] == 700
    assert (sizes["n_vars"], sizes["n_batch"], sizes["n_labels"]) == (64, 7, 1)


def test_what_scvi_tools_cannot_be_given_is_refused(
    pbmc_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"counts of the same genes.*CountTokens"):
        make(pbmc_dir, tokenizer=CountTokens(4))
    with pytest.raises(
        ValueError, match=r"of \['cell_type', 'n_counts', 'experiment_id'\].*'donor'"
    ):
        make(pbmc_dir, scvi_batch_key="donor").batch_labels  # noqa: B018
    monkeypatch.setattr("scdiff_data.scvi.version", _find_nothing)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'scdiff_data\[scvi\]'"):
        make(pbmc_dir).registry  # noqa: B018


@pytest.fixture(scope="module")
def trained(pbmc_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of some epochs, its data, and the warnings that came meanwhile."""
    folder = tmp_path_factory.mktemp("scvi")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scvi = pytest.importorskip("scvi")
        data = make(pbmc_dir, scvi_labels_key="cell_type")
        model = scvi.model.SCVI(registry=data.registry, n_hidden=16, n_latent=4)
        train(model, data, folder)
    return model, data, said


def train(model: Any, data: ScviDataModule, folder: Path) -> None:
    quiet = {"enable_progress_bar": False, "default_root_dir": folder, "accelerator": "cpu"}
    model.train(datamodule=data, max_epochs=4, check_val_every_n_epoch=1, **quiet)


@OF_OTHERS
def test_training_lowers_the_loss_of_both_splits_and_warns_of_nothing_of_ours(trained: Any) -> None:
    model, _, said = trained
    for name in ("elbo_train", "elbo_validation"):
        losses = model.history[name].iloc[:, 0].tolist()
        assert len(losses) == 4
        assert losses[-1] < losses[0]
    assert [str(w.message) for w in said if PACKAGE in Path(w.filename).parents] == []


@OF_OTHERS
def test_a_latent_row_is_that_of_the_cell_of_its_row(trained: Any) -> None:
    model, data, _ = trained
    latent = model.get_latent_representation(dataloader=data.inference_dataloader())
    cells = HVGDataset(data.data_dir)
    assert latent.shape == (len(cells), 4)
    rows = [699, 0, 350]
    with torch.no_grad():
        found = model.module.inference(x=cells[rows].expression.float(), batch_index=None)
    np.testing.assert_allclose(found["qz"].loc.numpy(), latent[rows], rtol=1e-5, atol=1e-6)


@OF_OTHERS
def test_a_saved_model_is_the_same_when_loaded_and_can_be_trained_on(
    trained: Any, tmp_path: Path
) -> None:
    model, data, _ = trained
    latent = model.get_latent_representation(dataloader=data.inference_dataloader())
    model.save(tmp_path / "model", datamodule=data)
    again = type(model).load(tmp_path / "model", adata=False, accelerator="cpu")
    found = again.get_latent_representation(dataloader=data.inference_dataloader())
    np.testing.assert_array_equal(found, latent)
    train(again, data, tmp_path)
    assert len(again.history["elbo_train"]) == 8


def test_the_example_embeds_every_cell(tmp_path: Path) -> None:
    pytest.importorskip("scvi")
    command = [sys.executable, "-W", "ignore", ROOT / "examples" / "scvi_tools.py"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "700 cells, " in done.stdout.splitlines()[-1]


def _find_nothing(name: str) -> Any:
    raise PackageNotFoundError(name)
