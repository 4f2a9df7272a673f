"""The forward process and the objective: which genes are masked, and what guessing them costs.

A cell is L tokens, one a gene. Masked (absorbing-state) diffusion hides k of them, k uniform on
1 … L, and asks for each hidden token given the rest. With any monotone noise schedule the
continuous-time bound is exactly (arXiv:2406.03736; ∫₀¹ (1/t) Bin(k; L, t) dt = 1/k)

    -(1/L) log p(x | c)  ≤  E_k E_{S: |S|=k} [ (1/k) Σ_{i∈S} -log p(x_i | x outside S, c) ]

so the loss is **the mean cross-entropy over that cell's masked genes**: no weight, no epsilon, no
time input. Shapes: b cells of a batch, g genes, v tokens.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scdiff_data.loading import TokenBatch


def keyed_generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator whose stream depends on `key` alone.

    Lightning's checkpoints hold no random state: keys such as (seed, epoch, batch, rank) make a
    resumed run draw what the undisturbed one would have drawn.
    """
    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest))


def draw_mask_counts(
    n_cells: int, *, n_genes: int, generator: torch.Generator, rank: int = 0, world_size: int = 1
) -> Tensor:
    """How many genes to mask in each cell: k ~ U{1 … n_genes}, int64 [b].

    The global batch of `world_size` x `n_cells` divides the range into as many equal strata, one a
    cell, which lowers the loss's variance. The strata are permuted: sorted ones would tie the noise
    level to a cell's place in the batch. `generator` must be the same on all ranks; each takes its
    share.
    """
    n_global = world_size * n_cells
    stratum = torch.randperm(n_global, generator=generator)[rank * n_cells : (rank + 1) * n_cells]
    offset = torch.rand((), dtype=torch.float64, generator=generator)
    k = 1 + ((stratum + offset) / n_global * n_genes).long()
    return k.clamp(max=n_genes)  # against rounding at the upper end


def draw_masks(n_masked_b: Tensor, *, n_genes: int, generator: torch.Generator) -> Tensor:
    """Masks with exactly `n_masked_b[i]` genes of cell i, all such sets equally likely.

    Bool [b, g] on the generator's device; True is masked.
    """
    score_bg = torch.rand(len(n_masked_b), n_genes, generator=generator, device=generator.device)
    is_first_bg = (
        torch.arange(n_genes, device=score_bg.device) < n_masked_b.to(score_bg.device)[:, None]
    )
    return torch.empty_like(is_first_bg).scatter_(-1, score_bg.argsort(-1), is_first_bg)


def draw_mask_pairs(cell_ids: Sequence[str], *, n_genes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two complementary masks a cell, each with k ~ U{1 … n_genes}: bool [b, g] twice.

    Together they ask for every gene once, and a lucky k in one is paid for in the other. They
    depend on (seed, cell id) alone, so neither the order of the cells nor the batch size moves
    a validation loss. A full mask has no complement to ask for: it is its own partner, and this
    is what keeps the second k uniform too.
    """
    first_bg = torch.empty(len(cell_ids), n_genes, dtype=torch.bool)
    for row, cell_id in zip(first_bg, cell_ids, strict=True):
        generator = keyed_generator(seed, str(cell_id))
        k = torch.randint(1, n_genes + 1, (1,), generator=generator)
        row.copy_(draw_masks(k, n_genes=n_genes, generator=generator)[0])
    return first_bg, ~first_bg | first_bg.all(-1, keepdim=True)


def masked_cross_entropy(logits_bgv: Tensor, tokens_bg: Tensor, masked_bg: Tensor) -> Tensor:
    """Each cell's mean cross-entropy over its masked genes, float32 [b], nats a gene.

    Its expectation over `draw_mask_counts` and `draw_masks` is the bound at the top of this file.
    The mean is taken within a cell first: a mean over all the masked genes of a batch would weight
    cells by k and be no bound.

    Parameters
    ----------
    logits_bgv
        Unnormalised log probabilities, any float type.
    tokens_bg
        True tokens, int64 in 0 … v - 1.
    masked_bg
        Bool, at least one True a cell.
    """
    # Flat, since cross_entropy wants the tokens' dimension second and would copy to get it there.
    logits_nv, tokens_n = logits_bgv.float().flatten(0, 1), tokens_bg.flatten()
    nll_bg = F.cross_entropy(logits_nv, tokens_n, reduction="none").view_as(tokens_bg)
    return nll_bg.where(masked_bg, 0.0).sum(-1) / masked_bg.sum(-1)


def predict_masked(model: Any, batch: TokenBatch) -> Iterator[tuple[Tensor, Tensor]]:
    """Of validation's two masks the tokens' probabilities [b, g, v], and the mask [b, g].

    A method of `MaskedDiffusion`.
    """
    n_genes, seed = batch.tokens.shape[1], model.hparams["seed"]
    for masked_bg in draw_mask_pairs(batch.metadata["cell_id"], n_genes=n_genes, seed=seed):
        hidden_bg = masked_bg.to(model.device)
        yield model.logits(batch, hidden_bg).softmax(-1), hidden_bg


def cosine_grid(steps: int) -> list[float]:
    """Masked fraction before each sampling step and at the end: 1 = t₀ > … > t_n = 0.

    t_i = cos(π i / 2n): few genes at first, when little is known of the cell, and many at the end.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return [*np.cos(np.pi / 2 * np.arange(steps) / steps).tolist(), 0.0]
