"""The forward process and the objective: what of a cell is hidden, and what guessing it costs.

A cell is L tokens, one a gene, and each is told in two *looks*: first whether the gene is expressed
(its token is not 0), then how much. Masked (absorbing-state) diffusion hides k of the 2L looks, k
uniform on 1 … 2L, and asks what one look more would say. A gene with both looks hidden is masked;
with one hidden, it is known not to be expressed, or to be, at an unknown level.

Told one at a time in any order, looks give the bound (arXiv:2406.03736; of parts of tokens,
arXiv:2505.18495), with both looks of the genes i hidden, one of the genes j, and the rest told,

    -(1/L) log p(x | c)  ≤  E_k E_{S: |S|=k} (2/k) [ Σ_i -2 log p(x_i > 0, or not | told, c)
                                                   + Σ_{j: x_j>0} -log p(x_j | x_j > 0, told, c) ]

as each hidden look is the next with chance 1/k, and either look of i says whether it is expressed.
For any noise schedule: no weight, no epsilon, no time input. The looks of a gene must be scored one
by one: its whole token at every hidden look, with these weights, is no bound.

Shapes: b cells of a batch, g genes, v tokens.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

N_LOOKS = 2
"""In which a gene's token is told: whether it is expressed, and how much."""


def keyed_generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator whose stream depends on `key` alone.

    Lightning's checkpoints hold no random state: keys such as (seed, epoch, batch, rank) make a
    resumed run draw what the undisturbed one would have drawn.
    """
    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest))


def draw_hidden_counts(
    n_cells: int, *, n_looks: int, generator: torch.Generator, rank: int = 0, world_size: int = 1
) -> Tensor:
    """How many looks to hide in each cell: k ~ U{1 … n_looks}, int64 [b].

    The global batch of `world_size` x `n_cells` divides the range into as many equal strata, one a
    cell, which lowers the loss's variance. The strata are permuted: sorted ones would tie the noise
    level to a cell's place in the batch. `generator` must be the same on all ranks; each takes its
    share.
    """
    n_global = world_size * n_cells
    stratum = torch.randperm(n_global, generator=generator)[rank * n_cells : (rank + 1) * n_cells]
    offset = torch.rand((), dtype=torch.float64, generator=generator)
    k = 1 + ((stratum + offset) / n_global * n_looks).long()
    return k.clamp(max=n_looks)  # against rounding at the upper end


def draw_hidden(k_b: Tensor, *, n_genes: int, generator: torch.Generator) -> Tensor:
    """How many looks of each gene are hidden, where `k_b[i]` of cell i are, any set as likely.

    Int64 [b, g] in 0 … 2. (To sort random numbers takes ten times as long.)
    """
    order = [torch.randperm(N_LOOKS * n_genes, generator=generator) for _ in k_b]
    hidden_bn = torch.stack(order) < k_b[:, None]
    return hidden_bn.view(-1, N_LOOKS, n_genes).sum(1)


def draw_hidden_pairs(cell_ids: Sequence[str], *, n_genes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two complementary sets of hidden looks a cell, each with k ~ U{1 … 2g}: int64 [b, g] twice.

    Together they ask for every look once, and a lucky k in one is paid for in the other. They
    depend on (seed, cell id) alone, so neither the order of the cells nor the batch size moves
    a validation loss. All looks have no complement to ask for: they are their own partner, and this
    is what keeps the second k uniform too.
    """
    first_bg = torch.empty(len(cell_ids), n_genes, dtype=torch.int64)
    for row, cell_id in zip(first_bg, cell_ids, strict=True):
        generator = keyed_generator(seed, str(cell_id))
        k = torch.randint(1, N_LOOKS * n_genes + 1, (1,), generator=generator)
        row.copy_(draw_hidden(k, n_genes=n_genes, generator=generator)[0])
    is_all_b1 = (first_bg == N_LOOKS).all(-1, keepdim=True)
    return first_bg, torch.where(is_all_b1, first_bg, N_LOOKS - first_bg)


def hide_tokens(tokens_bg: Tensor, hidden_bg: Tensor, *, mask_id: int) -> Tensor:
    """What is seen of tokens whose looks are hidden, int64 [b, g].

    The token, `mask_id` of a gene of which nothing is known, or the id after it of one that is
    known to be expressed. Takes what was seen at fewer hidden looks, too.
    """
    is_known_bg = (hidden_bg == 0) | ((hidden_bg == 1) & (tokens_bg == 0))
    return torch.where(is_known_bg, tokens_bg, mask_id + (hidden_bg == 1))


def score_hidden(logits_bgv: Tensor, tokens_bg: Tensor, hidden_bg: Tensor) -> Tensor:
    """Each cell's one-sample estimate of the bound at the top of this file, float32 [b].

    In nats a gene. The mean over a batch is one over cells: a mean over all hidden looks of a batch
    would weight cells by k and be no bound. `tokens_bg` are the true ones, and of each cell at
    least one look is hidden.
    """
    log_p_bgv = logits_bgv.float().log_softmax(-1)
    is_expressed_bg = tokens_bg > 0
    log_p_expressed_bg = log_p_bgv.exp()[..., 1:].sum(-1).clamp(min=1e-37).log()
    whether_bg = -torch.where(is_expressed_bg, log_p_expressed_bg, log_p_bgv[..., 0])
    how_much_bg = log_p_expressed_bg - log_p_bgv.gather(-1, tokens_bg[..., None])[..., 0]
    is_masked_bg = hidden_bg == N_LOOKS
    is_asked_bg = is_masked_bg | ((hidden_bg == 1) & is_expressed_bg)
    nll_bg = torch.where(is_masked_bg, N_LOOKS * whether_bg, how_much_bg).where(is_asked_bg, 0.0)
    return N_LOOKS * nll_bg.sum(-1) / hidden_bg.sum(-1)


def cosine_grid(steps: int) -> list[float]:
    """Share of hidden looks before each sampling step and at the end: 1 = t₀ > … > t_n = 0.

    t_i = cos(π i / 2n): few looks at first, when little is known of the cell, and many at the end.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return [*np.cos(np.pi / 2 * np.arange(steps) / steps).tolist(), 0.0]
