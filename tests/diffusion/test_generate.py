"""The sampler draws from the model: exactly, on schedule, and the same again."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scdiff_data.diffusion.generate import draw_conditions, guide, sample_tokens
from scdiff_data.diffusion.process import cosine_grid, keyed_generator


def test_the_masked_fraction_follows_the_schedule(mixture: Any) -> None:
    fractions = []

    def denoise(tokens: Tensor) -> Tensor:
        fractions.append(float((tokens == mixture.mask_id).float().mean()))
        exact: Tensor = mixture.denoise(tokens)
        return exact

    tokens = sample_tokens(
        denoise, shape=(2_000, 24), mask_id=4, n_steps=8, generator=keyed_generator(0)
    )
    assert np.allclose(fractions, cosine_grid(8)[:-1], atol=0.01)
    assert tokens.max() < mixture.mask_id


def test_an_oracle_recovers_the_library_and_one_step_does_not(mixture: Any) -> None:
    def library_cv(tokens: Tensor) -> float:
        library = tokens.sum(1).double()
        return float(library.std() / library.mean())

    real = library_cv(mixture.sample(4_000, seed=9))
    settings: Any = {"shape": (4_000, 24), "mask_id": 4, "generator": keyed_generator(1)}
    many = library_cv(sample_tokens(mixture.denoise, n_steps=32, **settings))
    one = library_cv(sample_tokens(mixture.denoise, n_steps=1, **settings))
    assert abs(many / real - 1) < 0.05
    assert one < 0.8 * real


def test_samples_have_the_probabilities_of_the_model() -> None:
    # Two genes, two tokens: gene 2 copies gene 1 with probability 0.9, so four states in all.
    joint = torch.tensor([[0.45, 0.05], [0.05, 0.45]])

    def denoise(tokens: Tensor) -> Tensor:
        table = torch.cat([joint, joint.sum(0, keepdim=True)])  # row 2: nothing known
        return torch.stack([table[tokens[:, 1]], table[tokens[:, 0]]], 1).log()

    tokens = sample_tokens(
        denoise, shape=(20_000, 2), mask_id=2, n_steps=64, generator=keyed_generator(0)
    )
    frequency = (2 * tokens[:, 0] + tokens[:, 1]).bincount(minlength=4) / len(tokens)
    # Both genes revealed in one step are drawn as if independent: the grid's own, small error.
    assert torch.allclose(frequency, joint.flatten(), atol=0.02)


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
    cells = model.generate(40, n_steps=8, seed=3)
    again = model.generate(40, n_steps=8, seed=3)
    other = model.generate(40, n_steps=8, seed=4)
    assert (cells.X != again.X).nnz == 0
    assert (cells.X != other.X).nnz > 0
    assert cells.X.dtype == np.int32
    assert list(cells.var_names) == data.gene_ids
    assert list(cells.var["gene_symbols"]) == data.gene_symbols
    assert set(cells.obs["half"].cat.categories) == {"low", "high"}


def test_cells_have_the_label_and_depth_asked_for(trained: Any) -> None:
    model, _, _ = trained
    for half, sign in (("low", 0), ("high", 1)):
        cells = model.generate(200, labels={"half": half}, n_steps=16)
        assert set(cells.obs["half"]) == {half}
        assert ((cells.X.toarray()[:, 0] > 0) == sign).mean() > 0.8
    shallow, deep = (model.generate(200, total_counts=depth, n_steps=16) for depth in (25, 50))
    assert set(shallow.obs["total_counts"]) == {25}
    assert deep.X.sum() > shallow.X.sum()
    guided = model.generate(20, labels={"half": "high"}, n_steps=4, guidance=2.0)
    assert guided.shape == (20, 24)
    with pytest.raises(ValueError, match="n_cells must be at least 1, got 0"):
        model.generate(0)
