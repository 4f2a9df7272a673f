"""A checkpoint says what it is, and its cells say where they come from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from scdiff_data.diffusion import MaskedDiffusion
from scdiff_data.evaluation import describe_card, read_card


def test_the_card_travels_with_the_weights_and_with_generated_cells(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    data, model = make_data(mixture.sample(96, seed=1), n_val=32), small_model(labels=["half"])
    trainer = make_trainer(max_epochs=1)
    assert model.card is None
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    card = read_card(tmp_path / "last.ckpt")
    assert card["settings"]["labels"] == ["half"]
    assert "panel" not in card["settings"]
    assert card["step"] == 2
    assert card["scores"]["val/loss"] == pytest.approx(float(trainer.callback_metrics["val/loss"]))
    assert card["n_parameters"] == sum(weights.numel() for weights in model.parameters())
    assert "data" not in card  # a stand-in is no prepared directory
    text = describe_card(card)
    assert text.startswith(f"MaskedDiffusion of {card['n_parameters']:,} weights, step 2 (epoch 1)")
    assert f"val/count_nll {card['scores']['val/count_nll']:.4f}" in text
    assert "no ground for any treatment" in text

    loaded = MaskedDiffusion.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert loaded.card == card
    assert json.loads(loaded.generate(3, steps=2).uns["model_card"]) == card


def test_a_file_without_a_card_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {}}, tmp_path / "old.ckpt")
    for name in ("text.ckpt", "old.ckpt"):
        with pytest.raises(ValueError, match=f"{name} has no model card"):
            read_card(tmp_path / name)
