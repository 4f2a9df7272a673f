"""Ranks are genes, the most expressed for a gene of its kind first."""

import numpy as np
import pytest
import torch

from scdiff_data import RankTokens

COUNTS = np.random.default_rng(0).negative_binomial(0.4, 0.03, (2000, 50)).astype(np.int16)
TOTALS = COUNTS.sum(axis=1)


def test_ranks_are_genes_by_median_scaled_expression() -> None:
    tokenizer = RankTokens()
    tokenizer.fit(COUNTS, TOTALS)
    scaled = COUNTS / np.maximum(TOTALS, 1)[:, None] * 1e4
    medians = [np.median(column[column > 0]) for column in scaled.T]
    for cell in range(20):
        value = (COUNTS[cell] / medians).astype(np.float32)
        expected = [gene + 1 for gene in np.argsort(-value, kind="stable") if COUNTS[cell, gene]]
        tokens = tokenizer.encode(torch.from_numpy(COUNTS[cell : cell + 1]))[0].tolist()
        assert tokens == expected + [0] * (50 - len(expected))
    with pytest.raises(ValueError, match="fitted on 50 genes, the batch has 49"):
        tokenizer.encode(torch.zeros(1, 49, dtype=torch.int16))


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: RankTokens(0), "max_length must be at least 1 or None, got 0")],
)
def test_wrong_settings_are_clear_errors(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
