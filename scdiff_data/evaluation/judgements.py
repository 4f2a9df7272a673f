"""What a report says beyond samples: effects between labels, and whether probabilities hold.

Of probabilities, two predictions are put to the test on the genes that a mask hides: that a count
is 0, and that it reaches each of the tokens' lower edges (1 or more, 2 or more, …). The masks are
those of validation, so a gene is predicted from few or from nearly all others, as the bound asks.

Shapes: b cells of a batch, g genes, v tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from scdiff_data.loading import CellBatch, TokenBatch
from scdiff_data.measuring import (
    compare_effects,
    guess_types,
    measure_reliability,
    sum_by_probability,
)
from scdiff_data.training import ScRNADataModule

if TYPE_CHECKING:
    from anndata import AnnData


class Predictor(Protocol):
    """What calibration takes of a model."""

    @property
    def device(self) -> torch.device:
        """Where batches are put."""

    def predict_masked(self, batch: TokenBatch) -> Iterator[tuple[Tensor, Tensor]]:
        """Of some masks, the tokens' probabilities [b, g, v] and which genes are hidden [b, g]."""
        ...


def measure_calibration(
    model: Any, datamodule: ScRNADataModule, split: str, *, n_cells: int
) -> dict[str, Any]:
    """Reliability of a model's predictions, of `zeros` and of `counts`.

    Parameters
    ----------
    model
        If it has no `predict_masked`, there is nothing to measure.
    datamodule
        Its cells.
    split
        `val` or `test`.
    n_cells
        The most cells to predict.

    Returns
    -------
    dict
        Empty, or `calibration`, with both as `Reliability` has them.
    """
    if not hasattr(model, "predict_masked"):
        return {}
    sums: dict[str, list[Any]] = {"zeros": [], "counts": []}
    experiments: list[str] = []
    with torch.inference_mode():
        for batch in _take_batches(cast("Predictor", model), datamodule, split, n_cells):
            own = batch.metadata.get("experiment_id")
            experiments += ["all"] * len(batch.tokens) if own is None else np.asarray(own).tolist()
            both: dict[str, list[Any]] = {name: [] for name in sums}
            tokens_bg1 = batch.tokens[..., None]
            for p_bgv, hidden_bg in cast("Predictor", model).predict_masked(batch):
                reached_bgv = p_bgv.flip(-1).cumsum(-1).flip(-1)[..., 1:].clamp(0, 1)
                edges_v = torch.arange(1, p_bgv.shape[-1], device=tokens_bg1.device)
                for name, p, is_true in (
                    ("zeros", p_bgv[..., :1], tokens_bg1 == 0),
                    ("counts", reached_bgv, tokens_bg1 >= edges_v),
                ):
                    counted = hidden_bg[..., None].expand_as(p)
                    parts = (part.numpy(force=True) for part in (p.float(), is_true, counted))
                    both[name].append(sum_by_probability(*parts))
            for name, of_masks in both.items():  # a cell is one cell, however often it is asked
                sums[name].append(np.sum(of_masks, axis=0))
    if not experiments:
        return {}
    curves = {
        name: measure_reliability(np.concatenate(parts), experiments).to_plain()
        for name, parts in sums.items()
    }
    return {"calibration": curves}


def _take_batches(
    model: Predictor, datamodule: ScRNADataModule, split: str, n_cells: int
) -> Iterator[TokenBatch]:
    """A split's batches, until there are so many cells."""
    loader = datamodule.val_dataloader() if split == "val" else datamodule.test_dataloader()
    for batch in loader:
        if n_cells <= 0:
            return
        moved = datamodule.transfer_batch_to_device(batch, model.device, 0)
        n_cells -= len(moved.tokens)
        yield moved


def score_effects(
    generated: "AnnData",
    real: Sequence[CellBatch],
    train: CellBatch,
    categories: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """The effects between values of the label that cells were generated for, or of the first."""
    label = find_label(categories, list(generated.obs))
    if label is None:
        return {}
    names = list(categories[label])
    counts_cg, real_rg = (
        generated.X.toarray(),
        np.concatenate([np.asarray(batch.expression) for batch in real]),
    )
    if is_given := label in generated.obs:
        codes_c = generated.obs[label].cat.set_categories(names).cat.codes.to_numpy()
        codes_r = np.concatenate([np.asarray(batch.metadata[label]) for batch in real])
    elif (codes_t := np.asarray(train.metadata[label])).max() >= 0:
        train_tg = np.asarray(train.expression)
        codes_c, codes_r = (guess_types(c, train_tg, codes_t) for c in (counts_cg, real_rg))
    else:
        return {}
    effects = compare_effects(
        counts_cg, codes_c, real_rg, codes_r, label=label, names=names, is_given=is_given
    )
    return {} if effects is None else {"effects": effects.to_plain()}


def find_label(categories: Mapping[str, Sequence[str]], first: Sequence[str] = ()) -> str | None:
    """A label of texts of several values; one of `first`, if there is any."""
    several = [name for name, values in categories.items() if len(values) > 1]
    return next((name for name in (*first, *several) if name in several), None)
