"""The network sees what is unmasked, and starts as the marginals."""

import pytest
import torch
from torch import Tensor

from scdiff_data.diffusion import Denoiser


def make_denoiser() -> Denoiser:
    torch.manual_seed(0)
    denoiser = Denoiser(10, n_tokens=4, n_categories=[3], d_model=16, n_layers=2, n_heads=2)
    for weight in denoiser.parameters():  # away from the start, where most of it is silent
        torch.nn.init.normal_(weight, std=0.3)
    return denoiser


def predict(denoiser: Denoiser, tokens: Tensor, *, depth: int = 500, label: int = 0) -> Tensor:
    n_cells = len(tokens)
    depths, labels = torch.full((n_cells,), depth), torch.full((n_cells, 1), label)
    logits: Tensor = denoiser(tokens, total_counts_b=depths, labels_bl=labels)
    return logits


def test_step_0_is_the_marginal_baseline_whatever_is_unmasked() -> None:
    denoiser = Denoiser(10, n_tokens=4, n_categories=[3])
    log_marginal = torch.randn(10, 4).log_softmax(-1)
    denoiser.start_at_marginals(log_marginal, log_depth_c=torch.tensor([6.0, 7.0]))
    logits = predict(denoiser, torch.randint(0, 5, (6, 10)))
    assert torch.equal(logits, log_marginal.expand(6, -1, -1))


def test_there_is_no_logit_of_the_mask() -> None:
    assert predict(make_denoiser(), torch.full((2, 10), 4)).shape == (2, 10, 4)


@pytest.mark.parametrize("changed", ["token", "depth", "label"])
def test_every_input_moves_the_prediction(changed: str) -> None:
    denoiser, tokens = make_denoiser(), torch.full((1, 10), 4)
    other = tokens.clone()
    other[0, 3] = 1 if changed == "token" else 4
    logits = predict(
        denoiser,
        other,
        depth=900 if changed == "depth" else 500,
        label=1 if changed == "label" else 0,
    )
    assert not torch.allclose(logits, predict(denoiser, tokens))


def test_a_withheld_condition_does_not_matter() -> None:
    denoiser, tokens = make_denoiser(), torch.full((2, 10), 4)
    logits = denoiser(
        tokens,
        total_counts_b=torch.tensor([300, 9_000]),
        labels_bl=torch.tensor([[0], [2]]),
        unconditional_b=torch.tensor([True, True]),
    )
    assert torch.equal(logits[0], logits[1])


def test_a_missing_label_is_a_category_of_its_own() -> None:
    denoiser, tokens = make_denoiser(), torch.full((1, 10), 4)
    assert not torch.equal(predict(denoiser, tokens, label=-1), predict(denoiser, tokens, label=0))


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of n_heads, got 10 and 4: take d_model=12"):
        Denoiser(10, n_tokens=4, d_model=10, n_heads=4)
