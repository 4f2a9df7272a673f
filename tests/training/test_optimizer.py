"""Matrices decay, and nothing else; what is no rate is told by its name."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from scdiff_data.training import make_optimizer


def test_only_weight_matrices_decay(
    mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    model, trainer = small_model(), make_trainer(max_epochs=1)
    trainer.fit(model, datamodule=make_data(mixture.sample(84, seed=1), n_val=20))
    decayed, plain = trainer.optimizers[0].param_groups
    names = {id(weight): name for name, weight in model.named_parameters()}
    assert {names[id(w)].split(".")[-1] for w in decayed["params"]} == {"weight"}
    assert not any("embedding.weight" in names[id(w)] for w in decayed["params"])
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0)
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", "abc"), ("weight_decay", -0.1), ("n_warmup_steps", float("nan"))],
)
def test_a_rate_that_is_none_is_told_by_its_name(name: str, value: Any) -> None:
    rates: dict[str, Any] = {"learning_rate": 1e-3, "weight_decay": 0.1, "n_warmup_steps": 20}
    with pytest.raises(ValueError, match=f"{name} must be a number of at least 0, got {value!r}"):
        make_optimizer([], n_steps=10, **rates | {name: value})


def test_numbers_of_any_library_are_rates() -> None:
    weight = [("head", torch.nn.Parameter(torch.zeros(2, 2)))]
    for number in (np.float32(1e-3), np.int64(1), Fraction(1, 1_000), torch.tensor(1e-3), True):
        how: dict[str, Any] = {"learning_rate": number, "n_warmup_steps": np.int64(3)}
        assert make_optimizer(weight, weight_decay=np.float32(0), n_steps=9, **how)["optimizer"]
