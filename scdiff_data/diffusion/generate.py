"""What a trained model does: generate cells, and impute genes.

`generate_cells` and `impute_cells` are the methods `generate` and `impute` of `MaskedDiffusion`,
which is the model that all functions here take.

Shapes: b cells of a batch, c all cells asked for, g genes, v tokens, l labels.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import anndata
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from torch import Tensor

from scdiff_data.constants import MAX_COUNT
from scdiff_data.diffusion.process import keyed_generator
from scdiff_data.diffusion.samplers import Sampler, guide, sample_tokens
from scdiff_data.evaluation import name_cells
from scdiff_data.telling import Progress


def generate_cells(
    model: Any,
    n_cells: int,
    *,
    labels: Mapping[str, str] | None = None,
    total_counts: ArrayLike | None = None,
    steps: int = 32,
    guidance: float = 1.0,
    sampler: Sampler = "ancestral",
    seed: int = 0,
    batch_size: int = 256,
) -> anndata.AnnData:
    """Make new cells; no data directory is needed.

    Parameters
    ----------
    n_cells
        How many, at least 1.
    labels
        Label → category that all cells shall have. What is not given is drawn, with the depth,
        from the training cells that have the given labels.
    total_counts
        Depth to condition on, whole-cell counts over all genes: one number, or [n_cells].
    steps
        Sampling steps; 32 to 64 come close to the exact sampler.
    guidance
        Above 1, cells are more typical of their condition than the data's: see `guide`.
    sampler
        `ancestral`, `fixed` or `remask`: see `samplers.py`.
    seed
        The same seed and batch size give the same cells.
    batch_size
        Cells made together.

    Returns
    -------
    AnnData
        `X` int32 CSR counts [n_cells, n_genes]; `obs` the depth asked for as `total_counts`, and
        the labels; `var` the gene ids as index, and `gene_symbols`; `uns` the model card, as JSON.

    Raises
    ------
    ValueError
        If a label, category or sampler is unknown, or `total_counts` has another length.
    """
    conditions_cl = draw_conditions(
        model, n_cells, labels=labels or {}, total_counts=total_counts, seed=seed
    )
    how: Any = {"steps": steps, "sampler": sampler, "seed": seed, "batch_size": batch_size}
    shape = (n_cells, len(model.hparams["panel"]["gene_ids"]))
    masks_cg = torch.tensor(model.denoiser.mask_id, device=model.device).expand(shape)
    batches = _fill_masked(model, conditions_cl, masks_cg, guidance=guidance, **how)
    counts_cg = sparse.vstack([sparse.csr_matrix(batch) for batch in batches], format="csr")
    return name_cells(counts_cg, conditions_cl, model.hparams["panel"], model.card)


def impute_cells(
    model: Any,
    expression: ArrayLike,
    known_mask: ArrayLike,
    *,
    labels: Mapping[str, str] | None = None,
    total_counts: ArrayLike | None = None,
    steps: int = 32,
    sampler: Sampler = "ancestral",
    seed: int = 0,
    batch_size: int = 256,
) -> NDArray[np.int32]:
    """Draw the genes that are not known, given those that are.

    The known genes are exactly conditioned on: they are what any training mask left open. Draws
    differ by `seed`; the mean over some of them estimates the expected count.

    Parameters
    ----------
    expression
        Counts of the model's genes in their order, [n_cells, n_genes], 0 … 32,767; what stands
        at a gene that is not known does not matter.
    known_mask
        Bool, [n_cells, n_genes], or [n_genes] for all cells alike.
    total_counts
        Each cell's counts over all the genes there are, one number or [n_cells]. None: the
        model is told neither these nor labels.
    labels
        Label → category of all cells, beside `total_counts`; others count as missing.
    steps, sampler, seed, batch_size
        As `generate`.

    Returns
    -------
    counts
        [n_cells, n_genes]; the known ones are those of `expression`.

    Raises
    ------
    ValueError
        If shapes do not fit the model's genes, a known count is out of range, or labels come
        without `total_counts`.
    """
    counts_cg, n_genes = np.asarray(expression), len(model.hparams["panel"]["gene_ids"])
    if counts_cg.ndim != 2 or counts_cg.shape[1] != n_genes:
        raise ValueError(
            f"expression must be [n_cells, {n_genes}], a column for each of the model's genes, "
            f"got {list(counts_cg.shape)}"
        )
    known_cg = np.broadcast_to(np.asarray(known_mask, bool), counts_cg.shape)
    counts_cg = np.where(known_cg, counts_cg, 0).astype(np.int32)
    if counts_cg.size and not 0 <= counts_cg.min() <= counts_cg.max() <= MAX_COUNT:
        raise ValueError(
            f"known counts must be in 0 … {MAX_COUNT}, got {counts_cg.min()} … {counts_cg.max()}"
        )
    if labels and total_counts is None:
        raise ValueError("labels are told with the depth or not at all: give total_counts too")
    conditions_cl = draw_conditions(
        model, len(counts_cg), labels=labels or {}, total_counts=total_counts, seed=seed
    )
    for place, label in enumerate(model.hparams["panel"]["categories"], start=1):
        if label not in (labels or {}):
            conditions_cl[:, place] = -1
    tokens_cg = model.tokenizer.encode(torch.from_numpy(counts_cg).to(model.device))
    hidden_cg = torch.from_numpy(~known_cg).to(model.device)
    tokens_cg = tokens_cg.masked_fill(hidden_cg, model.denoiser.mask_id)
    how: Any = {"steps": steps, "sampler": sampler, "seed": seed, "batch_size": batch_size}
    guidance = float(total_counts is not None)
    batches = _fill_masked(model, conditions_cl, tokens_cg, guidance=guidance, **how)
    return np.where(known_cg, counts_cg, np.concatenate(list(batches)))


def draw_conditions(
    model: Any,
    n_cells: int,
    *,
    labels: Mapping[str, str],
    total_counts: ArrayLike | None,
    seed: int,
) -> NDArray[np.int64]:
    """Depths and label codes for new cells, int64 [n_cells, 1 + l].

    Drawn jointly from the training cells that the model keeps, of those that have the given labels,
    or of all where none has them; then `total_counts` take the depths' place.
    """
    categories = model.hparams["panel"]["categories"]
    known_cl: NDArray[np.int64] = model.conditions_cl.numpy(force=True)
    if n_cells < 1:
        raise ValueError(f"n_cells must be at least 1, got {n_cells}")
    wanted = {}
    for label, category in labels.items():
        if category not in categories.get(label, []):
            raise ValueError(
                f"labels must be among those the model was trained on, got {label}={category!r}; "
                f"it knows {dict(categories)}"
            )
        wanted[1 + list(categories).index(label)] = categories[label].index(category)
    columns, codes = list(wanted), list(wanted.values())
    matching_cl = known_cl[(known_cl[:, columns] == codes).all(-1)]
    rows_cl = matching_cl if len(matching_cl) else known_cl
    drawn_cl = rows_cl[np.random.default_rng(seed).integers(len(rows_cl), size=n_cells)]
    drawn_cl[:, columns] = codes
    if total_counts is not None:
        drawn_cl[:, 0] = total_counts
    return drawn_cl


@torch.inference_mode()
def _fill_masked(
    model: Any,
    conditions_cl: NDArray[np.int64],
    tokens_cg: Tensor,
    *,
    guidance: float,
    steps: int,
    sampler: Sampler,
    seed: int,
    batch_size: int,
) -> Iterator[NDArray[np.int32]]:
    """Counts with the masked genes filled, a batch at a time."""
    starts = range(0, len(tokens_cg), batch_size)
    with Progress("generate", "steps", steps * len(starts)) as progress:
        for start in starts:
            rows_bl = torch.from_numpy(conditions_cl[start : start + batch_size]).to(model.device)
            generator = keyed_generator(seed, start, device=model.device)
            denoise = _condition(model, rows_bl, progress, guidance=guidance)
            filled_bg = sample_tokens(
                denoise,
                tokens_cg[start : start + batch_size],
                mask_id=model.denoiser.mask_id,
                steps=steps,
                generator=generator,
                sampler=sampler,
            )
            yield model.tokenizer.decode(filled_bg, generator).numpy(force=True).astype(np.int32)


def _condition(
    model: Any, rows_bl: Tensor, progress: Progress, *, guidance: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """The denoiser as a function of tokens and places: depth, labels and guidance set."""
    genes, depth_b = model.hparams["panel"]["gene_places"], rows_bl[:, 0]
    genes_bg = None if genes is None else torch.tensor(genes, device=model.device)[None]
    known: Any = {"total_counts_b": depth_b, "labels_bl": rows_bl[:, 1:], "genes_bg": genes_bg}
    withheld_b = torch.ones_like(depth_b, dtype=torch.bool)

    def denoise(tokens_bg: Tensor, read_bg: Tensor) -> Tensor:
        progress.add()
        ask = partial(model.denoiser, tokens_bg, read_bg=read_bg, **known)
        if guidance in (0, 1):
            only_nv: Tensor = ask(unconditional_b=None if guidance else withheld_b)
            return only_nv
        return guide(ask(), ask(unconditional_b=withheld_b), guidance=guidance)

    return denoise
