"""Baselines are what they say: frequencies of training cells, alone or among like cells."""

from typing import Any

import numpy as np
import pytest
import torch

from scdiff_data import BinTokens, CellBatch, CountTokens, LogBinTokens, QuantileTokens
from scdiff_data.evaluation.baselines import score_baselines


def draw_cells(n_cells: int, *, seed: int) -> CellBatch:
    """Poisson counts of 12 genes: two types with profiles of their own, and a depth a cell."""
    rng = np.random.default_rng(seed)
    profile = np.random.default_rng(0).gamma(1.0, 2.0, (2, 12))
    kind, depth = rng.integers(2, size=n_cells), rng.choice([0.3, 3.0], n_cells)
    counts = rng.poisson(profile[kind] * depth[:, None]).astype(np.int16)
    totals = torch.from_numpy((1_000 * depth).astype(np.int32))
    return CellBatch(
        torch.from_numpy(counts), {"total_counts": totals, "kind": torch.from_numpy(kind)}
    )


def score(train: CellBatch, held_out: CellBatch, tokenizer: BinTokens) -> dict[str, float]:
    tokenizer.fit(train.expression.numpy(), train.metadata["total_counts"].numpy())
    return score_baselines(train, held_out, tokenizer=tokenizer, labels=["kind"])


def test_knowing_depth_or_type_helps_as_far_as_they_say_something() -> None:
    train, held_out = draw_cells(4_000, seed=1), draw_cells(1_000, seed=2)
    scores = score(train, held_out, CountTokens(64))
    assert scores["given_depth"] < scores["marginal"] - 0.3
    assert scores["given_kind"] < scores["marginal"] - 0.02
    blind = {**held_out.metadata, "kind": held_out.metadata["kind"][torch.randperm(1_000)]}
    assert score(train, CellBatch(held_out.expression, blind), CountTokens(64))["given_kind"] > (
        scores["marginal"] - 0.005
    )


def test_the_marginal_is_the_entropy_of_independent_counts() -> None:
    rate = np.array([0.2, 1.0, 4.0])
    rng = np.random.default_rng(3)

    def cells(n: int) -> CellBatch:
        counts = torch.from_numpy(rng.poisson(rate, (n, 3)).astype(np.int16))
        same = torch.zeros(n, dtype=torch.int64)
        return CellBatch(counts, {"total_counts": same, "kind": same})

    train, held_out = cells(20_000), cells(20_000)
    k = np.arange(40)
    log_factorial = np.cumsum(np.log(np.maximum(k, 1)))
    log_p = k * np.log(rate)[:, None] - rate[:, None] - log_factorial
    entropy = -(np.exp(log_p) * log_p).sum(1).mean()
    for tokenizer in (CountTokens(32), LogBinTokens(12), QuantileTokens(8)):
        scores = score(train, held_out, tokenizer)
        assert scores["marginal"] == pytest.approx(entropy, abs=0.012)
        assert scores["given_depth"] == pytest.approx(scores["marginal"], abs=0.002)


def test_a_type_never_seen_in_training_is_scored_too() -> None:
    train, held_out = draw_cells(500, seed=1), draw_cells(100, seed=2)
    unseen: Any = {**held_out.metadata, "kind": torch.full((100,), 3)}
    scores = score(train, CellBatch(held_out.expression, unseen), CountTokens(16))
    assert scores["given_kind"] == pytest.approx(scores["marginal"], abs=1e-6)
