"""The sampler draws from the model: exactly, on schedule, and the same again."""

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from scdiff_data.diffusion.denoiser import Denoiser
from scdiff_data.diffusion.generate import draw_conditions, guide, sample_tokens
from scdiff_data.diffusion.process import cosine_grid, keyed_generator


def all_masked(n_cells: int, n_genes: int, *, mask_id: int) -> Tensor:
    return torch.full((n_cells, n_genes), mask_id)


samplers = pytest.mark.parametrize("sampler", ["ancestral", "fixed", "remask"])


@samplers
def test_the_masked_fraction_follows_the_schedule(mixture: Any, sampler: Any) -> None:
    masked = []

    def denoise(tokens: Tensor) -> Tensor:
        masked.append((tokens == mixture.mask_id).float().mean(-1))
        exact: Tensor = mixture.denoise(tokens)
        return exact

    tokens = sample_tokens(
        denoise,
        all_masked(2_000, 24, mask_id=4),
        mask_id=4,
        steps=8,
        generator=keyed_generator(0),
        sampler=sampler,
    )
    fractions = [float(fraction.mean()) for fraction in masked]
    assert np.allclose(fractions, cosine_grid(8)[:-1], atol=1 / 24 if sampler == "fixed" else 0.01)
    assert (max(f.std() for f in masked) < 1e-6) == (sampler == "fixed")
    assert tokens.max() < mixture.mask_id


@samplers
def test_an_oracle_recovers_library_and_correlations_and_one_step_does_not(
    mixture: Any, sampler: Any
) -> None:
    def describe(tokens: Tensor) -> tuple[float, Tensor]:
        library = tokens.sum(1).double()
        return float(library.std() / library.mean()), tokens.double().T.corrcoef().triu(1).flatten()

    def draw(steps: int, seed: int) -> tuple[float, Tensor]:
        return describe(
            sample_tokens(
                mixture.denoise,
                all_masked(4_000, 24, mask_id=4),
                mask_id=4,
                steps=steps,
                generator=keyed_generator(seed),
                sampler=sampler,
            )
        )

    def agreement(first: Tensor, second: Tensor) -> float:
        return float(torch.stack([first, second]).corrcoef()[0, 1])

    real_cv, real = describe(mixture.sample(4_000, seed=9))
    (many_cv, many), (one_cv, one) = draw(32, 1), draw(1, 1)
    ceiling = agreement(describe(mixture.sample(4_000, seed=10))[1], real)
    assert abs(many_cv / real_cv - 1) < 0.05
    assert agreement(many, real) > 0.98 * ceiling
    assert one_cv < 0.8 * real_cv
    assert agreement(one, real) < 0.3 * ceiling


def enumerate_orders(denoise: Any, state: tuple[int, ...]) -> float:
    """Probability of a state when genes are drawn one at a time, averaged over all orders."""
    orders = list(permutations(range(len(state))))
    total = 0.0
    for order in orders:
        tokens, probability = torch.full((1, len(state)), 3), 1.0
        for gene in order:
            probability *= float(denoise(tokens)[0, gene].softmax(-1)[state[gene]])
            tokens[0, gene] = state[gene]
        total += probability / len(orders)
    return total


@pytest.mark.parametrize("sampler", ["ancestral", "fixed"])
@torch.no_grad()
def test_samples_have_the_order_averaged_probabilities_of_the_model(sampler: Any) -> None:
    torch.manual_seed(0)
    network = Denoiser(3, n_tokens=3, d_model=8, n_layers=1, n_heads=1)
    for weight in network.parameters():  # a model that nobody made consistent
        torch.nn.init.normal_(weight, std=0.4)

    def denoise(tokens: Tensor) -> Tensor:
        none, depths = tokens[:, :0], torch.full((len(tokens),), 100)
        logits: Tensor = network(tokens, total_counts_b=depths, labels_bl=none)
        return logits

    n_cells = 20_000
    tokens = sample_tokens(
        denoise,
        all_masked(n_cells, 3, mask_id=3),
        mask_id=3,
        steps=200,
        generator=keyed_generator(0),
        sampler=sampler,
    )
    found = (tokens @ torch.tensor([9, 3, 1])).bincount(minlength=27)
    states = product(range(3), repeat=3)
    wanted = n_cells * torch.tensor([enumerate_orders(denoise, state) for state in states])
    assert float(wanted.sum()) == pytest.approx(n_cells, rel=1e-4)
    # Few of so many steps reveal two genes of a cell at once, which would draw them independently.
    assert float(((found - wanted) ** 2 / wanted).sum()) < chi2.ppf(0.9999, 26)


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sampler must be one of .*'remask'.*, got 'confident'"):
        sample_tokens(
            lambda tokens: tokens,
            all_masked(2, 3, mask_id=4),
            mask_id=4,
            steps=2,
            generator=keyed_generator(0),
            sampler="confident",  # type: ignore[arg-type]
        )


def test_guidance_1_is_conditional_and_0_is_not() -> None:
    conditional, unconditional = torch.randn(2, 3, 4, 5).log_softmax(-1)
    assert torch.allclose(guide(conditional, unconditional, guidance=1.0), conditional)
    assert torch.allclose(guide(conditional, unconditional, guidance=0.0), unconditional)
    strong = guide(conditional, unconditional, guidance=2.0).softmax(-1)
    expected = conditional.exp() ** 2 / unconditional.exp()
    assert torch.allclose(strong, expected / expected.sum(-1, keepdim=True), atol=1e-5)


