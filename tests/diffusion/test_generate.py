"""A model generates and imputes: the same again for the same seed, and what was asked for."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from scdiff_data.diffusion.generate import draw_conditions
from scdiff_data.diffusion.process import keyed_generator

samplers = pytest.mark.parametrize("sampler", ["ancestral", "fixed", "remask"])


def test_conditions_are_drawn_jointly_and_kept_to_the_labels() -> None:
    known = torch.tensor([[100, 0], [110, 0], [900, 1], [950, 1]])
    panel = {"categories": {"cell_type": ["B", "T", "NK"]}}
    model: Any = SimpleNamespace(conditions_cl=known, hparams={"panel": panel})

    def draw(total_counts: Any = None, **labels: str) -> Any:
        return draw_conditions(model, 50, labels=labels, total_counts=total_counts, seed=0)

    assert {tuple(row) for row in draw()} == {tuple(row) for row in known.tolist()}
    assert set(draw(cell_type="T")[:, 0]) == {900, 950}
    assert set(draw(cell_type="NK")[:, 1]) == {2}
    assert set(draw(70, cell_type="B")[:, 0]) == {70}
    assert (draw(np.arange(50))[:, 0] == np.arange(50)).all()
    with pytest.raises(ValueError, match=r"got cell_type='b'; it knows .*'B', 'T', 'NK'"):
        draw(cell_type="b")


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
    counts = mixture.sample(100, seed=77)
    known = torch.rand(counts.shape, generator=keyed_generator(1)) < 0.6
    dirty = counts.masked_fill(~known, 12_345).numpy()
    draws = np.stack(
        [model.impute(dirty, known.numpy(), steps=10, seed=s, sampler=sampler) for s in range(30)]
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
