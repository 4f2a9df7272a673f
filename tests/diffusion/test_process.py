"""The objective is a bound, and its noise is what it says."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scdiff_data.diffusion.process import (
    cosine_grid,
    draw_mask_counts,
    draw_mask_pairs,
    draw_masks,
    keyed_generator,
    masked_cross_entropy,
)


def estimate_nll(mixture: Any, denoise: Any, *, n_cells: int) -> torch.Tensor:
    """The loss minus the exact NLL, one value a cell."""
    tokens_cg = mixture.sample(n_cells, seed=3)
    n_genes = tokens_cg.shape[1]
    generator = keyed_generator(5)
    n_masked_c = draw_mask_counts(n_cells, n_genes=n_genes, generator=generator)
    masked_cg = draw_masks(n_masked_c, n_genes=n_genes, generator=generator)
    logits_cgv = denoise(tokens_cg.masked_fill(masked_cg, mixture.mask_id))
    return masked_cross_entropy(logits_cgv, tokens_cg, masked_cg) - mixture.nll(tokens_cg)


def test_an_exact_oracle_reaches_the_exact_nll_within_3_standard_errors(mixture: Any) -> None:
    excess_c = estimate_nll(mixture, mixture.denoise, n_cells=20_000)
    assert abs(excess_c.mean()) < 3 * excess_c.std() / len(excess_c) ** 0.5


def test_a_perturbed_oracle_is_strictly_worse(mixture: Any) -> None:
    noise = 0.3 * torch.randn(mixture.log_p_mgv.shape[1:], generator=keyed_generator(0))
    excess_c = estimate_nll(mixture, lambda tokens: mixture.denoise(tokens) + noise, n_cells=20_000)
    assert excess_c.mean() > 3 * excess_c.std() / len(excess_c) ** 0.5


def test_pairs_estimate_the_exact_nll_too(mixture: Any) -> None:
    tokens_cg = mixture.sample(4_000, seed=4)
    pair = draw_mask_pairs([f"cell_{i}" for i in range(4_000)], n_genes=24, seed=0)
    losses = []
    for masked_cg in pair:
        logits_cgv = mixture.denoise(tokens_cg.masked_fill(masked_cg, mixture.mask_id))
        losses.append(masked_cross_entropy(logits_cgv, tokens_cg, masked_cg))
    excess_c = torch.stack(losses).mean(0) - mixture.nll(tokens_cg)
    assert abs(excess_c.mean()) < 3 * excess_c.std() / len(excess_c) ** 0.5


@given(n_cells=st.integers(1, 70), n_genes=st.integers(1, 300), seed=st.integers(0, 1000))
def test_strata_cover_all_noise_levels(n_cells: int, n_genes: int, seed: int) -> None:
    k = draw_mask_counts(n_cells, n_genes=n_genes, generator=keyed_generator(seed)).sort().values
    assert k.min() >= 1
    assert k.max() <= n_genes
    stratum_end = torch.arange(1, n_cells + 1) * n_genes / n_cells
    assert (k <= stratum_end + 1).all()
    assert (k >= stratum_end - n_genes / n_cells).all()


def test_strata_are_permuted_over_the_batch() -> None:
    places = torch.stack(
        [draw_mask_counts(8, n_genes=800, generator=keyed_generator(i)) for i in range(2_000)]
    )
    assert (places.double().mean(0) - 400.5).abs().max() < 4 * 231 / 2_000**0.5


def test_ranks_share_the_strata_of_one_global_batch() -> None:
    whole = draw_mask_counts(12, n_genes=500, generator=keyed_generator(1))
    shares = [
        draw_mask_counts(4, n_genes=500, generator=keyed_generator(1), rank=rank, world_size=3)
        for rank in range(3)
    ]
    assert torch.equal(torch.cat(shares), whole)


def test_masks_have_exactly_k_genes_and_prefer_none() -> None:
    k = torch.arange(1, 11).repeat(2_000)
    masked = draw_masks(k, n_genes=10, generator=keyed_generator(2))
    assert torch.equal(masked.sum(-1), k)
    assert (masked.float().mean(0) - 0.55).abs().max() < 4 * 0.5 / len(k) ** 0.5


def test_pairs_are_complements_and_full_masks_their_own_partners() -> None:
    first, second = draw_mask_pairs([str(i) for i in range(3_000)], n_genes=5, seed=0)
    full = first.all(-1)
    assert 500 < full.sum() < 700
    assert torch.equal(second[~full], ~first[~full])
    assert second[full].all()
    assert second.sum(-1).min() == 1
    counts = second.sum(-1).bincount(minlength=6)[1:]
    assert (counts - 600).abs().max() < 100


def test_a_cells_masks_depend_on_its_id_and_the_seed_alone() -> None:
    first, _ = draw_mask_pairs(["a", "b", "c"], n_genes=50, seed=0)
    again, _ = draw_mask_pairs(["c", "a"], n_genes=50, seed=0)
    assert torch.equal(again, first[[2, 0]])
    other, _ = draw_mask_pairs(["a", "b", "c"], n_genes=50, seed=1)
    assert not torch.equal(other, first)


def test_cells_weigh_the_same_however_many_genes_are_masked() -> None:
    logits = torch.zeros(2, 4, 3)
    logits[0, :, 0] = 5.0
    tokens = torch.zeros(2, 4, dtype=torch.int64)
    masked = torch.tensor([[True, False, False, False], [True, True, True, True]])
    loss = masked_cross_entropy(logits.bfloat16(), tokens, masked)
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, torch.tensor([0.0134, 1.0986]), atol=1e-3)


def test_different_keys_give_different_streams() -> None:
    keys = [(0,), (0, 0), (0, 0, 0), ("0",), (1,)]
    draws = {float(torch.rand((), generator=keyed_generator(*key))) for key in keys}
    assert len(draws) == len(keys)


def test_the_grid_falls_from_1_to_0_and_slowly_at_first() -> None:
    grid = cosine_grid(8)
    assert len(grid) == 9
    assert (grid[0], grid[-1]) == (1.0, 0.0)
    steps = -torch.tensor(grid, dtype=torch.float64).diff()
    assert (steps > 0).all()
    assert (steps.diff() > 0).all()
    with pytest.raises(ValueError, match=r"^steps must be at least 1, got 0"):
        cosine_grid(0)