def test_conditions_are_drawn_jointly_and_kept_to_the_labels() -> None:
    known = np.array([[100, 0], [110, 0], [900, 1], [950, 1]])
    settings: Any = {"n_cells": 50, "categories": {"cell_type": ["B", "T", "NK"]}, "seed": 0}
    drawn = draw_conditions(known, labels={}, **settings)
    assert {tuple(row) for row in drawn} == {tuple(row) for row in known}
    assert set(draw_conditions(known, labels={"cell_type": "T"}, **settings)[:, 0]) == {900, 950}
    unseen = draw_conditions(known, labels={"cell_type": "NK"}, **settings)
    assert set(unseen[:, 1]) == {2}
    with pytest.raises(ValueError, match=r"got cell_type='b'; it knows .*'B', 'T', 'NK'"):
        draw_conditions(known, labels={"cell_type": "b"}, **settings)


def test_a_checkpoint_alone_generates_the_same_cells_for_the_same_seed(trained: Any) -> None:
    model, data, _ = trained
    cells = model.generate(40, steps=8, seed=3)
    again = model.generate(40, steps=8, seed=3)
    other = model.generate(40, steps=8, seed=4)
    assert (cells.X != again.X).nnz == 0
    assert (cells.X != other.X).nnz > 0
    assert cells.X.dtype == np.int32
    assert list(cells.var_names) == data.gene_ids
    assert list(cells.var["gene_symbols"]) == data.gene_symbols
    assert set(cells.obs["half"].cat.categories) == {"low", "high"}


def test_cells_have_the_label_and_depth_asked_for(trained: Any) -> None:
    model, _, _ = trained
    for half, sign in (("low", 0), ("high", 1)):
        cells = model.generate(200, labels={"half": half}, steps=16)
        assert set(cells.obs["half"]) == {half}
        assert ((cells.X.toarray()[:, 0] > 0) == sign).mean() > 0.8
    shallow, deep = (model.generate(200, total_counts=depth, steps=16) for depth in (25, 50))
    assert set(shallow.obs["total_counts"]) == {25}
    assert deep.X.sum() > shallow.X.sum()
    guided = model.generate(20, labels={"half": "high"}, steps=4, guidance=2.0)
    assert guided.shape == (20, 24)
    with pytest.raises(ValueError, match="n_cells must be at least 1, got 0"):
        model.generate(0)


@samplers
def test_imputed_genes_follow_the_known_ones_which_stay(
    trained: Any, mixture: Any, sampler: Any
) -> None:
    model, _, _ = trained
    counts = mixture.sample(300, seed=77)
    known = torch.rand(counts.shape, generator=keyed_generator(1)) < 0.6
    dirty = counts.masked_fill(~known, 12_345).numpy()
    draws = np.stack(
        [model.impute(dirty, known.numpy(), steps=12, seed=s, sampler=sampler) for s in range(50)]
    )
    assert draws.dtype == np.int32
    assert (draws[:, known] == counts[known].numpy()).all()
    # The mean draw comes near the exact expectation of the genes that are hidden.
    p_cgv = mixture.denoise(counts.masked_fill(~known, mixture.mask_id)).exp()
    expected = (p_cgv * torch.arange(4)).sum(-1)[~known].numpy()
    independent = np.broadcast_to(mixture.sample(5_000, seed=5).double().mean(0), counts.shape)
    error = np.abs(draws.mean(0)[~known] - expected).mean()
    assert error < 0.82 * np.abs(independent[~known.numpy()] - expected).mean()


def test_imputing_takes_one_mask_for_all_cells_depths_and_labels(trained: Any) -> None:
    model, _, _ = trained
    known = np.arange(24) < 12
    counts = np.zeros((5, 24), np.int16)
    filled = model.impute(counts, known, total_counts=[30, 40, 50, 60, 70], labels={"half": "low"})
    assert (filled[:, :12] == 0).all()
    assert filled[:, 12:].any()
    assert (
        filled
        == model.impute(counts, known, total_counts=[30, 40, 50, 60, 70], labels={"half": "low"})
    ).all()
    assert (model.impute(counts, np.ones(24, bool)) == counts).all()


@pytest.mark.parametrize(
    ("counts", "how", "message"),
    [
        (np.zeros((3, 7)), {}, r"must be \[n_cells, 24\].*got \[3, 7\]"),
        (np.full((3, 24), 40_000), {}, r"must be in 0 … 32767, got 40000 … 40000"),
        (np.full((3, 24), -1), {}, "must be in 0 … 32767, got -1"),
        (np.zeros((3, 24)), {"labels": {"half": "low"}}, "give total_counts too"),
        (np.zeros((3, 24)), {"labels": {"half": "x"}, "total_counts": 9}, "got half='x'"),
    ],
)
def test_what_cannot_be_imputed_is_refused(
    trained: Any, counts: Any, how: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trained[0].impute(counts, np.ones(counts.shape[1], bool), **how)
