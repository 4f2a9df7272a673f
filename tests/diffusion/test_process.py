"""The objective is a bound, and its noise is what it says."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scdiff_data.diffusion.process import (
    cosine_grid,
    draw_hidden,
    draw_hidden_counts,
    draw_hidden_pairs,
    hide_tokens,
    keyed_generator,
    score_hidden,
)


def enumerate_bound(log_p: Tensor, noise: Tensor | float = 0.0) -> float:
    """The bound of a joint law's own conditionals, over all cells and all hidden looks, exactly."""
    n_genes, n_tokens = log_p.ndim, len(log_p)
    cells, total = torch.tensor([*product(range(n_tokens), repeat=n_genes)]), 0.0
    looks = torch.tensor([*product([0, 1], repeat=2 * n_genes)])
    n_sets = looks.sum(-1).bincount()
    for hidden_n in looks[1:]:
        hidden_cg = hidden_n.view(2, n_genes).sum(0).expand(len(cells), -1)
        seen_cg = hide_tokens(cells, hidden_cg, mask_id=n_tokens)
        # Which cells agree with what is seen of each: the conditionals are sums over these.
        agree_cx = torch.ones(len(cells), len(cells), dtype=torch.bool)
        for gene in range(n_genes):
            seen_c1, token_x = seen_cg[:, gene, None], cells[:, gene]
            is_expressed_c1 = seen_c1 == n_tokens + 1
            agree_cx &= (
                (seen_c1 == token_x) | (seen_c1 == n_tokens) | is_expressed_c1 & (token_x > 0)
            )
        p_cx = log_p.flatten().exp() * agree_cx
        is_token_xgv = torch.nn.functional.one_hot(cells, n_tokens).double()
        logits_cgv = torch.einsum("cx,xgv->cgv", p_cx, is_token_xgv).log()
        score_c = score_hidden(logits_cgv + noise, cells, hidden_cg).double()
        n_alike = n_sets[int(hidden_n.sum())]
        total += float(log_p.flatten().exp() @ score_c) / (2 * n_genes) / int(n_alike)
    return total


def test_the_bound_of_all_hidden_looks_is_the_exact_nll_and_no_less_for_a_wrong_model() -> None:
    raw = 1.5 * torch.randn(27, dtype=torch.float64, generator=keyed_generator(0))
    log_p = raw.log_softmax(0).view(3, 3, 3)
    exact = -float((log_p.exp() * log_p).sum()) / 3
    assert enumerate_bound(log_p) == pytest.approx(exact, abs=1e-6)
    noise = 0.3 * torch.randn(3, 3, generator=keyed_generator(1))
    assert enumerate_bound(log_p, noise) > exact + 1e-3


def test_a_hidden_level_moves_nothing_that_is_seen() -> None:
    tokens, hidden = torch.tensor([[0, 2, 3, 0, 1]] * 3), torch.tensor([[0], [1], [2]])
    seen = hide_tokens(tokens, hidden.expand(3, 5), mask_id=4)
    assert seen.tolist() == [[0, 2, 3, 0, 1], [0, 5, 5, 0, 5], [4] * 5]
    other = torch.tensor([[0, 1, 2, 0, 3]] * 3)
    assert torch.equal(hide_tokens(other, hidden.expand(3, 5), mask_id=4)[1:], seen[1:])
    # What was seen is hidden further as the token would have been.
    for more in (1, 2):
        again = hide_tokens(seen[:more], torch.full((more, 5), more), mask_id=4)
        assert torch.equal(again, seen[more].expand(more, -1))


def estimate_nll(mixture: Any, denoise: Any, *, n_cells: int) -> torch.Tensor:
    """The loss minus the exact NLL, one value a cell."""
    tokens_cg = mixture.sample(n_cells, seed=3)
    n_genes = tokens_cg.shape[1]
    generator = keyed_generator(5)
    k_c = draw_hidden_counts(n_cells, n_looks=2 * n_genes, generator=generator)
    hidden_cg = draw_hidden(k_c, n_genes=n_genes, generator=generator)
    logits_cgv = denoise(hide_tokens(tokens_cg, hidden_cg, mask_id=mixture.mask_id))
    return score_hidden(logits_cgv, tokens_cg, hidden_cg) - mixture.nll(tokens_cg)


def test_an_exact_oracle_reaches_the_exact_nll_within_3_standard_errors(mixture: Any) -> None:
    excess_c = estimate_nll(mixture, mixture.denoise, n_cells=20_000)
    assert abs(excess_c.mean()) < 3 * excess_c.std() / len(excess_c) ** 0.5


