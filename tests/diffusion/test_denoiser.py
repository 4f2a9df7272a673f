"""The networks see what is unmasked, and start as the marginals."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from scdiff_data.diffusion.denoiser import Denoiser, count_flops

both = pytest.mark.parametrize("patch_size", [1, 4], ids=["genes", "patches"])


def small(patch_size: int, **size: Any) -> Denoiser:
    settings = {"n_tokens": 4, "n_categories": [3], "d_model": 16, "n_layers": 2, "n_heads": 2}
    return Denoiser(10, patch_size=patch_size, **(settings | size))


def awake(patch_size: int) -> Denoiser:
    torch.manual_seed(0)
    denoiser = small(patch_size)
    for weight in denoiser.parameters():  # away from the start, where most of it is silent
        torch.nn.init.normal_(weight, std=0.3)
    denoiser.condition.scale_depth(torch.tensor([6.0, 7.0]))
    return denoiser


def predict(denoiser: Denoiser, tokens: Tensor, *, depth: int = 500, label: int = 0) -> Tensor:
    n_cells = len(tokens)
    depths, labels = torch.full((n_cells,), depth), torch.full((n_cells, 1), label)
    logits: Tensor = denoiser(tokens, total_counts_b=depths, labels_bl=labels)
    return logits


@both
def test_step_0_is_the_marginal_baseline_whatever_is_unmasked(patch_size: int) -> None:
    denoiser = small(patch_size)
    log_marginal = torch.randn(10, 4).log_softmax(-1)
    denoiser.start_at_marginals(log_marginal, log_depth_c=torch.tensor([6.0, 7.0]))
    logits = predict(denoiser, torch.randint(0, 6, (6, 10)))
    assert torch.equal(logits, log_marginal.expand(6, -1, -1))


@both
def test_there_is_no_logit_of_the_mask(patch_size: int) -> None:
    assert predict(awake(patch_size), torch.full((2, 10), 4)).shape == (2, 10, 4)


@both
@pytest.mark.parametrize("changed", ["token", "depth", "label"])
def test_every_input_moves_every_prediction(patch_size: int, changed: str) -> None:
    denoiser, tokens = awake(patch_size), torch.full((1, 10), 4)
    other = tokens.clone()
    other[0, 3] = 1 if changed == "token" else 4
    logits = predict(
        denoiser,
        other,
        depth=900 if changed == "depth" else 500,
        label=1 if changed == "label" else 0,
    )
    moved = (logits - predict(denoiser, tokens)).abs().amax(-1)
    assert (moved > 1e-5).all()


@both
def test_a_withheld_condition_does_not_matter(patch_size: int) -> None:
    denoiser, tokens = awake(patch_size), torch.full((2, 10), 4)
    logits = denoiser(
        tokens,
        total_counts_b=torch.tensor([300, 9_000]),
        labels_bl=torch.tensor([[0], [2]]),
        unconditional_b=torch.tensor([True, True]),
    )
    torch.testing.assert_close(logits[0], logits[1])


@both
def test_a_missing_label_is_a_category_of_its_own(patch_size: int) -> None:
    denoiser, tokens = awake(patch_size), torch.full((1, 10), 4)
    assert not torch.equal(predict(denoiser, tokens, label=-1), predict(denoiser, tokens, label=0))


@both
def test_of_a_label_each_gene_has_weights_which_a_missing_or_withheld_one_lacks(
    patch_size: int,
) -> None:
    denoiser, tokens = small(patch_size), torch.full((4, 10), 4)
    with torch.no_grad():
        denoiser.label_biases[0].weight[1:] = torch.randn(3, 40)
    labels, withheld = torch.tensor([[2], [0], [-1], [2]]), torch.tensor([False] * 3 + [True])
    how = {"total_counts_b": torch.full((4,), 500), "labels_bl": labels}
    told = denoiser(tokens, **how, unconditional_b=withheld)
    rows = denoiser.label_biases[0].weight.view(4, 10, 4)
    torch.testing.assert_close(told, rows[[3, 1, 0, 0]])
    genes = torch.arange(9, -1, -1).expand(4, -1)
    torch.testing.assert_close(
        denoiser(tokens, **how, unconditional_b=withheld, genes_bg=genes), told.flip(1)
    )
    read = torch.rand(4, 10) < 0.5
    torch.testing.assert_close(
        denoiser(tokens, **how, unconditional_b=withheld, read_bg=read), told[read]
    )


@pytest.mark.parametrize("way", ["genes_bg", "read_bg", "neither"])
def test_weights_of_a_missing_or_withheld_label_learn_nothing(way: str) -> None:
    denoiser = Denoiser(6, n_tokens=5, n_categories=[3, 200], d_model=8)
    hows = {"genes_bg": torch.arange(6)[None], "read_bg": torch.ones(3, 6, dtype=torch.bool)}
    how = {way: hows[way]} if way in hows else {}
    logits = denoiser(
        torch.full((3, 6), 5),
        total_counts_b=torch.full((3,), 500),
        labels_bl=torch.tensor([[2, 150], [-1, -1], [0, 7]]),
        unconditional_b=torch.tensor([False, False, True]),
        **how,
    )
    logits.sum().backward()
    learn = [table.weight.grad.any(-1).tolist() for table in denoiser.label_biases]
    assert learn == [[False, False, False, True], [False]]


def test_labels_of_very_many_categories_have_no_weights_of_their_own() -> None:
    few, many = (Denoiser(6, n_tokens=5, n_categories=[n], d_model=8) for n in (128, 129))
    assert [len(d.label_biases[0].weight) for d in (few, many)] == [129, 1]
    how = {"total_counts_b": torch.full((1,), 500), "labels_bl": torch.tensor([[128]])}
    assert many(torch.full((1, 6), 5), **how).shape == (1, 6, 5)


@both
def test_a_width_that_heads_cannot_share_is_refused(patch_size: int) -> None:
    with pytest.raises(ValueError, match="multiple of n_heads, got 10 and 4: take d_model=12"):
        small(patch_size, d_model=10, n_heads=4)


def test_genes_may_stand_in_any_place() -> None:
    denoiser, tokens = awake(1), torch.tensor([[0, 4, 2, 1, 4, 3, 0, 4, 1, 2]])
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    condition = {"total_counts_b": torch.tensor([500]), "labels_bl": torch.tensor([[0]])}
    moved = denoiser(tokens[:, order], genes_bg=order[None], **condition)
    torch.testing.assert_close(moved, predict(denoiser, tokens)[:, order])


def test_a_patch_size_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="patch_size must be at least 1, got 0"):
        small(0)


@both
@torch.no_grad()
def test_saying_which_genes_there_are_changes_nothing(patch_size: int) -> None:
    denoiser, tokens = awake(patch_size), torch.randint(0, 6, (3, 10))
    condition: Any = {
        "total_counts_b": torch.full((3,), 500),
        "labels_bl": torch.zeros(3, 1).long(),
    }
    said = denoiser(tokens, genes_bg=torch.arange(10).expand(3, -1), **condition)
    torch.testing.assert_close(said, predict(denoiser, tokens))


@both
@pytest.mark.parametrize("said", [False, True])
@torch.no_grad()
def test_a_place_that_alone_is_read_says_what_it_says_beside_the_others(
    patch_size: int, said: bool
) -> None:
    denoiser, tokens = awake(patch_size), torch.randint(0, 6, (3, 10))
    read = torch.rand(3, 10, generator=torch.Generator().manual_seed(2)) < 0.4
    condition: Any = {
        "total_counts_b": torch.full((3,), 500),
        "labels_bl": torch.zeros(3, 1).long(),
        "genes_bg": torch.stack([torch.randperm(10) for _ in range(3)]) if said else None,
    }
    alone = denoiser(tokens, read_bg=read, **condition)
    torch.testing.assert_close(alone, denoiser(tokens, **condition)[read])


@pytest.mark.parametrize(("n_layers", "patch_size"), [(1, 8), (3, 50)])
@torch.no_grad()
def test_flops_are_those_that_torch_counts(n_layers: int, patch_size: int) -> None:
    size: Any = {"d_model": 64, "n_layers": n_layers, "n_heads": 4, "patch_size": patch_size}
    network, n_cells = Denoiser(1_000, n_tokens=16, **size).to("meta"), 64
    tokens = torch.zeros(n_cells, 1_000, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(tokens, total_counts_b=tokens[:, 0], labels_bl=tokens[:, :0])
    # What is done once a batch, and the condition, is left out.
    counted = counter.get_total_flops() / n_cells
    assert count_flops(network, 1_000) == pytest.approx(counted, rel=0.03)
