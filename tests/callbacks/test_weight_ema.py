"""Averaged weights are those that validate and are saved."""

from pathlib import Path
from typing import Any

import pytest
import torch

from scdiff_data import ScRNADataModule
from scdiff_data.callbacks import WeightEMA
from support.witness import SaveAlways, Witness, make_trainer


def test_the_averaged_weights_validate_and_are_saved(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    data = make_data(mixture.sample(178, seed=1), n_val=50)
    averaged, plain = small_model(), small_model()
    ema = WeightEMA(0.9)
    make_trainer(max_epochs=2, callbacks=[ema]).fit(averaged, datamodule=data)
    make_trainer(max_epochs=2).fit(plain, datamodule=data)
    weights = [model.denoiser.head_bias.weight for model in (averaged, plain)]
    assert not torch.equal(*weights)
    assert torch.equal(averaged.tokenizer.lookup, plain.tokenizer.lookup)
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1"):
        WeightEMA(1.0)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_weights_and_average_go_on_from_any_moment(pbmc_dir: Path, tmp_path: Path) -> None:
    limits = {"max_epochs": 1, "limit_train_batches": 3, "limit_val_batches": 2}

    def fit(*callbacks: Any, ckpt_path: Path | None = None) -> Witness:
        torch.manual_seed(0 if ckpt_path is None else 1)  # a checkpoint brings its own weights
        model, own = Witness(), [WeightEMA(0.9), *callbacks]
        data = ScRNADataModule.from_directory(pbmc_dir, batch_size=32)
        trainer = make_trainer(tmp_path, limits | {"callbacks": own})
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path)
        return model

    saver = SaveAlways(tmp_path)
    whole = fit(saver)
    for moment, n_events in saver.moments.items():
        path = tmp_path / f"{moment}.ckpt"
        resumed = fit(ckpt_path=path)
        assert resumed.events == whole.events[n_events:], moment
        assert torch.equal(resumed.layer.weight, whole.layer.weight), moment
        kept = torch.load(path, weights_only=True)
        is_over = "train-end" in moment
        averages = kept["state_dict"]["layer.weight"]
        assert torch.equal(averages, whole.layer.weight) == (
            is_over or n_events >= limits["limit_train_batches"]
        ), moment