def test_a_perturbed_oracle_is_strictly_worse(mixture: Any) -> None:
    noise = 0.3 * torch.randn(mixture.log_p_mgv.shape[1:], generator=keyed_generator(0))
    excess_c = estimate_nll(mixture, lambda tokens: mixture.denoise(tokens) + noise, n_cells=20_000)
    assert excess_c.mean() > 3 * excess_c.std() / len(excess_c) ** 0.5


def test_pairs_estimate_the_exact_nll_too(mixture: Any) -> None:
    tokens_cg = mixture.sample(4_000, seed=4)
    pair = draw_hidden_pairs([f"cell_{i}" for i in range(4_000)], n_genes=24, seed=0)
    losses = []
    for hidden_cg in pair:
        logits_cgv = mixture.denoise(hide_tokens(tokens_cg, hidden_cg, mask_id=mixture.mask_id))
        losses.append(score_hidden(logits_cgv, tokens_cg, hidden_cg))
    excess_c = torch.stack(losses).mean(0) - mixture.nll(tokens_cg)
    assert abs(excess_c.mean()) < 3 * excess_c.std() / len(excess_c) ** 0.5


@given(n_cells=st.integers(1, 70), n_looks=st.integers(1, 300), seed=st.integers(0, 1000))
def test_strata_cover_all_noise_levels(n_cells: int, n_looks: int, seed: int) -> None:
    k = draw_hidden_counts(n_cells, n_looks=n_looks, generator=keyed_generator(seed)).sort().values
    assert k.min() >= 1
    assert k.max() <= n_looks
    stratum_end = torch.arange(1, n_cells + 1) * n_looks / n_cells
    assert (k <= stratum_end + 1).all()
    assert (k >= stratum_end - n_looks / n_cells).all()


def test_strata_are_permuted_over_the_batch() -> None:
    places = torch.stack(
        [draw_hidden_counts(8, n_looks=800, generator=keyed_generator(i)) for i in range(2_000)]
    )
    assert (places.double().mean(0) - 400.5).abs().max() < 4 * 231 / 2_000**0.5


def test_ranks_share_the_strata_of_one_global_batch() -> None:
    whole = draw_hidden_counts(12, n_looks=500, generator=keyed_generator(1))
    shares = [
        draw_hidden_counts(4, n_looks=500, generator=keyed_generator(1), rank=rank, world_size=3)
        for rank in range(3)
    ]
    assert torch.equal(torch.cat(shares), whole)


def test_exactly_k_looks_are_hidden_and_none_is_preferred() -> None:
    k = torch.arange(1, 21).repeat(1_000)
    hidden = draw_hidden(k, n_genes=10, generator=keyed_generator(2))
    assert torch.equal(hidden.sum(-1), k)
    assert (hidden.float().mean(0) - 1.05).abs().max() < 4 * 0.71 / len(k) ** 0.5
    # The two looks of a gene are hidden as any two are: 190 pairs, k (k - 1) / 2 of them.
    both = (hidden == 2).float().mean()
    assert float(both) == pytest.approx(float((k * (k - 1) / 380).mean()), abs=0.01)


def test_pairs_are_complements_and_all_looks_their_own_partners() -> None:
    first, second = draw_hidden_pairs([str(i) for i in range(3_000)], n_genes=5, seed=0)
    full = (first == 2).all(-1)
    assert 240 < full.sum() < 360
    assert torch.equal(second[~full], 2 - first[~full])
    assert (second[full] == 2).all()
    assert second.sum(-1).min() == 1
    counts = second.sum(-1).bincount(minlength=11)[1:]
    assert (counts - 300).abs().max() < 75


def test_a_cells_masks_depend_on_its_id_and_the_seed_alone() -> None:
    first, _ = draw_hidden_pairs(["a", "b", "c"], n_genes=50, seed=0)
    again, _ = draw_hidden_pairs(["c", "a"], n_genes=50, seed=0)
    assert torch.equal(again, first[[2, 0]])
    other, _ = draw_hidden_pairs(["a", "b", "c"], n_genes=50, seed=1)
    assert not torch.equal(other, first)


def test_a_cells_score_is_twice_the_mean_over_its_hidden_looks() -> None:
    logits = torch.zeros(2, 4, 3)
    logits[0, :, 0] = 5.0
    tokens = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 2]])
    hidden = torch.tensor([[2, 0, 1, 0], [2, 1, 2, 1]])
    scores = score_hidden(logits.bfloat16(), tokens, hidden)
    assert scores.dtype == torch.float32
    # Each cell: 2 / k times twice what "expressed, or not" costs, and what the levels cost.
    first = 2 / 3 * 2 * 0.01338
    second = 2 / 6 * (2 * math.log(3 / 1) + 2 * math.log(3 / 2) + math.log(2))
    assert torch.allclose(scores, torch.tensor([first, second]), atol=1e-4)


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
