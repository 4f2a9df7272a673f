"""The reverse process: from masked genes to a cell, a few genes at a time.

Three samplers; none argmaxes, and none prefers a gene for being sure: revealing the most confident
first would write the zeros first.

    ancestral   from masked fraction t to s, each masked gene is revealed with probability (t - s)/t
    fixed       as ancestral, but every cell reveals as many genes at a step, in a random order
    remask      as ancestral, but some revealed genes are masked again, and so can be mended
                (ReMDM, arXiv:2503.00307)

Shapes: b cells of a batch, c all cells asked for, g genes, v tokens, n genes being revealed,
l labels.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Literal, get_args

import anndata
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from scdiff_data.diffusion.denoiser import Denoiser
from scdiff_data.diffusion.panel import Panel
from scdiff_data.diffusion.process import cosine_grid, keyed_generator
from scdiff_data.tokenizers import BinTokens

Sampler = Literal["ancestral", "fixed", "remask"]

_REMASKED = 0.1
"""Of the largest share of revealed genes that a step can mask again and stay on the schedule."""


def guide(conditional_bgv: Tensor, unconditional_bgv: Tensor, *, guidance: float) -> Tensor:
    """Logits of the guided prediction p ∝ p_conditional^w p_unconditional^(1-w), w = `guidance`.

    Taken over each gene's tokens before anything is unmasked. At 1 it is the conditional
    prediction, at 0 the unconditional one; above 1 the condition is exaggerated.
    """
    conditional_bgv = conditional_bgv.log_softmax(-1)
    return conditional_bgv.lerp(unconditional_bgv.log_softmax(-1), 1 - guidance)


def sample_tokens(
    denoise: Callable[[Tensor], Tensor],
    tokens_bg: Tensor,
    *,
    mask_id: int,
    steps: int,
    generator: torch.Generator,
    sampler: Sampler = "ancestral",
) -> Tensor:
    """Fill the masked genes of `tokens_bg`, on the cosine grid; the others stay what they are.

    Parameters
    ----------
    denoise
        Takes tokens with masks [b, g] to logits [b, g, v], at most `steps` times.
    tokens_bg
        Int64, on the generator's device; all masked for new cells.
    mask_id
        The mask's token.
    steps
        32 to 64 come close to the exact sampler; 1 makes genes independent.
    generator
        Of every random choice.
    sampler
        See the top of this file.
    """
    if sampler not in get_args(Sampler):
        raise ValueError(f"sampler must be one of {get_args(Sampler)}, got {sampler!r}")
    is_free_bg = tokens_bg == mask_id
    place_bg = _random_places(is_free_bg, generator)
    for fraction, next_fraction in pairwise(cosine_grid(steps)):
        chance_bg = torch.rand(tokens_bg.shape, generator=generator, device=generator.device)
        is_masked_bg = tokens_bg == mask_id
        remasked = 0.0
        if sampler == "remask" and fraction < 1:
            remasked = _REMASKED * min(1.0, next_fraction / (1 - fraction))
        # So that the next fraction is masked, whatever is masked again: ReMDM's equation 5.
        revealed = 1 - (next_fraction - remasked * (1 - fraction)) / fraction
        if sampler == "fixed":
            revealed_bg = is_masked_bg & (place_bg >= next_fraction)
        else:
            revealed_bg = is_masked_bg & (chance_bg < revealed)
        again_bg = is_free_bg & ~is_masked_bg & (chance_bg < remasked)
        logits_nv = denoise(tokens_bg)[revealed_bg]
        tokens_bg = tokens_bg.masked_fill(again_bg, mask_id)
        if len(logits_nv):
            probability_nv = logits_nv.float().softmax(-1)
            drawn_n = probability_nv.multinomial(1, generator=generator)[:, 0]
            tokens_bg = tokens_bg.masked_scatter(revealed_bg, drawn_n)
    return tokens_bg


def _random_places(is_free_bg: Tensor, generator: torch.Generator) -> Tensor:
    """Each free gene's place in a random order of its cell's free genes, in [0, 1)."""
    score_bg = torch.rand(is_free_bg.shape, generator=generator, device=generator.device)
    rank_bg = score_bg.masked_fill(~is_free_bg, 2.0).argsort(-1).argsort(-1)
    return rank_bg / is_free_bg.sum(-1, keepdim=True).clamp(min=1)


def draw_conditions(
    known_cl: NDArray[np.int64],
    *,
    n_cells: int,
    categories: Mapping[str, list[str]],
    labels: Mapping[str, str],
    seed: int,
) -> NDArray[np.int64]:
    """Depths and label codes for new cells, int64 [n_cells, 1 + l].

    Drawn jointly from the rows of `known_cl` (depth, then the codes of `categories`' labels) that
    have the given labels, or from all rows where none has them.
    """
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
    return drawn_cl


@torch.inference_mode()
def fill_cells(
    denoiser: Denoiser,
    conditions_cl: NDArray[np.int64],
    tokens_cg: Tensor | None = None,
    *,
    tokenizer: BinTokens,
    panel: Panel,
    is_told: bool = True,
    guidance: float = 1.0,
    steps: int,
    sampler: Sampler,
    seed: int,
    batch_size: int,
) -> Iterator[NDArray[np.int32]]:
    """Counts of cells whose masked genes are filled, int32 [b, g], a batch at a time.

    Parameters
    ----------
    denoiser, tokenizer, panel
        A model's; the work is done on the denoiser's device.
    conditions_cl
        Depth and label codes (`draw_conditions`).
    tokens_cg
        Tokens with masks, int64; None masks all.
    is_told
        Whether the model is told the conditions.
    guidance, steps, sampler, seed, batch_size
        As in `MaskedDiffusion.generate`.
    """
    device, genes_bg = denoiser.head_bias.weight.device, None
    if panel["gene_places"] is not None:
        genes_bg = torch.tensor(panel["gene_places"], device=device)[None]
    for start in range(0, len(conditions_cl), batch_size):
        rows_bl = torch.from_numpy(conditions_cl[start : start + batch_size]).to(device)
        if tokens_cg is None:
            shape = (len(rows_bl), len(panel["gene_ids"]))
            tokens_bg = torch.full(shape, denoiser.mask_id, device=device)
        else:
            tokens_bg = tokens_cg[start : start + batch_size].to(device)
        generator = keyed_generator(seed, start, device=device)
        filled_bg = sample_tokens(
            _condition(denoiser, rows_bl, genes_bg, is_told=is_told, guidance=guidance),
            tokens_bg,
            mask_id=denoiser.mask_id,
            steps=steps,
            generator=generator,
            sampler=sampler,
        )
        yield tokenizer.decode(filled_bg, generator).numpy(force=True).astype(np.int32)


def _condition(
    denoiser: Denoiser, rows_bl: Tensor, genes_bg: Tensor | None, *, is_told: bool, guidance: float
) -> Callable[[Tensor], Tensor]:
    """The denoiser as a function of the tokens alone: depth, labels and guidance set."""
    condition = {"total_counts_b": rows_bl[:, 0], "labels_bl": rows_bl[:, 1:], "genes_bg": genes_bg}
    withheld_b = torch.ones_like(rows_bl[:, 0], dtype=torch.bool)

    def ask(tokens_bg: Tensor, withheld_b: Tensor | None) -> Tensor:
        logits_bgv: Tensor = denoiser(tokens_bg, **condition, unconditional_b=withheld_b)
        return logits_bgv

    if not is_told:
        return lambda tokens_bg: ask(tokens_bg, withheld_b)
    if guidance == 1:
        return lambda tokens_bg: ask(tokens_bg, None)
    return lambda tokens_bg: guide(
        ask(tokens_bg, None), ask(tokens_bg, withheld_b), guidance=guidance
    )


def name_cells(
    counts_cg: sparse.csr_matrix, conditions_cl: NDArray[np.int64], panel: Panel
) -> anndata.AnnData:
    """Generated counts with their genes, depths and labels."""
    index = [f"generated_{i}" for i in range(len(conditions_cl))]
    obs = pd.DataFrame({"total_counts": conditions_cl[:, 0]}, index=index)
    for code_c, (label, names) in zip(
        conditions_cl[:, 1:].T, panel["categories"].items(), strict=True
    ):
        obs[label] = pd.Categorical.from_codes(code_c, categories=pd.Index(names))
    var = pd.DataFrame({"gene_symbols": panel["gene_symbols"]}, index=panel["gene_ids"])
    return anndata.AnnData(counts_cg, obs=obs, var=var)
