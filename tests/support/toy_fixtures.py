"""Fixtures of the training half, a plugin where torch is installed: toy cells, models, trainers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import Trainer
from torch import Tensor

from scdiff_data.diffusion import MaskedDiffusion
from scdiff_data.tokenizers import CountTokens
from support.toys import Mixture, StandIn
from support.trainers import quiet_trainer


@pytest.fixture(scope="session")
def mixture() -> Mixture:
    return Mixture(n_genes=24, n_tokens=4, n_components=4, seed=0)


@pytest.fixture(scope="session")
def make_trainer() -> Callable[..., Trainer]:
    """A silent trainer on one CPU that writes nothing, unless told otherwise."""
    return partial(quiet_trainer, num_sanity_val_steps=0)


@pytest.fixture(scope="session")
def make_data() -> Callable[..., StandIn]:
    """Toy cells whose counts are their tokens."""

    def make(tokens_cg: Tensor, *, n_val: int, batch_size: int = 32) -> StandIn:
        counts = tokens_cg.numpy().astype(np.int16)
        return StandIn(counts, n_val=n_val, batch_size=batch_size, tokenizer=CountTokens(4))

    return make


@pytest.fixture(scope="session")
def small_model() -> Callable[..., MaskedDiffusion]:
    small: dict[str, Any] = {"d_model": 16, "n_layers": 1, "n_heads": 2, "learning_rate": 1e-2}
    return lambda **settings: MaskedDiffusion(**(small | settings))


@pytest.fixture(scope="session")
def validate(make_trainer: Any) -> Callable[..., dict[str, float]]:
    """Scores of a model on the validation cells."""
    return lambda model, data: dict(
        make_trainer().validate(model, datamodule=data, verbose=False)[0]
    )


@pytest.fixture(scope="session")
def trained(
    mixture: Mixture, make_data: Any, make_trainer: Any
) -> tuple[MaskedDiffusion, StandIn, dict[str, float]]:
    """A model trained for some seconds on the mixture, its data, and its last validation."""
    data = make_data(mixture.sample(1256, seed=1), n_val=256)
    model = MaskedDiffusion(d_model=32, n_layers=1, n_heads=2, learning_rate=1e-2, labels=["half"])
    trainer = make_trainer(max_epochs=12)
    trainer.fit(model, datamodule=data)
    return model, data, {name: float(v) for name, v in trainer.callback_metrics.items()}
