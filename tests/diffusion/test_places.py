"""The demo model on cells whose places may hold other genes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from scdiff_data import LogBinTokens, Pbmc, ScRNADataModule
from scdiff_data.diffusion import MaskedDiffusion
from support.cases import PBMC_SETTINGS


def cells(folder: Path, **changes: Any) -> ScRNADataModule:
    settings = PBMC_SETTINGS | {"n_hvgs": 24, "fallback_min_genes": 16} | changes
    return ScRNADataModule(Pbmc(), folder, batch_size=64, tokenizer=LogBinTokens(8), **settings)


@pytest.fixture(scope="module")
def filled_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first to ask prepares it."""
    return tmp_path_factory.mktemp("filled")


@pytest.mark.parametrize("patch_size", [1, 8])
def test_it_trains_on_them_starts_at_their_marginals_and_generates(
    filled_dir: Path, tmp_path: Path, make_trainer: Any, small_model: Any, patch_size: int
) -> None:
    datamodule = cells(filled_dir)
    model = small_model(patch_size=patch_size)
    first = make_trainer(limit_train_batches=0, max_epochs=1)
    first.validate(model, datamodule=datamodule, verbose=False)
    before = dict(first.callback_metrics)
    assert float(before["val/loss"]) == pytest.approx(float(before["val/marginal"]), abs=1e-5)
    trainer = make_trainer(max_epochs=12, enable_checkpointing=False)
    trainer.fit(model, datamodule=datamodule)
    after = trainer.callback_metrics
    assert float(after["val/loss"]) < float(before["val/loss"]) - 0.02
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = MaskedDiffusion.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert list(loaded.generate(5, steps=3).var_names) == datamodule.gene_ids
    # Genes that are never chosen have learned, too: they stand in others' places.
    moved = model.denoiser.gate_embedding.weight.detach() != small_start(loaded)
    chosen = set(loaded.hparams["panel"]["gene_places"])
    assert {int(g) for g in moved.any(1).nonzero()} - chosen


def small_start(model: MaskedDiffusion) -> torch.Tensor:
    """The gates that this model's seed starts from."""
    fresh = MaskedDiffusion(**dict(model.hparams.items()))
    fresh.configure_model()
    return fresh.denoiser.gate_embedding.weight.detach()


def test_patches_train_where_places_are_fixed(
    tmp_path: Path, make_trainer: Any, small_model: Any
) -> None:
    datamodule = cells(tmp_path / "data", fallback_min_genes=0)
    trainer = make_trainer(max_epochs=8)
    trainer.fit(small_model(patch_size=8), datamodule=datamodule)
    scores = trainer.callback_metrics
    assert float(scores["val/loss"]) < float(scores["val/marginal"]) - 0.02
