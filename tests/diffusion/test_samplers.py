"""The samplers draw from the model: exactly, and on schedule."""

from functools import cache
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from scdiff_data.diffusion.denoiser import Denoiser
from scdiff_data.diffusion.process import cosine_grid, keyed_generator
from scdiff_data.diffusion.samplers import guide, sample_tokens


def all_masked(n_cells: int, n_genes: int, *, mask_id: int) -> Tensor:
    return torch.full((n_cells, n_genes), mask_id)


samplers = pytest.mark.parametrize("sampler", ["ancestral", "fixed", "remask"])


@samplers
def test_the_hidden_fraction_follows_the_schedule(mixture: Any, sampler: Any) -> None:
    masked = []

    def denoise(tokens: Tensor, read: Tensor) -> Tensor:
        masked.append((tokens == mixture.mask_id).float().mean(-1))
        exact: Tensor = mixture.denoise(tokens)[read]
        return exact

    tokens = sample_tokens(
        denoise,
        all_masked(2_000, 24, mask_id=4),
        mask_id=4,
        steps=8,
        generator=keyed_generator(0),
        sampler=sampler,
    )
    # Of a masked gene both looks are hidden.
    fractions = [float(fraction.mean()) for fraction in masked]
    expected = np.square(cosine_grid(8)[:-1])
    assert np.allclose(fractions, expected, atol=1 / 24 if sampler == "fixed" else 0.01)
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
                lambda tokens, read: mixture.denoise(tokens)[read],
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
    """Probability of a state when looks are told one at a time, averaged over all orders."""
    n_genes, total = len(state), 0.0
    orders = set(permutations([*range(n_genes)] * 2))
    for order in orders:
        hidden, probability = [2] * n_genes, 1.0
        for gene in order:
            seen = [(t, 4 if t else 0, 3)[h] for t, h in zip(state, hidden, strict=True)]
            p_v = denoise(tuple(seen))[gene]
            if hidden[gene] == 2:
                probability *= p_v[0] if state[gene] == 0 else 1 - p_v[0]
            elif state[gene]:
                probability *= p_v[state[gene]] / (1 - p_v[0])
            hidden[gene] -= 1
        total += probability / len(orders)
    return total


@pytest.mark.parametrize("sampler", ["ancestral", "fixed"])
@torch.no_grad()
def test_samples_have_the_order_averaged_probabilities_of_the_model(sampler: Any) -> None:
    torch.manual_seed(0)
    network = Denoiser(3, n_tokens=3, d_model=8, n_layers=1, n_heads=1)
    for weight in network.parameters():  # a model that nobody made consistent
        torch.nn.init.normal_(weight, std=0.4)

    def denoise(tokens: Tensor, read: Tensor) -> Tensor:
        none, depths = tokens[:, :0], torch.full((len(tokens),), 100)
        logits: Tensor = network(tokens, total_counts_b=depths, labels_bl=none, read_bg=read)
        return logits

    @cache
    def ask(seen: tuple[int, ...]) -> Any:
        tokens = torch.tensor([seen])
        return denoise(tokens, torch.ones_like(tokens, dtype=torch.bool)).softmax(-1).tolist()

    n_cells = 8_000
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
    wanted = n_cells * torch.tensor([enumerate_orders(ask, state) for state in states])
    assert float(wanted.sum()) == pytest.approx(n_cells, rel=1e-4)
    # Few of so many steps reveal two genes of a cell at once, which would draw them independently.
    assert float(((found - wanted) ** 2 / wanted).sum()) < chi2.ppf(0.9999, 26)


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sampler must be one of .*'remask'.*, got 'confident'"):
        sample_tokens(
            lambda tokens, read: tokens,
            all_masked(2, 3, mask_id=4),
            mask_id=4,
            steps=2,
            generator=keyed_generator(0),
            sampler="confident",  # type: ignore[arg-type]
        )


def test_guidance_1_is_conditional_and_0_is_not() -> None:
    conditional, unconditional = torch.randn(2, 12, 5).log_softmax(-1)
    assert torch.allclose(guide(conditional, unconditional, guidance=1.0), conditional)
    assert torch.allclose(guide(conditional, unconditional, guidance=0.0), unconditional)
    strong = guide(conditional, unconditional, guidance=2.0).softmax(-1)
    expected = conditional.exp() ** 2 / unconditional.exp()
    assert torch.allclose(strong, expected / expected.sum(-1, keepdim=True), atol=1e-5)


@samplers
@pytest.mark.parametrize("logits", [[0.0, torch.nan, 0.0], [torch.inf, 0.0, 0.0]])
def test_logits_that_are_no_numbers_make_no_cells(sampler: Any, logits: list[float]) -> None:
    with pytest.raises(ValueError, match="logits are no numbers"):
        sample_tokens(
            lambda tokens, read: torch.tensor(logits).repeat(int(read.sum()), 1),
            all_masked(3, 5, mask_id=3),
            mask_id=3,
            steps=4,
            generator=keyed_generator(0),
            sampler=sampler,
        )
