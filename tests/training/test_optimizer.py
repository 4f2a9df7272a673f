"""Matrices decay, and nothing else."""

from typing import Any


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
