"""The reverse process: from all genes masked to a cell, a few genes at a time.

The sampler is ancestral: going from masked fraction t to s, each masked gene is revealed with
probability (t - s)/t, and its token drawn from the denoiser's prediction. Nothing is argmaxed and
no gene is preferred for being sure: revealing the most confident first would write the zeros first.

Shapes: b cells of a batch, c all cells asked for, g genes, v tokens, n genes being revealed,
l labels.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import anndata
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from scdiff_data.diffusion.denoiser import Denoiser, PatchDenoiser
from scdiff_data.diffusion.panel import Panel
from scdiff_data.diffusion.process import cosine_grid, keyed_generator
from scdiff_data.tokenizers import BinTokens


def guide(conditional_bgv: Tensor, unconditional_bgv: Tensor, *, guidance: float) -> Tensor:
    """Logits of the guided prediction p ∝ p_conditional^w p_unconditional^(1-w), w = `guidance`.

    Taken over each gene's tokens before anything is unmasked. At 1 it is the conditional
    prediction, at 0 the unconditional one; above 1 the condition is exaggerated.
    """
    conditional_bgv = conditional_bgv.log_softmax(-1)
    return conditional_bgv.lerp(unconditional_bgv.log_softmax(-1), 1 - guidance)


def sample_tokens(
    denoise: Callable[[Tensor], Tensor],
    *,
    shape: tuple[int, int],
    mask_id: int,
    n_steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Tokens of new cells, int64 [b, g] (`shape`), by ancestral sampling on the cosine grid.

    `denoise` takes tokens with masks [b, g] to logits [b, g, v], `n_steps` times: 32 to 64 come
    close to the exact sampler, and 1 makes genes independent. Cells are made on the generator's
    device.
    """
    device = generator.device
    tokens_bg = torch.full(shape, mask_id, device=device)
    for fraction, next_fraction in pairwise(cosine_grid(n_steps)):
        chance_bg = torch.rand(shape, generator=generator, device=device)
        revealed_bg = (tokens_bg == mask_id) & (chance_bg < 1 - next_fraction / fraction)
        probability_nv = denoise(tokens_bg)[revealed_bg].float().softmax(-1)
        if len(probability_nv):
            tokens_bg[revealed_bg] = probability_nv.multinomial(1, generator=generator)[:, 0]
    return tokens_bg


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
def generate_cells(
    denoiser: Denoiser | PatchDenoiser,
    conditions_cl: NDArray[np.int64],
    *,
    tokenizer: BinTokens,
    panel: Panel,
    n_steps: int,
    guidance: float,
    seed: int,
    batch_size: int,
) -> anndata.AnnData:
    """Make cells of the given depths and labels (`draw_conditions`), on the denoiser's device.

    `MaskedDiffusion.generate` describes the arguments and the result.
    """
    device = denoiser.head_bias.weight.device
    genes_bg = None
    if panel["gene_places"] is not None:
        genes_bg = torch.tensor(panel["gene_places"], device=device)[None]
    batches = []
    for start in range(0, len(conditions_cl), batch_size):
        rows_bl = torch.from_numpy(conditions_cl[start : start + batch_size]).to(device)
        generator = keyed_generator(seed, start, device=device)
        tokens_bg = sample_tokens(
            _condition(partial(denoiser, genes_bg=genes_bg), rows_bl, guidance=guidance),
            shape=(len(rows_bl), len(panel["gene_ids"])),
            mask_id=denoiser.mask_id,
            n_steps=n_steps,
            generator=generator,
        )
        counts_bg = tokenizer.decode(tokens_bg, generator)
        batches.append(sparse.csr_matrix(counts_bg.numpy(force=True).astype(np.int32)))

    index = [f"generated_{i}" for i in range(len(conditions_cl))]
    obs = pd.DataFrame({"total_counts": conditions_cl[:, 0]}, index=index)
    for code_c, (label, names) in zip(
        conditions_cl[:, 1:].T, panel["categories"].items(), strict=True
    ):
        obs[label] = pd.Categorical.from_codes(code_c, categories=pd.Index(names))
    var = pd.DataFrame({"gene_symbols": panel["gene_symbols"]}, index=panel["gene_ids"])
    return anndata.AnnData(sparse.vstack(batches, format="csr"), obs=obs, var=var)


def _condition(
    denoiser: Callable[..., Tensor], rows_bl: Tensor, *, guidance: float
) -> Callable[[Tensor], Tensor]:
    """The denoiser as a function of the tokens alone: depth, labels and guidance set."""

    def denoise(tokens_bg: Tensor, *, withheld: bool = False) -> Tensor:
        return denoiser(
            tokens_bg,
            total_counts_b=rows_bl[:, 0],
            labels_bl=rows_bl[:, 1:],
            unconditional_b=torch.full_like(rows_bl[:, 0], withheld, dtype=torch.bool),
        )

    if guidance == 1:
        return denoise
    return lambda tokens_bg: guide(
        denoise(tokens_bg), denoise(tokens_bg, withheld=True), guidance=guidance
    )
