"""Averaged weights are those that validate and are saved."""

from pathlib import Path
from typing import Any

import pytest
import torch

from scdiff_data.callbacks import WeightEMA


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
