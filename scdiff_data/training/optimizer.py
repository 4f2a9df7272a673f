"""How the weights are learned: AdamW with decay on matrices alone, warm-up, then a cosine."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor


def make_optimizer(
    weights: Iterable[tuple[str, Tensor]],
    *,
    learning_rate: float,
    weight_decay: float,
    n_warmup_steps: int,
    n_steps: int,
) -> OptimizerLRSchedulerConfig:
    """Optimizer and schedule, as Lightning takes them.

    Parameters
    ----------
    weights
        Names and weights; embeddings, biases and norms are not decayed.
    learning_rate
        Peak of the schedule.
    weight_decay
        Decoupled decay of the matrices.
    n_warmup_steps, n_steps
        Optimizer steps of the linear warm-up, and of the training, at whose end the rate is 0.

    Raises
    ------
    ValueError
        If one of them is no number of at least 0.
    """
    rates: dict[str, Any] = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    for name, value in (rates | {"n_warmup_steps": n_warmup_steps}).items():
        if isinstance(value, str) or not 0 <= float(value) < math.inf:
            raise ValueError(f"{name} must be a number of at least 0, got {value!r}")
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, weight in weights:
        is_matrix = weight.ndim > 1 and "embedding" not in name and "bias" not in name
        (decayed if is_matrix else plain).append(weight)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    # One kernel updates a weight, on CPUs too. It could undo the scaling of float16's gradients as
    # well, and for that Lightning would refuse to clip them: so it shall not.
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)
    optimizer._step_supports_amp_scaling = False

    def factor(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / n_steps)))
        return cosine * min(1.0, (step + 1) / (n_warmup_steps + 1))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
